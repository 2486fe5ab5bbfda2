//! Each thing that keeps a host from building is found, and what is told mends it; on a real engine.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod engine;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use engine::{base, docker, ipybox};
use serde_json::Value;

/// The exit code, and the state, message and fix of a check.
fn examined(command: &mut Command, check: &str) -> (i32, String, String, String) {
    let output = command.arg("--json").output().unwrap();
    let told: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    assert_eq!(told["version"], 1);
    let checks = told["checks"].as_array().unwrap();
    let names: Vec<_> = checks.iter().map(|check| check["name"].as_str().unwrap()).collect();
    let all = [
        "cache folder",
        "certificates",
        "credentials",
        "engine",
        "version",
        "builder",
        "storage",
        "base",
        "clock",
        "disk space",
        "installer",
        "package index",
    ];
    assert_eq!(names, all);
    let found = checks.iter().find(|found| found["name"] == check).unwrap();
    let text = |field: &str| found[field].as_str().unwrap().to_owned();
    (output.status.code().unwrap(), text("state"), text("message"), text("fix"))
}

fn doctor() -> Command {
    let mut command = ipybox();
    command.args(["doctor", "--base", &base()]);
    command
}

#[test]
fn a_host_that_can_build_is_told_so() {
    let output = doctor().output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{printed}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(printed.lines().filter(|line| !line.starts_with(' ')).count(), 12, "{printed}");
    assert!(!printed.contains("ERROR"), "{printed}");
    let left = docker(&["ps", "--all", "--quiet", "--filter", "label=ipybox.doctor"]);
    assert_eq!(left, "");
}

#[test]
fn what_keeps_this_host_from_building_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    fs::write(path("file"), "").unwrap();
    let (code, state, _, fix) = examined(doctor().args(["--cache-dir", &path("file")]), "cache folder");
    assert!(code == 1 && state == "error" && fix.contains("--cache-dir"), "{fix}");

    let missing = path("missing.pem");
    let (code, state, message, fix) = examined(doctor().env("SSL_CERT_FILE", &missing), "certificates");
    assert!(code == 1 && state == "error" && message.contains("missing.pem"), "{message}");
    assert!(fix.contains("SSL_CERT_FILE"), "{fix}");

    let netrc = path("netrc");
    let index = ["--extra-index-url", "https://private.test/simple/"];
    let with_netrc = |text: &str, mode: u32| {
        fs::write(&netrc, text).unwrap();
        fs::set_permissions(&netrc, fs::Permissions::from_mode(mode)).unwrap();
        examined(
            doctor().env("NETRC", &netrc).args(index).env("DOCKER_HOST", "unix:///nonexistent"),
            "credentials",
        )
    };
    let (code, state, message, fix) = with_netrc("machine private.test login u password p q\n", 0o600);
    assert!(code == 1 && state == "error" && message.contains("at line "), "{message}");
    assert!(fix.contains("in quotes"), "{fix}");
    let (_, state, message, fix) = with_netrc("machine private.test login u password p\n", 0o644);
    assert!(state == "warning" && message.contains("others can read"), "{message}");
    assert_eq!(fix, format!("chmod 600 '{netrc}'"));
    let (_, state, message, _) = with_netrc("machine private.test login u password p\n", 0o600);
    assert!(state == "ok" && message == "for private.test", "{message}");

    let (code, state, message, _) = examined(doctor().args(["--uv", &path("no-uv")]), "installer");
    assert!(code == 1 && state == "error" && message.contains("no-uv"), "{message}");
}

#[test]
fn an_engine_that_does_not_answer_is_found() {
    let mut command = doctor();
    command.env("DOCKER_HOST", "unix:///nonexistent/docker.sock");
    let (code, state, message, fix) = examined(&mut command, "engine");
    assert!(
        code == 75 && state == "unreachable" && message.contains("/nonexistent/docker.sock"),
        "{message}"
    );
    assert!(fix.contains("start the engine"), "{fix}");
    let (code, state, message, _) =
        examined(ipybox().args(["doctor", "--base", "127.0.0.1:9/none:1"]), "base");
    assert!(code == 75 && state == "unreachable" && message.contains("127.0.0.1:9/none:1"), "{message}");
}

#[test]
fn an_index_that_a_container_does_not_reach_is_found() {
    let (code, state, _, fix) = examined(
        doctor().env("HTTPS_PROXY", "http://127.0.0.1:9").env_remove("https_proxy"),
        "package index",
    );
    assert!(code == 75 && state == "unreachable" && fix.contains("HTTPS_PROXY"), "{fix}");

    // Certificates that nobody's index has.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("other.pem");
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=other"])
        .args(["-keyout", "/dev/null", "-out"])
        .arg(&file)
        .output()
        .unwrap();
    assert!(made.status.success());
    let (code, state, _, fix) = examined(doctor().env("SSL_CERT_FILE", &file), "package index");
    assert!(code == 1 && state == "error" && fix.contains("SSL_CERT_FILE"), "{fix}");
}
