//! Every way to an engine, on a real one. A missing engine is a failure.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod engine;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Instant;

use engine::{Image, ROOT, base, docker, ipybox, run};
use ipybox::credentials::AuthFiles;
use ipybox::engine::{Choice, Engine, KnownEngines};
use tokio_util::sync::CancellationToken;

/// The socket of the engine that tests use.
#[expect(clippy::disallowed_methods, reason = "tests are configured through the environment")]
fn socket() -> PathBuf {
    let host = std::env::var("DOCKER_HOST").unwrap_or_default();
    host.strip_prefix("unix://").unwrap_or("/var/run/docker.sock").into()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The program, with nothing in its environment that says which engine is meant.
fn unled() -> Command {
    let mut command = ipybox();
    for name in ["DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"] {
        command.env_remove(name);
    }
    command
}

/// TLS before the engine, which asks clients for certificates.
struct Tls {
    folder: tempfile::TempDir,
    port: String,
    proxy: Child,
}

impl Tls {
    fn serve() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("python3");
        command.arg(format!("{ROOT}/tests/engine/tls_proxy.py")).arg(folder.path()).arg(socket());
        let mut proxy = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut port = String::new();
        BufReader::with_capacity(1, proxy.stdout.as_mut().unwrap()).read_line(&mut port).unwrap();
        Self { folder, port: port.trim().to_owned(), proxy }
    }

    fn host(&self) -> String {
        format!("tcp://localhost:{}", self.port)
    }

    fn reached(&self, arguments: &[&str]) -> Command {
        let mut command = unled();
        command.args(arguments).env("DOCKER_HOST", self.host());
        command.env("DOCKER_TLS_VERIFY", "1").env("DOCKER_CERT_PATH", self.folder.path());
        command
    }

    /// Ends it, and counts its whole and its resumed handshakes.
    fn handshakes(mut self) -> (usize, usize) {
        drop(self.proxy.stdin.take());
        let lines = BufReader::new(self.proxy.stdout.take().unwrap()).lines();
        let lines: Vec<_> = lines.map(Result::unwrap).collect();
        self.proxy.wait().unwrap();
        let count = |word: &str| lines.iter().filter(|line| *line == word).count();
        (count("whole"), count("resumed"))
    }
}

#[test]
fn minimal_is_built_and_proved_over_tls_with_one_whole_handshake() {
    let tls = Tls::serve();
    let image = Image::build_with("tls", &mut tls.reached(&["build", "--base", &base()]));
    let (whole, resumed) = tls.handshakes();
    assert_eq!(whole, 1, "and {resumed} were resumed");
    let tls = Tls::serve();
    let proved = tls.reached(&["verify", &image.tag]).output().unwrap();
    assert!(proved.status.success(), "{}{}", String::from_utf8_lossy(&proved.stdout), said(&proved));
}

#[test]
fn who_is_not_believed_over_tls_is_told_why() {
    let tls = Tls::serve();
    let path = |name: &str| tls.folder.path().join(name);
    let refusal = |command: &mut Command| {
        let output = command.output().unwrap();
        (output.status.code(), said(&output))
    };
    let plan = ["plan", "--base", &base()];
    fs::rename(path("cert.pem"), path("hidden.pem")).unwrap();
    let (code, told) = refusal(&mut tls.reached(&plan));
    assert!(code == Some(2) && told.contains("cert.pem` is missing"), "{told}");
    fs::rename(path("key.pem"), path("hidden.key")).unwrap();
    let (code, told) = refusal(&mut tls.reached(&plan));
    assert!(code == Some(1) && told.contains("`cert.pem` and the engine's authority"), "{told}");
    fs::rename(path("ca.pem"), path("hidden.ca")).unwrap();
    let (code, told) = refusal(&mut tls.reached(&plan));
    assert!(code == Some(1) && told.contains("UnknownIssuer"), "{told}");
    fs::write(path("ca.pem"), "nothing").unwrap();
    let (code, told) = refusal(&mut tls.reached(&plan));
    assert!(code == Some(1) && told.contains("ca.pem: it holds no certificate"), "{told}");
    let mut plain = unled();
    let (code, told) = refusal(plain.args(plan).env("DOCKER_HOST", tls.host()));
    assert!(code == Some(75), "{told}");
}

