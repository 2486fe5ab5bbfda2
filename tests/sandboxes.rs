//! Sandboxes on a real engine: what is theirs alone, what is replaced and why, and what is left of commands. A missing
//! engine is a failure.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::disallowed_methods, reason = "tests are configured through the environment")]

mod engine;

use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use engine::{Image, base, docker, ipybox, list};
use serde_json::Value;

/// A project of one test; what is left of it is gone when the test is over.
struct Project(String);

impl Project {
    fn new(name: &str) -> Self {
        Self(format!("test {name} {}", std::process::id()))
    }

    /// `ipybox sandbox COMMAND` for a user.
    fn command(&self, command: &str, user: impl AsRef<OsStr>) -> Command {
        let mut ipybox = ipybox();
        ipybox.args(["sandbox", command, "--project", &self.0, "--user"]).arg(user);
        ipybox
    }

    fn up(&self, user: &str, arguments: &[&str]) -> Value {
        let output = self.command("up", user).arg("--json").args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", said(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn refused(&self, user: &str, arguments: &[&str]) -> String {
        let output = self.command("up", user).args(arguments).output().unwrap();
        assert!(!output.status.success(), "{arguments:?}");
        said(&output)
    }

    fn exec(&self, user: &str, options: &[&str], command: &[&str]) -> Output {
        self.command("exec", user).args(options).arg("--").args(command).output().unwrap()
    }

