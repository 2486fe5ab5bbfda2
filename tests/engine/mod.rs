//! Images and containers of tests, on a real engine.

#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test uses a part of it")]
#![expect(clippy::disallowed_methods, reason = "tests are configured through the environment")]

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The folder of this project.
pub const ROOT: &str = env!("CARGO_MANIFEST_DIR");

pub fn setting(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set; run scripts/test"))
}

pub fn base() -> String {
    setting("IPYBOX_TEST_BASE")
}

/// The engine's socket on this host.
pub fn socket() -> String {
    let host = std::env::var("DOCKER_HOST").unwrap_or_default();
    host.strip_prefix("unix://").unwrap_or("/var/run/docker.sock").to_owned()
}

/// Runs a command to its end, which must be a good one, and returns what it prints.
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{printed}\n{said}", output.status);
    printed
}

pub fn docker(arguments: &[&str]) -> String {
    run(Command::new("docker").args(arguments))
}

/// The program, without the settings of whoever runs the tests and with a cache of the run's own, so that bases are
/// asked anew in each. The installer is kept for all runs.
pub fn ipybox() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ipybox"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("IPYBOX_") {
            command.env_remove(name);
        }
    }
    command.env("IPYBOX_CACHE_DIR", cache());
    command
}

/// The cache of the run, and of the attempt where a test gets a second one: what the first found out is not known to it.
pub fn cache() -> PathBuf {
    let home = PathBuf::from(setting("IPYBOX_TEST_CLIENTS")).with_file_name("test-cache");
    let run = std::env::var("NEXTEST_RUN_ID").unwrap_or_else(|_| format!("cargo-{}", std::process::id()));
    let run = match std::env::var("NEXTEST_ATTEMPT") {
        Ok(attempt) if attempt != "1" => format!("{run}-{attempt}"),
        _ => run,
    };
    let (cache, installer) = (home.join(run), home.join("uv"));
    if !cache.is_dir() {
        fs::create_dir_all(&installer).unwrap();
        for entry in home.read_dir().unwrap().flatten().filter(|entry| entry.path() != installer) {
            let old = entry
                .metadata()
                .and_then(|metadata| metadata.modified())
                .ok()
                .and_then(|time| time.elapsed().ok());
            if old.is_some_and(|old| old > Duration::from_secs(24 * 3600)) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        fs::create_dir_all(&cache).unwrap();
        // Tests of one run begin at once.
        let _ = std::os::unix::fs::symlink(&installer, cache.join("uv"));
    }
    cache
}

/// The interpreter that has a client.
pub fn python_with(client: &str) -> PathBuf {
    Path::new(&setting("IPYBOX_TEST_CLIENTS")).join(client).join("bin/python")
}

/// The folder of a `docker` that can drive BuildKit without a plug-in, or has the plug-in.
pub fn client_with_buildkit() -> PathBuf {
    let path = setting("PATH");
    let mut folders = std::env::split_paths(&path).filter(|folder| folder.join("docker").is_file());
    let able = |folder: &PathBuf| {
        let client = folder.join("docker");
        let output = |arguments: &[&str]| Command::new(&client).args(arguments).output().unwrap();
        let version = String::from_utf8(output(&["--version"]).stdout).unwrap();
        version.contains(" 20.10.") || output(&["buildx", "version"]).status.success()
    };
    folders.find(able).expect("a docker client that can build with BuildKit")
}

/// A folder with a dependency list.
pub fn list(text: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("dependencies.txt");
    fs::write(&file, text).unwrap();
    let path = file.to_str().unwrap().to_owned();
    (folder, path)
}

/// An image of a test; its tag is gone when the test is over.
pub struct Image {
    pub tag: String,
    pub id: String,
    /// What the build said.
    pub said: String,
}

impl Image {
    pub fn tag(name: &str) -> String {
        format!("ipybox-test-{}:{name}", std::process::id())
    }

    /// Builds with `arguments`, `--tag` and `--base` added.
    pub fn build(name: &str, arguments: &[&str]) -> Self {
        Self::build_with(name, ipybox().args(["build", "--base", &base()]).args(arguments))
    }

    pub fn build_with(name: &str, command: &mut Command) -> Self {
        let tag = Self::tag(name);
        let output = command.args(["--tag", &tag]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{}\n{said}", output.status);
        let id = String::from_utf8(output.stdout).unwrap().trim().to_owned();
        assert_eq!(docker(&["inspect", "--format", "{{.Id}}", &tag]).trim(), id);
        Self { tag, id, said }
    }

    /// Makes one of the tests' base, with a file over it and further settings.
    pub fn commit(name: &str, file: Option<(&Path, &str)>, changes: &[&str]) -> Self {
        let tag = Self::tag(name);
        let container = docker(&["create", "--label", "ipybox.test", &base(), "true"]);
        let container = container.trim();
        if let Some((file, place)) = file {
            docker(&["cp", file.to_str().unwrap(), &format!("{container}:{place}")]);
        }
        let changes: Vec<_> = changes.iter().flat_map(|change| ["--change", change]).collect();
        docker(
            &[&["commit", "--change", "LABEL ipybox.test=base"], changes.as_slice(), &[container, &tag]]
                .concat(),
        );
        docker(&["rm", container]);
        let id = docker(&["inspect", "--format", "{{.Id}}", &tag]).trim().to_owned();
        Self { tag, id, said: String::new() }
    }

    pub fn inspect(&self, format: &str) -> String {
        docker(&["inspect", "--format", format, &self.tag]).trim().to_owned()
    }

    pub fn layers(&self) -> String {
        self.inspect("{{json .RootFS.Layers}}")
    }

    /// Which of these bytes are in what `docker save` writes; layers may be compressed.
    pub fn saved_holds(&self, wanted: &[&[u8]]) -> Vec<bool> {
        let folder = tempfile::tempdir().unwrap();
        let saved = folder.path().join("image.tar");
        run(Command::new("docker").args(["save", "--output"]).arg(&saved).arg(&self.tag));
        wanted.iter().map(|bytes| is_in_archive(&saved, bytes)).collect()
    }

    /// Runs a command in a container that ends with it.
    pub fn run(&self, arguments: &[&str]) -> String {
        let common = ["run", "--rm", "--label", "ipybox.test", &self.tag];
        docker(&[&common, arguments].concat())
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let _ = Command::new("docker").args(["rmi", "--force", &self.tag]).output();
    }
}

/// A running container of an image, with a server's port on a free one of loopback.
pub struct Container {
    pub id: String,
    pub port: String,
}

impl Container {
    /// Starts one with a kernel gateway.
    pub fn start(image: &str, options: &[&str]) -> Self {
        Self::with_port(8888, image, options)
    }

    pub fn with_port(port: u16, image: &str, options: &[&str]) -> Self {
        let publish = format!("127.0.0.1::{port}");
        let common = ["run", "--detach", "--label", "ipybox.test", "--publish", &publish];
        let id = docker(&[&common, options, &[image]].concat()).trim().to_owned();
        let address = docker(&["port", &id, &format!("{port}/tcp")]);
        let port = address.trim().rsplit(':').next().unwrap().to_owned();
        Self { id, port }
    }

    pub fn client(&self) -> Command {
        let mut command = Command::new(python_with("ipybox-0.6"));
        command.arg(format!("{ROOT}/tests/clients/kernel.py")).arg(&self.port);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs cells in one kernel with the client of ipybox 0.6.
    pub fn cells(&self, cells: &[&str]) -> Vec<serde_json::Value> {
        let mut client = self.client().spawn().unwrap();
        let text = serde_json::to_vec(cells).unwrap();
        client.stdin.take().unwrap().write_all(&text).unwrap();
        let output = client.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// The status and the body of an HTTP request to its port; tried anew until somebody answers.
    pub fn ask(&self, method: &str, path: &str, body: &str) -> (u16, serde_json::Value) {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {}\r\n\
             content-type: application/json\r\n\r\n{body}",
            body.len()
        );
        let begun = Instant::now();
        loop {
            let mut answer = String::new();
            let asked = TcpStream::connect(format!("127.0.0.1:{}", self.port)).and_then(|mut stream| {
                stream.write_all(request.as_bytes())?;
                stream.read_to_string(&mut answer)
            });
            match (asked, answer.split_once("\r\n\r\n")) {
                (Ok(_), Some((head, body))) => {
                    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
                    return (status.unwrap(), serde_json::from_str(body).unwrap());
                }
                (failed, _) => assert!(begun.elapsed() < Duration::from_secs(15), "{failed:?} {answer:?}"),
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// What an executor server answers to code or a command.
    pub fn execute(&self, what: &str, workspace: &str, text: &str) -> serde_json::Value {
        let key = if what == "python" { "code" } else { "command" };
        let request = serde_json::json!({ "workspace_id": workspace, key: text });
        let (status, answer) = self.ask("POST", &format!("/execute/{what}"), &request.to_string());
        assert_eq!(status, 200, "{answer}");
        answer
    }

    /// Runs tests with pytest, which must be among the image's packages.
    pub fn pytest(&self, arguments: &[&str]) {
        let common = ["exec", &self.id, "python", "-m", "pytest", "-q", "-p", "no:cacheprovider"];
        docker(&[&common, arguments].concat());
    }

    /// Stops the container as `docker stop` does, and returns how long that took.
    pub fn stop(&self) -> Duration {
        let begun = Instant::now();
        docker(&["stop", "--time", "10", &self.id]);
        begun.elapsed()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = Command::new("docker").args(["rm", "--force", "--volumes", &self.id]).output();
    }
}

/// Whether the bytes are in a file of a saved image; its layers may be compressed.
fn is_in_archive(saved: &Path, bytes: &[u8]) -> bool {
    let mut archive = tar::Archive::new(fs::File::open(saved).unwrap());
    archive.entries().unwrap().any(|entry| {
        let mut content = std::io::BufReader::new(entry.unwrap());
        let is_compressed = std::io::BufRead::fill_buf(&mut content).unwrap().starts_with(&[0x1f, 0x8b]);
        if is_compressed {
            contains(flate2::read::GzDecoder::new(content), bytes)
        } else {
            contains(content, bytes)
        }
    })
}

fn contains(mut content: impl std::io::Read, bytes: &[u8]) -> bool {
    let (mut window, mut buffer) = (Vec::new(), vec![0; 1 << 20]);
    loop {
        let read = content.read(&mut buffer).unwrap();
        if read == 0 {
            return false;
        }
        window.extend_from_slice(&buffer[..read]);
        if window.windows(bytes.len()).any(|part| part == bytes) {
            return true;
        }
        window.drain(..window.len().saturating_sub(bytes.len()));
    }
}