#[test]
fn a_host_that_is_silent_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = format!("tcp://{}", listener.local_addr().unwrap());
    let begun = Instant::now();
    let output = unled().args(["plan", "--base", &base(), "--host", &host]).output().unwrap();
    assert_eq!(output.status.code(), Some(75), "{}", said(&output));
    assert!(said(&output).contains("it does not answer within 10 seconds"), "{}", said(&output));
    assert!(begun.elapsed().as_secs() < 15);
}

#[test]
fn what_answers_and_is_no_engine_is_told() {
    for (answer, code, told) in [
        (
            "400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n",
            1,
            "set `DOCKER_TLS_VERIFY=1`",
        ),
        ("403 Forbidden\r\n\r\nno\n", 1, "it answers 403 Forbidden: no"),
        ("502 Bad Gateway\r\n\r\n", 75, "start the engine"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = format!("tcp://{}", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            let (mut client, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let _ = client.read(&mut request).unwrap();
            client.write_all(format!("HTTP/1.0 {answer}").as_bytes()).unwrap();
        });
        let output = unled().args(["plan", "--base", &base(), "--host", &host]).output().unwrap();
        server.join().unwrap();
        assert_eq!(output.status.code(), Some(code), "{}", said(&output));
        assert!(said(&output).contains(told), "{told}: {}", said(&output));
    }
}

#[test]
fn a_context_leads_to_its_engine() {
    let tls = Tls::serve();
    let config = tempfile::tempdir().unwrap();
    let pem = |name: &str| format!("{}/{name}", tls.folder.path().display());
    let endpoint =
        format!("host={},ca={},cert={},key={}", tls.host(), pem("ca.pem"), pem("cert.pem"), pem("key.pem"));
    let client = |arguments: &[&str]| {
        let mut command = Command::new("docker");
        command.args(arguments).env("DOCKER_CONFIG", config.path());
        for name in ["DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS_VERIFY"] {
            command.env_remove(name);
        }
        run(&mut command);
    };
    client(&["context", "create", "far", "--docker", &endpoint]);
    let plan = |context: &[&str]| {
        let mut command = unled();
        command.args(["plan", "--base", &base()]).args(context).env("DOCKER_CONFIG", config.path());
        command.output().unwrap()
    };
    let named = plan(&["--context", "far"]);
    assert!(named.status.success(), "{}", said(&named));
    let missing = plan(&["--context", "fra"]);
    assert_eq!(missing.status.code(), Some(2), "{}", said(&missing));
    assert!(said(&missing).contains("use `far`"), "{}", said(&missing));
    client(&["context", "use", "far"]);
    let current = plan(&[]);
    assert!(current.status.success(), "{}", said(&current));
    assert_eq!(current.stdout, named.stdout);
    let (whole, resumed) = tls.handshakes();
    assert!(whole >= 2, "{whole}, {resumed}");
}

#[test]
#[ignore = "takes more than a minute; scripts/test --all runs it"]
fn minimal_is_proved_through_a_context() {
    let config = tempfile::tempdir().unwrap();
    let client = |arguments: &[&str]| {
        run(Command::new("docker")
            .args(arguments)
            .env("DOCKER_CONFIG", config.path())
            .env_remove("DOCKER_CONTEXT"));
    };
    client(&["context", "create", "near", "--docker", &format!("host=unix://{}", socket().display())]);
    let through = |arguments: &[&str]| {
        let mut command = unled();
        command.args(arguments).args(["--context", "near"]).env("DOCKER_CONFIG", config.path());
        command
    };
    let image = Image::build_with("proved-through-a-context", &mut through(&["build", "--base", &base()]));
    let proved = through(&["verify", &image.tag]).output().unwrap();
    assert!(proved.status.success(), "{}{}", String::from_utf8_lossy(&proved.stdout), said(&proved));
}

#[test]
fn engines_of_the_desktop_are_found_where_they_listen() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for (place, by) in [
        (".docker/run/docker.sock", "Docker Desktop"),
        (".colima/default/docker.sock", "Colima"),
        ("runtime/podman/podman.sock", "podman of the user"),
    ] {
        let home = tempfile::tempdir().unwrap();
        let place = home.path().join(place);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        symlink(socket(), &place).unwrap();
        let choice = Choice {
            home: Some(home.path().into()),
            runtime: Some(home.path().join("runtime")),
            ..Choice::default()
        };
        let mut candidates = choice.candidates().unwrap();
        candidates.retain(|candidate| !candidate.by.ends_with("system") && candidate.by != "the system's");
        let found = candidates.iter().find(|candidate| candidate.by == by).unwrap();
        assert_eq!(found.host.to_string(), format!("unix://{}", place.display()));
        let interrupt = CancellationToken::new();
        runtime
            .block_on(Engine::connect(
                candidates.clone(),
                AuthFiles::default(),
                &KnownEngines::default(),
                interrupt.clone(),
            ))
            .unwrap();
        fs::remove_file(&place).unwrap();
        let error = runtime
            .block_on(Engine::connect(candidates, AuthFiles::default(), &KnownEngines::default(), interrupt))
            .unwrap_err();
        let told = error.diagnostic();
        assert!(error.is_worth_a_retry() && told.why.contains(by), "{}", told.why);
    }
}

