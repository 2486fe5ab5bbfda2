//! Bases in registries that ask who wants to know, on a real engine.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod engine;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use engine::{base, docker, ipybox};

const USER: &str = "somebody";
const PASSWORD: &str = "s3cret-of-the-registry";

/// A registry with the tests' base as `team/base:1`; its container, and its address for the engine.
struct Registry {
    container: String,
    address: String,
}

impl Registry {
    fn start() -> Self {
        let publish = ["--publish", "127.0.0.1::5000", "ipybox-test-base:registry"];
        let run = [["run", "--detach", "--label", "ipybox.test"].as_slice(), &publish].concat();
        let container = docker(&run).trim().to_owned();
        let address = docker(&["port", &container, "5000/tcp"]).lines().next().unwrap().trim().to_owned();
        let registry = Self { container, address };
        let config = tempfile::tempdir().unwrap();
        let begun = Instant::now();
        let login = [
            "--config",
            config.path().to_str().unwrap(),
            "login",
            "-u",
            USER,
            "-p",
            PASSWORD,
            &registry.address,
        ];
        while !Command::new("docker").args(login).output().unwrap().status.success() {
            assert!(begun.elapsed() < Duration::from_secs(30), "the registry does not answer");
            std::thread::sleep(Duration::from_millis(100));
        }
        docker(&["tag", &base(), &registry.base()]);
        docker(&["--config", config.path().to_str().unwrap(), "push", "--quiet", &registry.base()]);
        registry
    }

    fn base(&self) -> String {
        format!("{}/team/base:1", self.address)
    }

    /// Plans on the base, which is not there before: the exit code, and what was said.
    fn plan(&self, configure: impl FnOnce(&mut Command)) -> (i32, String) {
        let _ = Command::new("docker").args(["rmi", &self.base()]).output();
        let mut command = ipybox();
        command.args(["plan", "-V", "kernel", "--message-format", "json", "--base", &self.base()]);
        command
            .env_remove("REGISTRY_AUTH_FILE")
            .env("XDG_RUNTIME_DIR", "/nonexistent")
            .env("HOME", "/nonexistent");
        configure(&mut command);
        let output = command.output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = Command::new("docker").args(["rm", "--force", "--volumes", &self.container]).output();
        let _ = Command::new("docker").args(["rmi", &self.base()]).output();
    }
}

/// A file as Docker's client writes it, with a password for a name.
fn auths(folder: &Path, file: &str, name: &str, password: &str) {
    let auths = serde_json::json!({ "auths": { name: { "username": USER, "password": password } } });
    fs::write(folder.join(file), auths.to_string()).unwrap();
}

#[test]
fn a_private_base_is_had_by_who_may_have_it() {
    let registry = Registry::start();
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let with_config = |command: &mut Command| {
        command.env("DOCKER_CONFIG", at);
    };

    let (code, said) = registry.plan(with_config);
    assert!(code == 1 && said.contains("log in to its registry"), "{code} {said}");
    auths(at, "config.json", &registry.address, "wrong");
    let (code, said) = registry.plan(with_config);
    assert!(code == 1 && said.contains("log in to its registry") && !said.contains("wrong"), "{code} {said}");
    auths(at, "config.json", &registry.address, PASSWORD);
    let (code, said) = registry.plan(with_config);
    assert!(code == 0 && said.contains(r#""event":"began","work":"pull""#), "{code} {said}");
    assert!(said.contains(r#""event":"ended","work":"pull""#) && !said.contains(PASSWORD), "{said}");

    // podman's file, where a part of a registry has a login of its own.
    fs::write(at.join("config.json"), "{}").unwrap();
    auths(at, "auth.json", &format!("{}/team", registry.address), PASSWORD);
    let of_podman = |command: &mut Command| {
        command.env("DOCKER_CONFIG", at).env("REGISTRY_AUTH_FILE", at.join("auth.json"));
    };
    let (code, said) = registry.plan(of_podman);
    assert_eq!(code, 0, "{said}");

    // A program that keeps credentials, and one that fails.
    let helpers = serde_json::json!({ "credHelpers": { &registry.address: "ipybox-test" } });
    fs::write(at.join("config.json"), helpers.to_string()).unwrap();
    let helper = at.join("docker-credential-ipybox-test");
    let path = format!("{}:{}", at.display(), engine::setting("PATH"));
    let with_helper = |text: &str| {
        fs::write(&helper, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
        registry.plan(|command| {
            command.env("DOCKER_CONFIG", at).env("PATH", &path);
        })
    };
    let answer =
        format!(r#"{{"ServerURL":"{}","Username":"{USER}","Secret":"{PASSWORD}"}}"#, registry.address);
    let (code, said) = with_helper(&format!("cat >/dev/null; echo '{answer}'"));
    assert_eq!(code, 0, "{said}");
    let (code, said) = with_helper("cat >/dev/null; echo 'the vault is closed' >&2; exit 1");
    assert!(code == 1 && said.contains("the vault is closed"), "{code} {said}");
}

#[test]
fn a_registry_that_was_asked_too_often_is_worth_a_retry() {
    let serve = "
import http.server
class Busy(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b'{\"errors\": [{\"code\": \"TOOMANYREQUESTS\", \"message\": \"You have reached your pull rate limit.\"}]}'
        self.send_response(429)
        self.send_header('Content-Type', 'application/json')
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    do_HEAD = do_GET
    log_message = lambda *_: None
server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Busy)
print(server.server_port, flush=True)
server.serve_forever()";
    let mut server = Command::new("python3").args(["-c", serve]).stdout(Stdio::piped()).spawn().unwrap();
    let mut port = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut port).unwrap();
    let name = format!("127.0.0.1:{}/busy:1", port.trim());
    let output = ipybox().args(["plan", "--base", &name]).output().unwrap();
    server.kill().unwrap();
    server.wait().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(75), "{said}");
    assert!(said.contains("asked too often") && said.contains("name a mirror"), "{said}");
}
