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
    // Whoever asks next gets the same image, in a container of their own.
    let bob = project.up("bob", &["-f", file]);
    assert_ne!(bob["image_id"], first["image_id"]);

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
    docker(&["rm", &name]);
    assert!(refused.contains("is none of this program"), "{refused}");
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

    // Busy ones are not stopped, unused ones are.
    let mut busy = project.command("exec", "ann").args(["--", "sleep", "60"]).spawn().unwrap();
    thread::sleep(Duration::from_millis(500));
    let gc = ipybox().args(["sandbox", "gc", "--idle", "0s", "--dry-run"]).output().unwrap();
    let told = String::from_utf8_lossy(&gc.stdout);
    assert!(told.contains(bob["name"].as_str().unwrap()), "{told}{}", said(&gc));
    assert!(!told.contains(replaced["name"].as_str().unwrap()), "{told}");
    let _ = Command::new("kill").args(["-INT", &busy.id().to_string()]).status();
    busy.wait().unwrap();
    // A client that stays connected is a use, too.
    let (host, port) =
        bob["address"].as_str().unwrap().trim_start_matches("http://").split_once(':').unwrap();
    let connected = std::net::TcpStream::connect((host, port.parse::<u16>().unwrap())).unwrap();
    thread::sleep(Duration::from_millis(300));
    let unused = || {
        let gc = ipybox().args(["sandbox", "gc", "--idle", "0s", "--dry-run"]).output().unwrap();
        String::from_utf8_lossy(&gc.stdout).into_owned()
    };
    assert!(!unused().contains(bob["name"].as_str().unwrap()));
    drop(connected);
    let begun = Instant::now();
    while !unused().contains(bob["name"].as_str().unwrap()) {
        assert!(begun.elapsed() < Duration::from_secs(30));
    }

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