/// A host with a client of the engine, that is reached by ssh.
struct Far {
    container: String,
    folder: tempfile::TempDir,
    port: String,
}

impl Far {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f", &path("key")]));
        run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f", &path("host_key")]));
        let mount = format!("type=bind,src={},dst=/var/run/docker.sock", socket().display());
        let started = docker(&[
            "create",
            "--label",
            "ipybox.test",
            "--mount",
            &mount,
            "--publish",
            "127.0.0.1::22",
            "ipybox-test-base:ssh",
        ]);
        let container = started.trim().to_owned();
        let client = run(Command::new("sh").args(["-c", "command -v docker"]));
        let copies = [
            (client.trim().to_owned(), "/usr/local/bin/docker"),
            (path("host_key"), "/etc/ssh/ssh_host_ed25519_key"),
            (path("key.pub"), "/root/.ssh/authorized_keys"),
        ];
        fs::create_dir(folder.path().join(".ssh")).unwrap();
        docker(&["cp", &path(".ssh"), &format!("{container}:/root/.ssh")]);
        for (from, to) in copies {
            docker(&["cp", "--follow-link", &from, &format!("{container}:{to}")]);
        }
        docker(&["start", &container]);
        // Files keep the ids of who copies them.
        docker(&["exec", &container, "chown", "-R", "0:0", "/root/.ssh"]);
        let port = docker(&["port", &container, "22"]);
        let port = port.trim().rsplit(':').next().unwrap().to_owned();
        let key = fs::read_to_string(path("host_key.pub")).unwrap();
        fs::write(path("known_hosts"), format!("[127.0.0.1]:{port} {key}")).unwrap();
        let config = format!(
            "IdentityFile {}\nIdentitiesOnly yes\nUserKnownHostsFile {}\nGlobalKnownHostsFile /dev/null\n",
            path("key"),
            path("known_hosts")
        );
        fs::write(path("config"), config).unwrap();
        // ssh reads the settings of its user, wherever `HOME` is.
        let real = run(Command::new("sh").args(["-c", "command -v ssh"]));
        let program = format!("#!/bin/sh\nexec {} -F {} \"$@\"\n", real.trim(), path("config"));
        fs::write(path("ssh"), program).unwrap();
        fs::set_permissions(path("ssh"), fs::Permissions::from_mode(0o755)).unwrap();
        Self { container, folder, port }
    }

    #[expect(clippy::disallowed_methods, reason = "a program is put before others")]
    fn reached(&self, arguments: &[&str]) -> Command {
        let mut command = unled();
        let path = std::env::var("PATH").unwrap();
        command.args(arguments).env("PATH", format!("{}:{path}", self.folder.path().display()));
        command.env("DOCKER_HOST", format!("ssh://root@127.0.0.1:{}", self.port));
        command
    }

    fn file(&self, name: &str) -> PathBuf {
        Path::new(self.folder.path()).join(name)
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        let _ = Command::new("docker").args(["rm", "--force", &self.container]).output();
    }
}