    /// What a command writes, which must end well.
    fn told(&self, user: &str, command: &[&str]) -> String {
        let output = self.exec(user, &[], command);
        assert!(output.status.success(), "{command:?}: {}", said(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    fn containers(&self) -> Vec<Value> {
        let output = ipybox().args(["sandbox", "list", "--json", "--project", &self.0]).output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Processes in a sandbox whose command line holds a word.
    fn running(&self, user: &str, word: &str) -> String {
        let script = "for p in /proc/[0-9]*; do tr '\\0' ' ' <$p/cmdline 2>/dev/null; echo; done | grep -v grep | grep -F -- \"$0\" | grep -v tr || :";
        let lines = self.told(user, &["sh", "-c", script, word]);
        lines.lines().filter(|line| !line.contains("for p in")).collect()
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        let _ = ipybox().args(["sandbox", "down", "--volumes", "--project", &self.0]).output();
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn one_container_is_there_for_each_user_and_is_kept() {
    let project = Project::new("one");
    let image = base();
    let first = project.up("ann", &["-t", &image]);
    assert_eq!((&first["outcome"], &first["state"]), (&"created".into(), &"running".into()));
    let again = project.up("ann", &["-t", &image]);
    assert_eq!((&again["outcome"], &again["id"]), (&"running".into(), &first["id"]));
    // Users whose names look alike to those who replace characters.
    for user in ["a@b.c", "a_b_c", "a/b/c", "../../etc", "-x", "ä", &"x".repeat(300)] {
        let made = project.up(user, &["-t", &image]);
        assert_eq!(made["user"], user);
    }
    let bytes = OsStr::from_bytes(b"\xff\xfe \n'$(id)");
    let output = project.command("up", bytes).args(["-t", &image]).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let containers = project.containers();
    let names: std::collections::BTreeSet<&str> =
        containers.iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(names.len(), 9, "{containers:?}");
    for (project, user) in [("", "x"), ("x", "")] {
        let output = ipybox()
            .args(["sandbox", "up", "--project", project, "--user", user, "-t", &image])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    }

    // Another setting replaces it, and is told.
    let replaced = project.up("ann", &["-t", &image, "--memory", "512MB", "--env", "A=secret"]);
    assert_eq!(replaced["outcome"], "replaced");
    assert_eq!(replaced["why"], serde_json::json!(["the environment: `A`", "memory: 2000 MB → 512 MB"]));
    assert_eq!(project.told("ann", &["sh", "-c", "echo $A"]), "secret\n");
    let labels =
        docker(&["inspect", "--format", "{{json .Config.Labels}}", replaced["name"].as_str().unwrap()]);
    assert!(!labels.contains("secret"), "{labels}");

    // One that was stopped goes on.
    let stopped = project.command("stop", "ann").output().unwrap();
    assert!(stopped.status.success(), "{}", said(&stopped));
    let output = project.exec("ann", &[], &["true"]);
    assert_eq!(output.status.code(), Some(125));
    assert!(
        said(&output).contains("does not run") && said(&output).contains("sandbox up"),
        "{}",
        said(&output)
    );
    let started = project.up("ann", &["-t", &image, "--memory", "512MB", "--env", "A=secret"]);
    assert_eq!((&started["outcome"], &started["id"]), (&"started".into(), &replaced["id"]));
    let down = ipybox().args(["sandbox", "down", "--project", &project.0]).output().unwrap();
    assert!(down.status.success(), "{}", said(&down));
    assert_eq!(project.containers(), Vec::<Value>::new());
    let output = project.exec("ann", &[], &["true"]);
    assert!(
        output.status.code() == Some(125) && said(&output).contains("there is no sandbox"),
        "{}",
        said(&output)
    );
}

#[test]
fn commands_end_as_shells_say_and_leave_nothing_when_their_time_is_over() {
    let project = Project::new("exec");
    project.up("ann", &["-t", &base()]);
    for (command, code) in [
        (["sh", "-c", "exit 7"].as_slice(), 7),
        (&["no-such-command"], 127),
        (&["/etc/passwd"], 126),
        (&["sh", "-c", "kill -9 $$"], 137),
    ] {
        assert_eq!(project.exec("ann", &[], command).status.code(), Some(code), "{command:?}");
    }
    // What the user leaves in place of what tells when it was used keeps nobody waiting.
    project.told("ann", &["sh", "-c", "rm -f /dev/shm/.ipybox-used; mkfifo /dev/shm/.ipybox-used"]);
    assert_eq!(project.exec("ann", &["--timeout", "20"], &["true"]).status.code(), Some(0));
    project.told("ann", &["rm", "/dev/shm/.ipybox-used"]);
    assert_eq!(project.exec("ann", &["--timeout", "0"], &["true"]).status.code(), Some(2));
    let output = project.exec("ann", &[], &["sh", "-c", "echo out; echo err >&2"]);
    assert_eq!(
        (output.stdout.as_slice(), output.stderr.as_slice()),
        (b"out\n".as_slice(), b"err\n".as_slice())
    );
    // No shell reads what is not given to one.
    let words = ["printf", "%s|", "a & b", "$HOME", "<x", "$(id)", "; exit 3", "`id`", "*", "", "ä\n"];
    assert_eq!(project.told("ann", &words), "a & b|$HOME|<x|$(id)|; exit 3|`id`|*||ä\n|");
    let output = project.exec("ann", &["-w", "/tmp", "--env", "B=2"], &["sh", "-c", "pwd; echo $B"]);
    assert_eq!(output.stdout, b"/tmp\n2\n");

    // What it started in the background, in its own session, and without a parent.
    let begun = Instant::now();
    let script =
        "echo begun; setsid sleep 4711 & (sleep 4711 &) ; sh -c 'trap \"\" TERM; sleep 4711' & sleep 4711";
    let output = project.exec("ann", &["--timeout", "1", "--json"], &["sh", "-c", script]);
    assert_eq!(output.status.code(), Some(124), "{}", said(&output));
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&told["exit_code"], &told["timed_out"], &told["stdout"]),
        (&124.into(), &true.into(), &"begun\n".into())
    );
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_eq!(project.running("ann", "sleep 4711"), "");
    // Nothing else is ended.
    let mut other = project.command("exec", "ann").args(["--", "sleep", "4712"]).spawn().unwrap();
    let output = project.exec("ann", &["--timeout", "0.2"], &["sleep", "4711"]);
    assert_eq!(output.status.code(), Some(124));
    assert!(project.running("ann", "sleep 4712").contains("sleep 4712"));
    // Whoever gives up ends it, too.
    assert!(Command::new("kill").args(["-INT", &other.id().to_string()]).status().unwrap().success());
    assert_eq!(other.wait().unwrap().code(), Some(130));
    assert_eq!(project.running("ann", "sleep 4712"), "");

    // A command that is over is not waited for because of what it left running.
    let begun = Instant::now();
    let output = project.exec("ann", &[], &["sh", "-c", "sleep 30 & echo done"]);
    assert!(output.stdout == b"done\n" && begun.elapsed() < Duration::from_secs(5));

    let output = project.exec("ann", &["--json"], &["printf", "a\\377b"]);
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["stdout"], "a\u{fffd}b");
    let mut command = project.command("exec", "ann");
    let mut child =
        command.args(["-i", "--", "cat"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let bytes: Vec<u8> = (0..=255).cycle().take(1 << 20).collect();
    let mut input = child.stdin.take().unwrap();
    let sent = bytes.clone();
    let writer = thread::spawn(move || input.write_all(&sent));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success() && output.stdout == bytes);
}

#[test]
fn a_gigabyte_of_output_takes_no_memory() {
    let project = Project::new("output");
    project.up("ann", &["-t", &base()]);
    let flood = "import sys\nfor _ in range(1024): sys.stdout.buffer.write(b'x' * 1048576)";
    let mut command = project.command("exec", "ann");
    let mut child = command.args(["--", "python3", "-c", flood]).stdout(Stdio::piped()).spawn().unwrap();
    let (mut count, mut peak) = (0, 0);
    let mut buffer = vec![0; 1 << 20];
    let mut stdout = child.stdout.take().unwrap();
    loop {
        let read = stdout.read(&mut buffer).unwrap();
        if read == 0 {
            break;
        }
        count += read;
        if let Ok(status) = fs::read_to_string(format!("/proc/{}/status", child.id())) {
            let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            peak = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(peak);
        }
    }
    assert!(child.wait().unwrap().success());
    assert!(count == 1 << 30 && peak < 64_000, "{count} bytes, {peak} kB");
    let output = project.exec("ann", &["--json"], &["python3", "-c", flood]);
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&told["truncated"], told["stdout"].as_str().unwrap().len()), (&true.into(), 10_000_000));
    // A reader that goes away ends it.
    let mut command = project.command("exec", "ann");
    let mut child = command.args(["--", "yes", "4713"]).stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(141));
    assert_eq!(project.running("ann", "yes 4713"), "");
}

#[test]
fn a_sandbox_is_locked_in_unless_it_is_said_what_is_given_away() {
    let project = Project::new("safe");
    let image = base();
    let made = project.up("ann", &["-t", &image, "--read-only", "--network", "none", "--cpus", "0.5"]);
    let name = made["name"].as_str().unwrap();
    let inspected: Value = serde_json::from_str(&docker(&["inspect", name])).unwrap();
    let host = &inspected[0]["HostConfig"];
    assert_eq!(host["CapDrop"], serde_json::json!(["ALL"]));
    assert_eq!(host["SecurityOpt"], serde_json::json!(["no-new-privileges:true"]));
    assert_eq!((&host["Privileged"], &host["NetworkMode"]), (&false.into(), &"none".into()));
    assert_eq!((&host["Memory"], &host["PidsLimit"]), (&2_000_000_000_u64.into(), &1024.into()));
    assert_eq!(host["NanoCpus"], 500_000_000);
    assert_eq!(project.exec("ann", &[], &["touch", "/x"]).status.code(), Some(1));
    project
        .told("ann", &["sh", "-c", "touch /tmp/x && ! cat /proc/self/status | grep -q '^CapEff:.*[1-9a-f]'"]);
    let fork = "import os, time\nfor n in range(3000):\n try:\n  if os.fork() == 0: time.sleep(20); os._exit(0)\n except OSError: print(n); break";
    let forked: u32 = project.told("ann", &["python3", "-c", fork]).trim().parse().unwrap();
    assert!(forked < 1024, "{forked}");

    let folder = tempfile::tempdir().unwrap();
    let real = fs::canonicalize(folder.path()).unwrap();
    let link = real.join("link");
    std::os::unix::fs::symlink("/etc", &link).unwrap();
    let socket = std::env::var("DOCKER_HOST").unwrap_or_else(|_| "unix:///var/run/docker.sock".to_owned());
    let socket_folder =
        std::path::Path::new(socket.trim_start_matches("unix://")).parent().unwrap().to_owned();
    for (mount, flag) in [
        ("/", "--give-away root"),
        (link.to_str().unwrap(), "--give-away link"),
        (fs::canonicalize(&socket_folder).unwrap().to_str().unwrap(), "--give-away engine"),
    ] {
        let refused = project.refused("bob", &["-t", &image, "--mount", mount]);
        assert!(refused.contains("is not mounted") && refused.contains(flag), "{refused}");
    }
    assert!(project.refused("bob", &["-t", &image, "--network", "host"]).contains("is refused"));
    assert!(project.refused("bob", &["-t", &image, "--network", "container:x"]).contains("is refused"));
    assert_eq!(project.containers().len(), 1);

    // A folder and a volume, which outlives the container.
    fs::set_permissions(&real, fs::Permissions::from_mode(0o777)).unwrap();
    let settings = [
        "-t",
        &image,
        "--mount",
        real.to_str().unwrap(),
        "--mount-at",
        "/bot",
        "--volume",
        "/bot/_data",
        "--as",
        "1234:0",
    ];
    fs::create_dir(real.join("_data")).unwrap();
    project.up("ann", &settings);
    project.told("ann", &["sh", "-c", "pwd >_data/where; echo 1 >mine; id -u >>mine"]);
    assert_eq!(fs::read_to_string(real.join("mine")).unwrap(), "1\n1234\n");
    let replaced = project.up("ann", &[&settings[..], &["--pids", "99"]].concat());
    assert_eq!(replaced["why"], serde_json::json!(["processes: 1024 → 99"]));
    assert_eq!(project.told("ann", &["cat", "/bot/_data/where"]), "/bot\n");
    let down = project.command("down", "ann").arg("--volumes").output().unwrap();
    assert!(String::from_utf8_lossy(&down.stdout).lines().count() == 2, "{}", said(&down));
    project.up("ann", &settings);
    assert_eq!(project.exec("ann", &[], &["cat", "/bot/_data/where"]).status.code(), Some(1));

    // Nothing is changed in what is only to be read.
    let read_only = format!("{}:/data:ro", real.display());
    project.up("carl", &["-t", &image, "--mount", &read_only]);
    assert_eq!(project.exec("carl", &[], &["touch", "/data/x"]).status.code(), Some(1));

    let two = format!("{}:/other", real.join("_data").display());
    let made = project
        .up("bob", &["-t", &image, "--mount", &two, "--mount", real.to_str().unwrap(), "--as", "1234:0"]);
    assert_eq!(made["workdir"], "/workspace");
    assert_eq!(
        project.told("bob", &["sh", "-c", "ls -d ../other mine; pwd"]),
        "../other\nmine\n/workspace\n"
    );
    let refused = project.refused("bob", &["-t", &image, "--mount", &two, "--mount", &two]);
    assert!(refused.contains("two folders are mounted at `/other`"), "{refused}");

    // Files go in and out, and belong to whom the container runs as.
    fs::write(real.join("data.csv"), "1,2\n").unwrap();
    let copy = |from: &str, to: &str| {
        let output = project.command("cp", "ann").args([from, to]).output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
    };
    copy(real.join("data.csv").to_str().unwrap(), ":/tmp");
    assert_eq!(project.told("ann", &["stat", "-c", "%u %n", "/tmp/data.csv"]), "1234 /tmp/data.csv\n");
    copy(real.join("data.csv").to_str().unwrap(), ":/tmp/renamed.csv");
    copy(real.join("mine").to_str().unwrap(), ":/tmp/renamed.csv");
    assert_eq!(project.told("ann", &["cat", "/tmp/renamed.csv"]), "1\n1234\n");
    project.told("ann", &["sh", "-c", "mkdir -p /tmp/out/deep; echo 3 >/tmp/out/deep/x"]);
    copy(":/tmp/out", real.to_str().unwrap());
    assert_eq!(fs::read_to_string(real.join("out/deep/x")).unwrap(), "3\n");
    copy(":/tmp/out/deep/x", real.join("renamed").to_str().unwrap());
    assert_eq!(fs::read_to_string(real.join("renamed")).unwrap(), "3\n");
    let output = project.command("cp", "ann").args([":/nowhere", "/tmp"]).output().unwrap();
    assert!(said(&output).contains("there is no `/nowhere`"), "{}", said(&output));
}

#[test]
fn an_image_of_a_dockerfile_is_built_when_its_folder_changed() {
    let project = Project::new("dockerfile");
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    let dockerfile = folder.path().join("Dockerfile");
    let file = dockerfile.to_str().unwrap();
    write("Dockerfile", &format!("FROM {}\nLABEL ipybox.test=\nCOPY . /bot/\nWORKDIR /bot\n", base()));
    write(".dockerignore", "*.log\n");
    write("a.txt", "1");
    write("b.log", "1");
    let first = project.up("ann", &["-f", file]);
    assert_eq!(project.told("ann", &["sh", "-c", "pwd; ls"]), "/bot\nDockerfile\na.txt\n");
    write("b.log", "2");
    let same = project.up("ann", &["-f", file]);
    assert_eq!((&same["outcome"], &same["image_id"]), (&"running".into(), &first["image_id"]));
    write("a.txt", "2");
    let output = project.command("up", "ann").args(["-f", file]).output().unwrap();
    assert!(output.status.success() && said(&output).contains("has changed"), "{}", said(&output));
    assert_eq!(project.told("ann", &["cat", "a.txt"]), "2");
    // What it is built on is another image of the same name.
    let moving = Image::tag("moving");
    docker(&["tag", &base(), &moving]);
    let text = fs::read_to_string(&dockerfile).unwrap();
    write("Dockerfile", &text.replace(&base(), &moving));
    let before = project.up("eve", &["-f", file]);
    let moved = Image::commit("moving", None, &["ENV A=1", "CMD [\"sh\"]"]);
    let after = project.up("eve", &["-f", file]);
    assert_ne!((&before["image_id"], &before["id"]), (&after["image_id"], &after["id"]));
    assert_eq!(project.told("eve", &["sh", "-c", "echo $A"]), "1\n");
    drop(moved);
    write("Dockerfile", &text);
    // Whoever asks next gets the same image, in a container of their own.
    let bob = project.up("bob", &["-f", file]);
    assert_ne!(bob["image_id"], first["image_id"]);

    // A volume in a place where the image has files is the user's with all of them.
    write(
        "Dockerfile",
        &format!(
            "FROM {}\nLABEL ipybox.test=\nRUN mkdir -p /bot/lib/deep && touch /bot/lib/deep/x\n",
            base()
        ),
    );
    project.up("dora", &["-f", file, "--volume", "/bot/lib", "--as", "1234:0"]);
    project.told("dora", &["sh", "-c", "touch /bot/lib/y && echo 1 >/bot/lib/deep/x"]);
    project.up("ann", &["-f", file, "--", "sh", "-c", "printf 2 >a.txt; exec sleep infinity"]);

    write("Dockerfile", &format!("FROM {}\nCOPY none /\n", base()));
    let refused = project.refused("ann", &["-f", file]);
    assert!(refused.contains("none") && refused.contains("not found"), "{refused}");
    write("Dockerfile", &format!("FROM {}\nRUN echo of no use >&2; exit 3\n", base()));
    let refused = project.refused("ann", &["-f", file]);
    assert!(refused.contains("of no use") && refused.contains("exit code 3"), "{refused}");
    // What was there goes on.
    assert_eq!(project.told("ann", &["cat", "a.txt"]), "2");
    write(
        "Dockerfile",
        &format!(
            "FROM {}\nLABEL ipybox.test=\nCMD [\"sh\", \"-c\", \"echo cannot go on; exit 5\"]\n",
            base()
        ),
    );
    let refused = project.refused("carl", &["-f", file]);
    for part in ["ended by itself, with exit code 5", "cannot go on", "sleep infinity"] {
        assert!(refused.contains(part), "no `{part}` in {refused}");
    }
    // One that is never ready is told of; whoever gives up on it leaves none behind.
    write(
        "Dockerfile",
        &format!(
            "FROM {}\nLABEL ipybox.test=\nHEALTHCHECK --interval=1s CMD false\nCMD [\"sleep\", \"99999\"]\n",
            base()
        ),
    );
    let refused = project.refused("carl", &["-f", file, "--wait", "0.2"]);
    assert!(refused.contains("is not ready") && refused.contains("starting"), "{refused}");
    assert!(project.command("down", "carl").status().unwrap().success());
    let mut waiting = project.command("up", "carl").args(["-f", file]).stderr(Stdio::null()).spawn().unwrap();
    let carls = || {
        project.containers().iter().filter(|one| one["user"] == "carl" && one["state"] == "running").count()
    };
    let begun = Instant::now();
    while carls() == 0 && begun.elapsed() < Duration::from_secs(20) {
        thread::sleep(Duration::from_millis(50));
    }
    assert!(Command::new("kill").args(["-INT", &waiting.id().to_string()]).status().unwrap().success());
    assert_eq!(waiting.wait().unwrap().code(), Some(130));
    assert!(!project.containers().iter().any(|one| one["user"] == "carl"));
    assert!(project.refused("carl", &["-f", folder.path().to_str().unwrap()]).contains("no Dockerfile"));
    let tag = first["image"].as_str().unwrap();
    let down = ipybox().args(["sandbox", "down", "--image", "--project", &project.0]).output().unwrap();
    assert!(String::from_utf8_lossy(&down.stdout).contains(&format!("{tag}: removed")), "{}", said(&down));
    assert_eq!(docker(&["images", "--quiet", tag]), "");
}

#[test]
fn an_image_for_another_processor_is_told() {
    let project = Project::new("platform");
    let folder = tempfile::tempdir().unwrap();
    // The head of a program for ARM, and nothing behind it.
    let mut program = b"\x7fELF\x02\x01\x01".to_vec();
    program.resize(16, 0);
    program.extend([2, 0, 183, 0, 1, 0, 0, 0]);
    program.resize(128, 0);
    fs::create_dir(folder.path().join("bin")).unwrap();
    fs::write(folder.path().join("bin/sh"), program).unwrap();
    fs::set_permissions(folder.path().join("bin/sh"), fs::Permissions::from_mode(0o755)).unwrap();
    let tar = folder.path().join("image.tar");
    engine::run(Command::new("tar").arg("-cf").arg(&tar).arg("-C").arg(folder.path()).arg("bin"));
    let tag = Image::tag("arm");
    let change = "--change=LABEL ipybox.test=";
    docker(&["import", change, tar.to_str().unwrap(), &tag]);
    let refused = project.refused("ann", &["-t", &tag]);
    docker(&["rmi", &tag]);
    assert!(refused.contains("its program is for another processor"), "{refused}");
    assert_eq!(project.containers(), Vec::<Value>::new());
}

#[test]
fn callers_at_once_get_one_container_and_a_killed_one_leaves_nothing_that_matters() {
    let project = Project::new("race");
    let image = base();
    let racing: Vec<_> = (0..8)
        .map(|_| {
            project
                .command("up", "ann")
                .args(["--json", "-t", &image])
                .stdout(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    let ids: std::collections::BTreeSet<String> = racing
        .into_iter()
        .map(|child| {
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success());
            let told: Value = serde_json::from_slice(&output.stdout).unwrap();
            told["id"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(ids.len(), 1, "{ids:?}");
    assert_eq!(project.containers().len(), 1);

    // Killed at any time while it replaces one, the next caller has it right.
    for number in 0..30_u64 {
        let memory = format!("{}MB", 100 + number % 2);
        let settings = ["-t", &image, "--memory", &memory, "--volume", "/data", "--as", "1234:0"];
        let mut killed = project
            .command("up", "ann")
            .args(settings)
            .stderr(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        thread::sleep(Duration::from_millis(number * 977 % 1100));
        let _ = killed.kill();
        killed.wait().unwrap();
        let up = project.up("ann", &settings);
        assert_eq!(up["state"], "running");
        let limit = docker(&["inspect", "--format", "{{.HostConfig.Memory}}", up["id"].as_str().unwrap()]);
        assert_eq!(limit.trim(), format!("{}000000", 100 + number % 2));
        project.told("ann", &["touch", "/data/mine"]);
    }
    assert_eq!(project.containers().len(), 1);
    // What is left of killed ones keeps no volume.
    let down = project.command("down", "ann").arg("--volumes").output().unwrap();
    assert!(down.status.success() && said(&down).is_empty(), "{}", said(&down));
    project.up("ann", &["-t", &image]);
    // Somebody else's container is left alone.
    let name = project.containers()[0]["name"].as_str().unwrap().to_owned();
    let down = project.command("down", "ann").output().unwrap();
    assert!(down.status.success());
    docker(&["create", "--name", &name, "--label", "ipybox.test", &image, "true"]);
    let refused = project.refused("ann", &["-t", &image]);
    let exec = project.exec("ann", &[], &["true"]);
    docker(&["rm", &name]);
    assert!(refused.contains("is none of this program"), "{refused}");
    assert!(exec.status.code() == Some(125) && said(&exec).contains("is none of this program"));
}

#[test]
fn fifty_users_at_once_have_fifty_containers() {
    let project = Project::new("fifty");
    let image = base();
    let settings = ["-t", &image, "--memory", "64MB", "--cpus", "0.5"];
    let starting: Vec<_> = (0..50)
        .map(|number| {
            let mut command = project.command("up", format!("user {number}"));
            command.args(settings).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    for child in starting {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
    }
    let containers = project.containers();
    assert_eq!(containers.iter().filter(|one| one["state"] == "running").count(), 50);
    let down = ipybox().args(["sandbox", "down", "--project", &project.0]).output().unwrap();
    assert!(down.status.success(), "{}", said(&down));
    assert_eq!(project.containers(), Vec::<Value>::new());
}

/// Of two sandboxes, of which one runs a command that is a user's, and the other has a client.
fn what_is_used_is_no_garbage(project: &Project, anns: &Value, bobs: &Value) {
    let name = |one: &Value| one["name"].as_str().unwrap().to_owned();
    let unused = || {
        let gc = ipybox().args(["sandbox", "gc", "--idle", "0s", "--dry-run"]).output().unwrap();
        String::from_utf8_lossy(&gc.stdout).into_owned()
    };
    let mut busy = project.command("exec", "ann").args(["--", "sleep", "60"]).spawn().unwrap();
    thread::sleep(Duration::from_millis(500));
    let told = unused();
    assert!(told.contains(&name(bobs)) && !told.contains(&name(anns)), "{told}");
    let _ = Command::new("kill").args(["-INT", &busy.id().to_string()]).status();
    busy.wait().unwrap();
    let (host, port) =
        bobs["address"].as_str().unwrap().trim_start_matches("http://").split_once(':').unwrap();
    let connected = std::net::TcpStream::connect((host, port.parse::<u16>().unwrap())).unwrap();
    thread::sleep(Duration::from_millis(300));
    assert!(!unused().contains(&name(bobs)));
    drop(connected);
    let begun = Instant::now();
    while !unused().contains(&name(bobs)) {
        assert!(begun.elapsed() < Duration::from_secs(30));
    }
}

#[test]
fn an_image_of_a_list_serves_with_a_token_and_reaches_what_it_may() {
    let project = Project::new("gateway");
    let (folder, file) = list("tomli-w = \"*\"\n");
    let tag = Image::tag("sandbox");
    let settings = [
        "-t",
        &tag,
        "-d",
        &file,
        "-V",
        "minimal",
        "--base",
        &base(),
        "--read-only",
        "--allow-domain",
        "192.0.2.1",
    ];
    let made = project.up("ann", &settings);
    let image =
        Image { tag: tag.clone(), id: made["image_id"].as_str().unwrap().to_owned(), said: String::new() };
    let (address, token) = (made["address"].as_str().unwrap(), made["token"].as_str().unwrap());
    assert!(address.starts_with("http://127.0.0.1:"), "{address}");
    let file_mode = fs::metadata(made["token_file"].as_str().unwrap()).unwrap().permissions().mode();
    assert_eq!(file_mode & 0o777, 0o600);
    assert_eq!(fs::read_to_string(made["token_file"].as_str().unwrap()).unwrap(), token);
    let asked = |token: &str| {
        let (host, port) = address.trim_start_matches("http://").split_once(':').unwrap();
        let mut stream = std::net::TcpStream::connect((host, port.parse::<u16>().unwrap())).unwrap();
        let request =
            format!("GET /api/kernelspecs HTTP/1.0\r\nHost: x\r\nAuthorization: token {token}\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer.lines().next().unwrap_or_default().to_owned()
    };
    assert!(
        asked(token).contains(" 200 ") && asked("no").contains(" 401 "),
        "{} {}",
        asked(token),
        asked("no")
    );
    // Another caller finds the same token.
    let again = project.up("ann", &settings);
    assert_eq!((&again["outcome"], &again["token"]), (&"running".into(), &made["token"]));
    let bob = project.up("bob", &settings);
    assert_ne!(bob["token"], made["token"]);
    assert_ne!(bob["address"], made["address"]);
    // Names can be resolved, and nothing else can be reached; nobody in it can change that.
    let reach = "import socket\ns = socket.socket(); s.settimeout(5)\ntry: s.connect(('198.51.100.1', 80)); print('reached')\nexcept OSError as error: print(error.errno)";
    assert_eq!(project.told("ann", &["python", "-c", reach]), "101\n");
    let changed = project.exec("ann", &[], &["/usr/sbin/iptables", "-F"]);
    assert!(!changed.status.success());
    // The rules are gone when the container ends, and there again before it is given back.
    docker(&["restart", "-t", "1", made["name"].as_str().unwrap()]);
    let unrestricted = project.exec("ann", &[], &["true"]);
    assert_eq!(unrestricted.status.code(), Some(125));
    assert!(said(&unrestricted).contains("is not restricted yet"), "{}", said(&unrestricted));
    let copied = project.command("cp", "ann").args([&file, ":/app"]).output().unwrap();
    assert!(said(&copied).contains("is not restricted yet"), "{}", said(&copied));
    // Its server waits for the rules.
    let first = docker(&["exec", made["name"].as_str().unwrap(), "cat", "/proc/1/cmdline"]);
    assert!(first.contains("until is_set"), "{first}");
    let again = project.up("ann", &settings);
    assert_eq!(again["id"], made["id"]);
    assert_eq!(project.told("ann", &["python", "-c", reach]), "101\n");

    // The list has changed: so has the image, and the container is another.
    fs::write(&file, "tomli-w = \"<1.1\"\n").unwrap();
    let output = project.command("up", "ann").arg("--json").args(settings).output().unwrap();
    assert!(said(&output).contains("tomli-w: any version → <1.1"), "{}", said(&output));
    let replaced: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(replaced["why"][0].as_str().unwrap().starts_with("the image: "), "{replaced}");
    assert_eq!(
        project.told("ann", &["python", "-c", "import tomli_w; print(tomli_w.__name__)"]),
        "tomli_w\n"
    );
    let refused = project.refused("carl", &["-t", &base(), "--allow-domain", "192.0.2.1", "--as", "1234"]);
    assert!(refused.contains("the image has no firewall"), "{refused}");

    what_is_used_is_no_garbage(&project, &replaced, &bob);

    // What was made from an image is removed by its name.
    let images: Value =
        serde_json::from_slice(&ipybox().args(["images", "--json"]).output().unwrap().stdout).unwrap();
    let ours = images.as_array().unwrap().iter().find(|one| one["names"].to_string().contains(&tag)).unwrap();
    assert_eq!(ours["kind"], "minimal");
    let pruned = ipybox().args(["prune", "--dry-run"]).output().unwrap();
    assert!(!String::from_utf8_lossy(&pruned.stdout).contains(&tag), "{}", said(&pruned));
    let removed = ipybox().args(["cleanup", "-a", &tag]).output().unwrap();
    let told = String::from_utf8_lossy(&removed.stdout);
    assert!(told.contains(replaced["name"].as_str().unwrap()) && told.contains("removed"), "{told}");
    drop((image, folder));
}

/// Images that have lost their names; they are gone when the test is over.
struct Nameless(Vec<String>);

impl Drop for Nameless {
    fn drop(&mut self) {
        let _ = Command::new("docker").args(["rmi", "--force"]).args(&self.0).output();
    }
}

/// Builds with docker what a Dockerfile says, under a name, and returns its id.
fn built_elsewhere(tag: &str, dockerfile: &str, arguments: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("Dockerfile"), dockerfile).unwrap();
    fs::write(folder.path().join("a"), "a\n").unwrap();
    let mut build = Command::new(engine::client_with_buildkit().join("docker"));
    build.args(["build", "--quiet", "--tag", tag]).args(arguments).arg(folder.path());
    engine::run(build.env("DOCKER_BUILDKIT", "1")).trim().to_owned()
}

fn told_by_prune(id: &str) -> bool {
    let output = ipybox().args(["prune", "--dry-run"]).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    String::from_utf8(output.stdout).unwrap().contains(&id.trim_start_matches("sha256:")[..12])
}

#[test]
fn prune_takes_only_what_is_its_own() {
    for builder in ["buildkit", "direct"] {
        let (_folder, path) = list("six = \"*\"\n");
        // Other tests have an image of such a list, too.
        let label = format!("z.test={builder}-{}", std::process::id());
        let ours = Image::build(
            &format!("prune-{builder}"),
            &["-V", "kernel", "-d", &path, "--label", &label, "--builder", builder],
        );
        let mut nameless = Nameless(Vec::new());
        let tag = Image::tag(&format!("prune-on-{builder}"));
        for (steps, arguments) in [
            ("LABEL z.test=other\n", [].as_slice()),
            ("COPY a /app/a\n", &[]),
            // This adds no step.
            ("", &["--label", "other=1"]),
        ] {
            let dockerfile = format!("FROM {}\n{steps}", ours.tag);
            nameless.0.push(built_elsewhere(&tag, &dockerfile, arguments));
        }
        for tag in [&ours.tag, &tag] {
            docker(&["tag", &base(), tag]);
        }
        let _tag = Image { tag, id: String::new(), said: String::new() };
        for others in &nameless.0 {
            assert_ne!(*others, ours.id);
            assert!(!told_by_prune(others), "{builder}: {others}");
        }
        assert!(told_by_prune(&ours.id), "{builder}");
        nameless.0.push(ours.id.clone());
    }
}

#[test]
fn prune_takes_replaced_images_of_a_dockerfile_and_not_what_is_built_on_them() {
    let project = Project::new("prune");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("Dockerfile");
    let dockerfile = format!("FROM {}\nENV TEST={}\nCOPY a /a\n", base(), std::process::id());
    fs::write(&file, dockerfile).unwrap();
    let up = |content: &str| {
        fs::write(folder.path().join("a"), content).unwrap();
        project.up("ann", &["-f", file.to_str().unwrap()])
    };
    let old = up("old\n");
    let (tag, id) = (old["image"].as_str().unwrap(), old["image_id"].as_str().unwrap());
    let _tag = Image { tag: tag.to_owned(), id: String::new(), said: String::new() };
    let other = Image { tag: Image::tag("prune-on-old"), id: String::new(), said: String::new() };
    let on_it = built_elsewhere(&other.tag, &format!("FROM {tag}\nCOPY a /b\n"), &[]);
    assert_eq!(up("new\n")["outcome"], "replaced");
    let nameless = Nameless(vec![id.to_owned(), on_it]);
    docker(&["tag", &base(), &other.tag]);
    assert!(told_by_prune(&nameless.0[0]) && !told_by_prune(&nameless.0[1]), "{:?}", nameless.0);
    drop(project);
}

#[test]
fn cleanup_tells_no_image_from_no_containers() {
    let cleanup = |image: &str| ipybox().args(["cleanup", "-a", image]).output().unwrap();
    let none = cleanup("no-such-image:of-a-test");
    assert_eq!(none.status.code(), Some(1), "{}", said(&none));
    assert!(said(&none).contains("there is no image") && said(&none).contains("ipybox images"));
    let image = Image::commit("cleanup", None, &[]);
    let idle = cleanup(&image.tag);
    assert!(idle.status.success() && said(&idle).contains("no containers"), "{}", said(&idle));
    // A container outlives its image.
    let container = docker(&["create", "--label", "ipybox.test", &image.tag, "true"]);
    docker(&["rmi", "--force", &image.tag]);
    let removed = cleanup(&image.id);
    let told = String::from_utf8_lossy(&removed.stdout);
    assert!(told.contains(&container[..12]) && told.contains("removed"), "{told}{}", said(&removed));
}

/// A project between whose sandboxes and a folder of this host files are copied.
struct Copies {
    project: Project,
    folder: tempfile::TempDir,
}

impl Copies {
    /// In its folder are `in`, with a file and a link to that, and `shortcut`, a link to the file.
    fn new(name: &str) -> Self {
        let copies = Self { project: Project::new(name), folder: tempfile::tempdir().unwrap() };
        fs::create_dir(copies.here("in")).unwrap();
        fs::write(copies.here("in/x"), "1\n").unwrap();
        let time = std::time::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        fs::File::open(copies.here("in/x")).unwrap().set_modified(time).unwrap();
        std::os::unix::fs::symlink("x", copies.here("in/link")).unwrap();
        std::os::unix::fs::symlink("in/x", copies.here("shortcut")).unwrap();
        copies
    }

    fn here(&self, name: &str) -> String {
        self.folder.path().join(name).into_os_string().into_string().unwrap()
    }

    fn names(&self, folder: &str) -> String {
        let entries = self.folder.path().join(folder).read_dir().unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names.join(" ")
    }

    fn copy(&self, user: &str, from: &str, to: &str) {
        let output = self.project.command("cp", user).args([from, to]).output().unwrap();
        assert!(output.status.success(), "{from} → {to}: {}", said(&output));
    }

    fn refused(&self, user: &str, from: &str, to: &str, parts: &[&str]) {
        let output = self.project.command("cp", user).args([from, to]).output().unwrap();
        assert!(!output.status.success(), "{from} → {to}");
        for part in parts {
            assert!(said(&output).contains(part), "{from} → {to}: no `{part}` in {}", said(&output));
        }
    }
}

#[test]
fn files_go_in_and_out_and_nothing_else_comes_with_them() {
    use std::os::unix::fs::MetadataExt;

    let copies = Copies::new("hostile");
    let here = |name: &str| copies.here(name);
    copies.project.up("bob", &["-t", &base()]);
    let script = "mkdir -p /w/good/deep && cd /w/good && cp /bin/true root && chmod 6755 root && ln root deep/hard && \
        ln -s ../root deep/link && chmod 1777 deep && ln -s good ../latest && ln -s round ../round && \
        for bad in fifo out far; do mkdir -p ../$bad/d; echo 1 >../$bad/d/a; done && mkfifo ../fifo/d/pipe && \
        ln -s /etc/passwd ../out/d/passwd && ln -s ../../good ../far/d/good && mkdir -p ../clash/deep/hard ../x && \
        python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"/w/socket\")'";
    copies.project.told("bob", &["sh", "-c", script]);
    copies.copy("bob", ":/w/latest", &here("bob"));
    copies.copy("bob", ":/w/latest/.", &here("bob"));
    assert_eq!((copies.names("bob"), copies.names("bob/deep")), ("deep root".into(), "hard link".into()));
    let mine = fs::metadata(copies.folder.path()).unwrap().uid();
    for name in ["bob/root", "bob/deep/hard", "bob/deep"] {
        let metadata = fs::metadata(here(name)).unwrap();
        assert_eq!((metadata.mode() & 0o7000, metadata.uid()), (0, mine), "{name}");
    }
    assert_eq!(fs::read_link(here("bob/deep/link")).unwrap().to_str(), Some("../root"));
    let before = copies.names("");
    for (path, parts) in [
        (":/w/fifo", ["`/w/fifo/d/pipe` is not copied", "it is a FIFO"]),
        (":/w/fifo/d/pipe", ["`/w/fifo/d/pipe` is not copied", "it is a FIFO"]),
        (":/w/out", ["`/w/out/d/passwd` is not copied", "a link to `/etc/passwd`"]),
        (":/w/far", ["`/w/far/d/good` is not copied", "a link to `../../good`"]),
        (":/w/socket", ["`/w/socket` is not copied", "socket"]),
        (":/w/round", ["cannot read a file", "too many links"]),
        (":/dev/null", ["`/dev/null` is not copied", "it is a device"]),
        (":/", ["has no name", "below it"]),
    ] {
        copies.refused("bob", path, &here(""), &parts);
    }
    assert_eq!(copies.names(""), before);
    copies.refused(
        "bob",
        ":/w/clash/.",
        &here("bob"),
        &["/bob/deep/hard` is not replaced", "no folder here"],
    );
    assert_eq!(copies.names("bob/deep"), "hard link");
    fs::remove_file(here("bob/deep/link")).unwrap();
    fs::create_dir(here("bob/deep/link")).unwrap();
    copies.refused("bob", ":/w/good/.", &here("bob"), &["/bob/deep/link` is not replaced", "a folder here"]);
    copies.refused("bob", ":/w/good", &here("no/folder"), &["there is no folder"]);
    copies.refused("bob", &here("in"), ":/w/good/root", &["cannot overwrite"]);
    copies.refused("bob", &here("in/x"), ":/w", &["cannot overwrite"]);
}

#[test]
fn files_go_in_and_out_of_what_engines_do_not_see() {
    use std::os::unix::fs::MetadataExt;

    let copies = Copies::new("unseen");
    let project = &copies.project;
    let here = |name: &str| copies.here(name);
    fs::create_dir(here("out")).unwrap();
    let settings = ["-t", &base(), "--read-only", "--as", "1234:4321", "--volume", "/data"];
    let made = project.up("ann", &settings);
    for place in ["/tmp", "/data"] {
        copies.copy("ann", &here("in"), &format!(":{place}"));
        copies.copy("ann", &here("in"), &format!(":{place}"));
        copies.copy("ann", &here("shortcut"), &format!(":{place}/in"));
        copies.copy("ann", &here("in/x"), &format!(":{place}/in/renamed"));
        let script =
            "cd $0 && stat -c '%n %u:%g %Y' x shortcut renamed && cat link shortcut && readlink link";
        let told = project.told("ann", &["sh", "-c", script, &format!("{place}/in")]);
        let owned = ["x", "shortcut", "renamed"].map(|name| format!("{name} 1234:4321 1000000000\n"));
        assert_eq!(told, format!("{}1\n1\nx\n", owned.concat()));
        copies.copy("ann", &format!(":{place}/in"), &here("out"));
        copies.copy("ann", &format!(":{place}/in/."), &here("out"));
        assert_eq!(copies.names("out/in"), "link renamed shortcut x");
        assert_eq!(copies.names("out"), "in link renamed shortcut x");
        assert_eq!(fs::metadata(here("out/in/x")).unwrap().mtime(), 1_000_000_000);
        copies.copy("ann", &format!(":{place}/in/link"), &here("followed"));
        assert!(fs::symlink_metadata(here("followed")).unwrap().is_file());
        fs::remove_dir_all(here("out")).unwrap();
        copies.copy("ann", &format!(":{place}/in"), &here("out"));
        assert_eq!(copies.names("out"), "link renamed shortcut x");
        copies.refused("ann", &here("in"), &format!(":{place}/in/x"), &["in/x"]);
        assert_eq!(project.told("ann", &["cat", &format!("{place}/in/x")]), "1\n");
        copies.refused("ann", &here("in/x"), &format!(":{place}/no/x"), &["there is no", "/no/x"]);
        copies.refused("ann", &format!(":{place}/nothing"), &here("out"), &["there is no", "/nothing"]);
    }
    project.told("ann", &["ln", "-s", "round", "/tmp/round"]);
    copies.refused("ann", ":/tmp/round", &here("out"), &["`/tmp/round` is a link", "no end"]);
    copies.refused("ann", &here("in"), ":/etc", &["cannot put files into a container", "Read-only"]);
    let name = made["name"].as_str().unwrap();
    docker(&["exec", "--user", "0", name, "sh", "-c", "echo 0 >/run/of-root"]);
    copies.copy("ann", ":/run/of-root", &here("out"));
    docker(&["exec", "--user", "0", name, "chmod", "600", "/run/of-root"]);
    copies.refused("ann", ":/run/of-root", &here("out"), &["Permission denied"]);
}

#[test]
fn files_go_in_and_out_where_programs_are_missing() {
    let copies = Copies::new("bare");
    let here = |name: &str| copies.here(name);
    let made = copies.project.up("carl", &["-t", &base(), "--as", "1234:4321"]);
    let name = made["name"].as_str().unwrap();
    let remove = |gone: &str| {
        let script = format!("import os; os.remove({gone:?})");
        docker(&["exec", "--user", "0", name, "python3", "-c", &script]);
    };
    for gone in ["/usr/bin/tar", "/usr/bin/id", "/usr/bin/dash"] {
        remove(gone);
        copies.copy("carl", &here("in"), ":/dev/shm");
        copies.copy("carl", &here("in/x"), ":/dev/shm/in/x");
        copies.copy("carl", ":/dev/shm/in", &here("carl"));
        assert_eq!(copies.names("carl"), "link x");
        copies.refused("carl", ":/dev/shm/nothing", &here("carl"), &["there is no"]);
        copies.refused("carl", &here("in/x"), ":/dev/shm/no/x", &["there is no"]);
        fs::remove_dir_all(here("carl")).unwrap();
    }
    remove("/usr/bin/python3");
    copies.refused("carl", &here("in"), ":/dev/shm", &["neither", "`tar`", "`python3`"]);
    copies.copy("carl", &here("in"), ":/srv");
    copies.copy("carl", ":/srv/in", &here("carl"));
    assert_eq!(copies.names("carl"), "link x");
}

#[test]
fn what_runs_is_kept_until_another_is_ready() {
    let project = Project::new("kept");
    let image = base();
    let made = project.up("ann", &["-t", &image]);
    project.told("ann", &["touch", "/tmp/mine"]);
    for (arguments, told) in [
        (["--runtime", "nosuch"].as_slice(), "nosuch"),
        (&["--capability", "NOSUCH"], "NOSUCH"),
        (&["--memory", "1MB"], "emory"),
        (&["--as", "nosuch"], "nosuch"),
        (&["--network", "nosuch"], "nosuch"),
        (&["--volume", "/etc/passwd/x"], "/etc/passwd"),
        (&["--", "no-such-command"], "no-such-command"),
        (&["--", "sh", "-c", "echo of no use; exit 3"], "of no use"),
        (&["--allow-domain", "192.0.2.1"], "the image has no firewall"),
    ] {
        let begun = Instant::now();
        let refused = project.refused("ann", &[&["-t", &image], arguments].concat());
        assert!(refused.contains(told), "{arguments:?}: {refused}");
        assert!(begun.elapsed() < Duration::from_secs(20), "{arguments:?}");
        project.told("ann", &["test", "-e", "/tmp/mine"]);
    }
    let label = format!("label=ipybox.sandbox.project={}", project.0.replace(' ', "%20"));
    assert_eq!(docker(&["ps", "-aq", "--filter", &label]).lines().count(), 1);
    assert_eq!(project.containers()[0]["id"], made["id"]);
    for arguments in [
        ["--memory", "0"].as_slice(),
        &["--mount", ".:/w:rw:x"],
        &["--mount-at", "/w:ro"],
        &["--volume", "/w:/x"],
        &["--network", "ns:/proc/1/ns/net"],
        &["--allow-domain", "192.0.2.1", "--capability", "net_admin"],
        &["--mount", "/proc"],
        &["--mount", "/dev/shm"],
    ] {
        project.refused("ann", &[&["-t", &image], arguments].concat());
    }

    // What was left halfway is used; with other settings it is kept until it is old.
    let successors = || {
        let names = docker(&["ps", "-a", "--filter", &label, "--format", "{{.Names}}"]);
        names.lines().filter(|name| name.contains(".next-")).map(str::to_owned).collect::<Vec<_>>()
    };
    let settings = ["-t", &image, "--pids", "99", "--", "sh", "-c", "sleep 2; exec sleep infinity"];
    let mut killed = project.command("up", "ann").args(settings).spawn().unwrap();
    let begun = Instant::now();
    while successors().is_empty() && begun.elapsed() < Duration::from_secs(20) {
        thread::sleep(Duration::from_millis(5));
    }
    let _ = killed.kill();
    killed.wait().unwrap();
    if let [left] = successors().as_slice() {
        docker(&["rm", "-f", made["name"].as_str().unwrap()]);
        let left = docker(&["inspect", "--format", "{{.Id}}", left]);
        let again = project.up("ann", &settings);
        assert_eq!((&again["id"], &again["name"]), (&left.trim().into(), &made["name"]));
    }
    project.up("ann", &["-t", &image]);

    // One that ended long ago is garbage, one that has just ended is not.
    assert!(project.command("stop", "ann").status().unwrap().success());
    let gc = |idle: &str| {
        let output =
            ipybox().args(["sandbox", "gc", "--remove", "--dry-run", "--idle", idle]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).contains(made["name"].as_str().unwrap())
    };
    assert!(gc("0s") && !gc("1h"));
}

#[test]
fn callers_who_replace_at_once_all_get_a_sandbox() {
    let project = Project::new("replaced");
    let image = base();
    for round in 0..3 {
        project.up("ann", &["-t", &image]);
        let racing: Vec<_> = (0..8)
            .map(|number| {
                let setting = format!("N={round}.{}", number % 2);
                let mut up = project.command("up", "ann");
                up.args(["-t", &image, "--env", &setting]).stdout(Stdio::null()).stderr(Stdio::piped());
                up.spawn().unwrap()
            })
            .collect();
        for child in racing {
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "{}", said(&output));
        }
        assert_eq!(project.containers().len(), 1);
    }
    // Whoever gives up, or waits for less long, takes it from nobody.
    let slow = ["-t", &image, "--env", "N=slow", "--", "sh", "-c", "exec sleep infinity"];
    for signal in ["-INT", "-KILL"] {
        project.up("ann", &["-t", &image]);
        let mut first = project.command("up", "ann").args(slow).stderr(Stdio::null()).spawn().unwrap();
        let second = project.command("up", "ann").args(slow).stderr(Stdio::piped()).spawn().unwrap();
        thread::sleep(Duration::from_millis(120));
        let _ = Command::new("kill").args([signal, &first.id().to_string()]).status();
        first.wait().unwrap();
        let output = second.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
    }
}

#[test]
fn a_hostile_container_keeps_nobody_waiting() {
    let project = Project::new("hostile");
    project.up("ann", &["-t", &base(), "--pids", "40"]);
    let hostile = "for name in sleep stat date id tar; do printf '#!/bin/sh\nwhile :; do :; done\n' >/usr/local/bin/$name; chmod +x /usr/local/bin/$name; done";
    project.told("ann", &["sh", "-c", hostile]);
    let begun = Instant::now();
    let output = project.exec("ann", &["--timeout", "1"], &["/bin/sleep", "4714"]);
    assert_eq!(output.status.code(), Some(124));
    let gc = ipybox().args(["sandbox", "gc", "--idle", "1000h", "--dry-run"]).output().unwrap();
    assert!(gc.status.success(), "{}", said(&gc));
    assert!(begun.elapsed() < Duration::from_secs(20));
    // As many processes as there may be.
    let fork = "import os, time\nwhile True:\n try:\n  if os.fork() == 0: time.sleep(4715); os._exit(0)\n except OSError: time.sleep(4715)";
    let output = project.exec("ann", &["--timeout", "2"], &["python3", "-c", fork]);
    assert_eq!(
        (output.status.code(), said(&output).contains("goes on")),
        (Some(124), false),
        "{}",
        said(&output)
    );
    assert_eq!(project.running("ann", "4715"), "");

    // What cannot be passed on ends the command.
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let output = project.command("exec", "ann").args(["--", "yes", "4716"]).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(125));
    assert_eq!(project.running("ann", "yes 4716"), "");
}

#[test]
fn an_image_without_a_shell_runs_commands_too() {
    let project = Project::new("shell");
    let tag = Image::tag("no-shell");
    let script = "cp=$(for program in sleep echo env; do echo /bin/$program; ldd /bin/$program | grep -o '/[^ ]*'; done | sort -u); tar -chf - $cp";
    let import = format!(
        "docker run --rm {} sh -c \"{}\" | docker import --change 'LABEL ipybox.test=' - {tag}",
        base(),
        script.replace('$', "\\$")
    );
    engine::run(Command::new("sh").args(["-c", &import]));
    project.up("ann", &["-t", &tag, "--", "/bin/sleep", "1000"]);
    let output = project.exec("ann", &["--env", "A=1", "-w", "/bin"], &["/bin/env"]);
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && told.contains("A=1\n"), "{told}{}", said(&output));
    let output = project.exec("ann", &[], &["/bin/none"]);
    assert!(
        output.stdout.is_empty() && said(&output).contains("`/bin/none` cannot be run"),
        "{}",
        said(&output)
    );
    assert!(matches!(output.status.code(), Some(126 | 127)));
    docker(&["rmi", "-f", &tag]);
}
