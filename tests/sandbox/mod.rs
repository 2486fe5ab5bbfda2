//! A folder to run the program in, with nothing of this machine's settings.

#![allow(dead_code, unreachable_pub, reason = "each test uses a part of it")]

use std::fs;
use std::process::{Command, Output};

/// A base's facts, for plans without an engine.
pub const BASE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/base.json");

/// A folder to run the program in.
pub struct Sandbox(pub tempfile::TempDir);

impl Sandbox {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> &Self {
        fs::write(self.0.path().join(name), bytes).unwrap();
        self
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.0.path().join(name)).unwrap()
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ipybox"));
        command
            .args(arguments)
            .current_dir(self.0.path())
            .env_clear()
            .env("HOME", self.0.path())
            .env("PIP_CONFIG_FILE", "/dev/null")
            .env("UV_NO_CONFIG", "1")
            .env("DOCKER_HOST", "unix:///nonexistent/docker.sock");
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Plans with a fixed base and fixed ids.
    pub fn plan(&self, arguments: &[&str]) -> Output {
        self.run(&[&["plan", "--base-facts", BASE, "--uid", "1000", "--gid", "1000"], arguments].concat())
    }
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The exit code and what is said on stderr; nothing is on stdout.
pub fn refusal(output: &Output) -> String {
    assert_eq!(text(&output.stdout), "");
    format!("exit code {}\n\n{}", output.status.code().unwrap(), text(&output.stderr))
}