#[test]
#[ignore = "takes more than a minute; scripts/test --all runs it"]
fn minimal_is_proved_over_ssh() {
    let far = Far::start();
    let image = Image::build_with("proved-over-ssh", &mut far.reached(&["build", "--base", &base()]));
    let proved = far.reached(&["verify", &image.tag]).output().unwrap();
    assert!(proved.status.success(), "{}{}", String::from_utf8_lossy(&proved.stdout), said(&proved));
}

#[test]
fn minimal_is_built_over_ssh() {
    let far = Far::start();
    let _image = Image::build_with("ssh", &mut far.reached(&["build", "--base", &base()]));

    let refusal = |expected: &str| {
        let output = far.reached(&["plan", "--base", &base()]).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        assert!(said(&output).contains(expected), "{expected}: {}", said(&output));
    };
    docker(&["exec", &far.container, "mv", "/usr/local/bin/docker", "/usr/local/bin/hidden"]);
    refusal("install Docker's client on that host");
    fs::remove_file(far.file("known_hosts")).unwrap();
    refusal("ssh says: Host key verification failed.");
    fs::write(far.file("config"), "UserKnownHostsFile /dev/null\nStrictHostKeyChecking no\nLogLevel ERROR\nIdentityFile /dev/null\nIdentitiesOnly yes\n")
        .unwrap();
    refusal("let ssh log in without asking");
}

/// podman, with images of its own.
struct Podman {
    folder: tempfile::TempDir,
    service: Child,
}

impl Podman {
    fn serve() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(format!("{ROOT}/scripts/podman-service"));
        let service = command.arg(folder.path()).stdin(Stdio::piped()).spawn().unwrap();
        let podman = Self { folder, service };
        let begun = Instant::now();
        while UnixStream::connect(podman.socket()).is_err() {
            assert!(begun.elapsed().as_secs() < 120, "podman does not answer");
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        podman
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("podman.sock")
    }

    fn host(&self) -> String {
        format!("unix://{}", self.socket().display())
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        drop(self.service.stdin.take());
        let _ = self.service.wait();
    }
}

#[test]
#[ignore = "needs podman and half a minute; scripts/test --all runs it"]
fn minimal_is_built_and_proved_on_podman() {
    let podman = Podman::serve();
    let host = podman.host();
    let client = |arguments: &[&str]| {
        let mut command = Command::new("docker");
        command.args(["--host", &host]).args(arguments).env_remove("DOCKER_CONTEXT");
        run(&mut command)
    };
    let archive = podman.folder.path().join("base.tar");
    docker(&["save", "--output", archive.to_str().unwrap(), &base()]);
    client(&["load", "--input", archive.to_str().unwrap()]);
    let cache = podman.folder.path().join("cache");
    let build = |arguments: &[&str]| {
        let mut command = unled();
        command.args(["build", "--host", &host, "--base", &base()]).args(arguments);
        command.env("IPYBOX_CACHE_DIR", &cache).output().unwrap()
    };
    let built = build(&["-t", "proved", "--verify"]);
    assert!(built.status.success(), "{}", said(&built));
    let id = String::from_utf8(built.stdout).unwrap();
    assert_eq!(client(&["inspect", "--format", "{{.Id}}", "proved"]), id);
    assert!(!client(&["history", "--no-trunc", "proved"]).contains("BEGIN CERTIFICATE"));
    let refused = build(&["-t", "refused", "--network", "none"]);
    assert!(said(&refused).contains("`--network none` cannot be kept on podman"), "{}", said(&refused));
    let again = build(&["-t", "again"]);
    assert_eq!(String::from_utf8(again.stdout).unwrap(), id);

    let examined = unled().args(["doctor", "--host", &host, "--base", &base()]).output().unwrap();
    let told = String::from_utf8(examined.stdout.clone()).unwrap();
    assert!(examined.status.success() && told.contains("\nwarning  builder"), "{told}{}", said(&examined));

    let (_folder, list) = engine::list("ipybox-has-no-such-package = \"*\"\n");
    let refused = build(&["-t", "refused", "-d", &list]);
    assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
    assert!(
        said(&refused).contains("there is no package `ipybox-has-no-such-package`"),
        "{}",
        said(&refused)
    );
}
