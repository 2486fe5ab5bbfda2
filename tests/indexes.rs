//! What a build makes of package indexes that are wrong in one way, on a real engine. A missing engine is a failure.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod engine;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use engine::{Image, ROOT, base, docker, ipybox, list, python_with};

/// `tests/index/serve.py`, on an address that build steps reach.
struct Index {
    server: Child,
    address: String,
}

/// Prints where a container reaches this host. The engine tells a network's gateway only where somebody chose it.
const HOST: &str = "
import socket
for row in open('/proc/net/route'):
    _, destination, gateway, *_ = row.split()
    if destination == '00000000':
        print(socket.inet_ntoa(bytes.fromhex(gateway)[::-1]))
        break";

/// The address of this host for containers.
fn host() -> String {
    docker(&["run", "--rm", "--label", "ipybox.test", &base(), "python3", "-c", HOST]).trim().to_owned()
}

impl Index {
    fn serve(scheme: &str, options: &[&str]) -> Self {
        let mut server = Command::new(python_with("ipybox-0.6"))
            .arg(format!("{ROOT}/tests/index/serve.py"))
            .args(options)
            .env("INDEX_LOGIN", format!("{USER}:{PASSWORD}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut port = String::new();
        BufReader::new(server.stdout.take().unwrap()).read_line(&mut port).unwrap();
        Self { server, address: format!("{scheme}://{}:{}", host(), port.trim()) }
    }

    /// A list that takes `ours` from the index with this fault.
    fn list(&self, fault: &str, constraint: &str) -> String {
        format!(
            "[tool.poetry.dependencies]\nours = {{ version = \"{constraint}\", source = \"inner\" }}\n\
             [[tool.poetry.source]]\nname = \"inner\"\nurl = \"{}/{fault}/simple/\"\npriority = \"explicit\"\n",
            self.address
        )
    }
}

impl Drop for Index {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// A base on which the installer asks each address once.
fn impatient_base() -> Image {
    Image::commit("impatient", None, &["ENV UV_HTTP_RETRIES=0"])
}

/// Builds; the exit code, what was said, and the version of `ours` in the image, where there is one.
fn build(base: &Image, name: &str, text: &str) -> (i32, String, Option<String>) {
    let (_folder, list) = list(text);
    let tag = Image::tag(name);
    let mut command = ipybox();
    command.args(["build", "-V", "kernel", "--no-bytecode", "--base", &base.tag, "-d", &list, "-t", &tag]);
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    let version = output.status.success().then(|| {
        let image = Image { tag, id: String::new(), said: String::new() };
        image.run(&["python", "-c", "import ours; print(ours.version)"]).trim().to_owned()
    });
    (output.status.code().unwrap(), said, version)
}

/// What a build is to make of a fault: its exit code, and what it says.
struct Try {
    fault: &'static str,
    told: (i32, &'static str),
    /// With a name for it.
    constraint: (&'static str, &'static str),
}

#[test]
fn a_faulty_index_is_told_by_its_cause_and_gives_no_other_version() {
    let (index, base) = (Index::serve("http", &[]), impatient_base());
    let unreachable = (75, "the package index does not answer");
    let refuses = (1, "the package index asks who wants to know");
    let cases = [
        ("hash", (1, "the file of `ours==2.0` is not the one that was promised")),
        ("html", (1, "the file of `ours==2.0` is no package")),
        ("empty", (1, "the file of `ours==2.0` is no package")),
        ("cut", unreachable),
        ("login", (1, "`ours` has no version")),
        ("file-401", refuses),
        ("file-403", refuses),
        ("file-404", (1, "a file that the index names is not there")),
        ("file-429", unreachable),
        ("file-500", unreachable),
        ("file-503", unreachable),
        ("page-401", refuses),
        ("page-403", refuses),
        ("page-404", (1, "there is no package `ours`")),
        ("page-429", unreachable),
        ("page-500", unreachable),
        ("page-503", unreachable),
    ];
    // Without a union, with one, and where the installer itself could fall back.
    let constraints = [("plain", ">=2"), ("union", "<1.5 || >=2"), ("open", ">=1")];
    let tries =
        cases.iter().flat_map(|&(fault, told)| constraints.map(|constraint| Try { fault, told, constraint }));
    let tries: Vec<Try> = tries.collect();
    let wrong: Vec<String> = thread::scope(|scope| {
        let part = |tries: &[Try]| {
            let mut wrong = Vec::new();
            for &Try { fault, told: (code, words), constraint: (name, constraint) } in tries {
                let (found, said, version) =
                    build(&base, &format!("{fault}-{name}"), &index.list(fault, constraint));
                if found != code || !said.contains(words) || version.is_some() {
                    wrong.push(format!("{fault}, `{constraint}`: {found}, {version:?}\n{said}"));
                }
            }
            wrong
        };
        let (one, other) = tries.split_at(tries.len() / 2);
        let other = scope.spawn(move || part(other));
        [part(one), other.join().unwrap()].concat()
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    for (name, constraint) in constraints {
        let (code, said, version) = build(&base, &format!("none-{name}"), &index.list("none", constraint));
        assert_eq!((code, version.as_deref()), (0, Some("2.0")), "{said}");
    }
    let (code, said, version) = build(&base, "older", &index.list("none", "<1.5 || >=9"));
    assert_eq!((code, version.as_deref()), (0, Some("1.0")), "{said}");
    assert!(said.contains("trying the next"), "{said}");
}

const USER: &str = "somebody";
const PASSWORD: &str = "s3cret-of-the-index";
/// What HTTP makes of both.
const BASIC: &str = "c29tZWJvZHk6czNjcmV0LW9mLXRoZS1pbmRleA==";

/// Whether bytes hold the password in any spelling.
fn tells(bytes: &[u8]) -> bool {
    [PASSWORD, BASIC].iter().any(|secret| bytes.windows(secret.len()).any(|part| part == secret.as_bytes()))
}

/// The command lines of all processes of this machine that hold the password, seen until `over`.
fn telling_processes(over: &AtomicBool) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    while !over.load(Ordering::Relaxed) {
        for process in fs::read_dir("/proc").unwrap().flatten() {
            let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
            if tells(&line) {
                found.insert(String::from_utf8_lossy(&line).into_owned());
            }
        }
        thread::sleep(std::time::Duration::from_millis(20));
    }
    found
}

/// Runs a build with an index's login in a netrc; the exit code, and all that was said.
fn build_with(password: &str, authority: &str, arguments: &[&str]) -> (i32, String) {
    let folder = tempfile::tempdir().unwrap();
    let netrc = folder.path().join("netrc");
    fs::write(&netrc, format!("machine {} login {USER} password {password}\n", host())).unwrap();
    let mut command = ipybox();
    command.args(["build", "-V", "kernel", "--ca-cert", authority, "--progress", "plain"]);
    command.args(arguments).env("UV_HTTP_RETRIES", "0");
    if !password.is_empty() {
        command.env("NETRC", &netrc);
    }
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(said).unwrap())
}

#[test]
fn a_private_index_gives_its_packages_and_its_password_goes_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().to_str().unwrap();
    engine::run(
        Command::new("python3")
            .arg(format!("{ROOT}/tests/engine/certificates.py"))
            .args([at, &format!("IP:{}", host())]),
    );
    let authority = format!("{at}/ca.pem");
    let log = format!("{at}/log");
    let second = Index::serve("http", &["--newer", "9.0", "--log", &log]);
    let private =
        Index::serve("https", &["--login", "INDEX_LOGIN", "--tls", at, "--elsewhere", &second.address]);
    let base = base();
    let tag = Image::tag("private");
    let (_folder, list) = list("ours = \"*\"\nbuilt = \"*\"\ncurious = \"*\"\n");
    let [first, other] = [&private, &second].map(|index| format!("{}/none/simple/", index.address));
    let asked = ["--base", &base, "-d", &list, "--extra-index-url", &first, "--extra-index-url", &other];
    let common = [asked.as_slice(), &["-t", &tag]].concat();

    for password in ["", "wrong"] {
        let (code, said) = build_with(password, &authority, &common);
        assert!(code == 1 && said.contains("the package index asks who wants to know"), "{code} {said}");
        assert!(!said.contains("wrong"), "{said}");
    }
    let over = AtomicBool::new(false);
    let (code, said, processes) = thread::scope(|scope| {
        let watching = scope.spawn(|| telling_processes(&over));
        let (code, said) = build_with(PASSWORD, &authority, &common);
        over.store(true, Ordering::Relaxed);
        (code, said, watching.join().unwrap())
    });
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("built from source, since no index has a wheel that fits: built"), "{said}");
    assert!(!tells(said.as_bytes()), "{said}");
    assert!(processes.is_empty(), "{processes:?}");
    let image = Image { tag: tag.clone(), id: String::new(), said };
    let versions = image.run(&["python", "-c", "import built, ours; print(built.version, ours.version)"]);
    assert_eq!(versions.trim(), "1.0 2.0");
    assert_eq!(image.run(&["sh", "-c", "ls /opt"]).trim(), "ipybox\nvenv");

    assert!(!tells(docker(&["history", "--no-trunc", &image.tag]).as_bytes()));
    let secrets = [PASSWORD, BASIC].map(str::as_bytes);
    assert_eq!(image.saved_holds(&[secrets[0], secrets[1], b"/opt/ipybox/server"]), [false, false, true]);
    let plan = engine::run(ipybox().arg("plan").args(["-V", "kernel"]).args(asked));
    assert!(plan.contains(&first) && !tells(plan.as_bytes()), "{plan}");
    // The package cache, which later builds share: a step in place of the one that resolves looks into it.
    let look = format!(
        ": {}; find cache -type f | grep -q .; ! grep -raE '{PASSWORD}|{BASIC}' cache || exit 3; \\\n\
         printf 'lock-version = \"1.0\"\\ncreated-by = \"a test\"\\npackages = []\\n' >pylock.toml; \\",
        std::process::id()
    );
    fs::write(folder.path().join("resolve.tera"), look).unwrap();
    let looking = [common.as_slice(), &["--templates", at]].concat();
    let (code, said) = build_with(PASSWORD, &authority, &looking);
    assert_eq!(code, 0, "{said}");

    // A file elsewhere: the password does not go there.
    fs::remove_file(&log).unwrap();
    let elsewhere = format!("{}/elsewhere/simple/", private.address);
    let (_folder, ours) = engine::list("ours = \"*\"\n");
    let arguments =
        ["--base", &base, "-d", &ours, "--extra-index-url", &elsewhere, "-t", &image.tag, "--no-cache"];
    let (code, said) = build_with(PASSWORD, &authority, &arguments);
    let log = fs::read_to_string(&log).unwrap_or_default();
    assert!(code == 0 && log.contains("/none/files/ours-2.0"), "{said}\n{log}");
    assert!(log.lines().all(|line| line.ends_with(" -")), "{log}");
}
