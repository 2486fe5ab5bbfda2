//! Services as docker-compose 1.29, Compose 2 and Kubernetes read them, and start them on a real engine. A missing engine is a
//! failure.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod engine;

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use engine::{Container, Image, ROOT, base, docker, ipybox, python_with, run, setting};
use ipybox::compose::Node;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;

const PORT: u16 = 62680;

/// Which Compose reads a file.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Reader {
    /// That of Debian bookworm, in a container.
    One,
    /// The plug-in that other tests have, too.
    Two,
}

/// A project of Compose in a folder of its own; what it started is gone when the test is over.
struct Project {
    reader: Reader,
    folder: tempfile::TempDir,
    name: String,
}

impl Project {
    fn new(reader: Reader, kind: &str) -> Self {
        let name = format!("ipybox-test-{kind}-{reader:?}-{}", std::process::id()).to_lowercase();
        Self { reader, folder: tempfile::tempdir().unwrap(), name }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("docker-compose.yaml")
    }

    fn compose(&self, arguments: &[&str]) -> Output {
        let folder = self.folder.path().to_str().unwrap();
        let mut command = Command::new("docker");
        match self.reader {
            Reader::One => {
                let (socket, folder) =
                    (format!("{}:/var/run/docker.sock", engine::socket()), format!("{folder}:{folder}"));
                command.args(["run", "--rm", "--label", "ipybox.test", "-v", &socket, "-v", &folder]);
                command.args(["-w", self.folder.path().to_str().unwrap(), "ipybox-test-base:compose"]);
            }
            Reader::Two => {
                let plugin = Path::new(&setting("IPYBOX_TEST_CLIENTS")).join("compose");
                if plugin.is_dir() {
                    command.env("DOCKER_CONFIG", plugin);
                }
                command.arg("compose").current_dir(folder);
            }
        }
        command.args(["-p", &self.name, "-f", "docker-compose.yaml"]).args(arguments).output().unwrap()
    }

    fn must(&self, arguments: &[&str]) -> String {
        let output = self.compose(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{:?} {arguments:?}: {said}", self.reader);
        // What one of them does not know, it only warns of.
        assert!(!said.to_lowercase().contains("unsupported"), "{said}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The container of a service, once it is healthy.
    fn healthy(&self, service: &str) -> Container {
        let id = self.must(&["ps", "-q", service]).trim().to_owned();
        let begun = std::time::Instant::now();
        while docker(&["inspect", "--format", "{{.State.Health.Status}}", &id]).trim() != "healthy" {
            let state = || docker(&["inspect", "--format", "{{json .State}}", &id]);
            assert!(begun.elapsed() < std::time::Duration::from_secs(60), "{}", state());
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
        let inspect = |format: &str| docker(&["inspect", "--format", format, &id]).trim().to_owned();
        assert_eq!(inspect("{{.HostConfig.Memory}} {{.HostConfig.PidsLimit}}"), "1610612736 500");
        assert_eq!(inspect("{{.HostConfig.NanoCpus}} {{.HostConfig.CapDrop}}"), "1500000000 [ALL]");
        assert_eq!(inspect("{{.HostConfig.SecurityOpt}}"), "[no-new-privileges:true]");
        assert_eq!(inspect("{{.HostConfig.RestartPolicy.Name}}"), "unless-stopped");
        Container { id, port: String::new() }
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        let _ = self.compose(&["--profile", "tried", "down", "--volumes", "--timeout", "2"]);
    }
}

/// A port that nobody has at the moment.
fn free_port() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string()
}

fn executor(kind: &str, name: &str) -> Image {
    let base = base();
    let common = ["build", "-V", "any-base", "--name", name, "--no-bytecode", "--base", &base];
    Image::build_with(kind, ipybox().args(common))
}

const LIMITS: [&str; 6] = ["--memory", "1.5GiB", "--cpus", "1.5", "--pids", "500"];

/// Starts an executor with nothing but what is written for it.
fn an_executor_becomes_healthy(reader: Reader) {
    let name = format!("t{reader:?}{}", std::process::id()).to_lowercase();
    let image = executor(&name, &name);
    let project = Project::new(reader, "executor");
    let port = free_port();
    let mut command = ipybox();
    command.args([
        "compose",
        "-t",
        &image.tag,
        "--publish",
        &port,
        "--profile",
        "tried",
        "--network",
        "inner",
    ]);
    let printed = run(command.args(LIMITS));
    // What the image says of itself is in it: its name, its check.
    assert!(
        printed.contains(&format!("  executor-{name}:\n")) && printed.contains("/opt/ipybox/health.sh"),
        "{printed}"
    );
    fs::write(project.file(), &printed).unwrap();
    project.must(&["config", "-q"]);
    project.must(&["--profile", "tried", "up", "-d"]);
    let mut container = project.healthy(&format!("executor-{name}"));
    container.port = port;
    assert_eq!(container.ask("GET", "/health", "").1["executor"], name.as_str());
    // The volume belongs to the image's user, since the folder does.
    let answer = container.execute("python", "w", "open('x', 'w').write('1')\nimport os; os.getcwd()");
    assert_eq!(answer["exit_code"], 0, "{answer}");
    let others = container.execute("bash", "w", "cat x && ls -d /app/skills && touch /app/uploads/x");
    assert!(others["stderr"].as_str().unwrap().contains("Read-only file system"), "{others}");
    // It answers at the address that the API service is told.
    let ask = format!(
        "import urllib.request as r; print(r.urlopen('http://skills-executor-{name}:{PORT}/health').status)"
    );
    assert_eq!(docker(&["exec", &container.id, "python", "-c", &ask]), "200\n");
    assert!(container.stop() < std::time::Duration::from_secs(3));
}

#[test]
fn compose_1_29_starts_an_executor() {
    an_executor_becomes_healthy(Reader::One);
}

#[test]
fn compose_2_starts_an_executor() {
    an_executor_becomes_healthy(Reader::Two);
}

#[test]
fn a_gateway_starts_beside_what_is_in_a_file() {
    let image = Image::build("gateway", &["-V", "minimal"]);
    for reader in [Reader::One, Reader::Two] {
        let project = Project::new(reader, "gateway");
        let name = format!("gateway-{reader:?}-{}", std::process::id()).to_lowercase();
        // The version makes 1.29 read it by the rules of before.
        let old = format!(
            "version: \"3.8\"\nservices:\n  api: # asks\n    image: {}\n    command: [\"sleep\", \"60\"]\n    networks:\n    - back\n\nnetworks:\n  back:\n",
            image.tag
        );
        fs::write(project.file(), &old).unwrap();
        let file = project.file();
        let file = file.to_str().unwrap();
        let mut command = ipybox();
        run(command.args(["compose", &name, "-t", &image.tag, "--into", file]).args(LIMITS));
        run(ipybox().args(["compose", "other", "--into", file, "--profile", "never"]));
        let new = fs::read_to_string(file).unwrap();
        assert!(new.contains("      EXECUTOR_OTHER_URL: http://skills-executor-other:62680\n"), "{new}");
        project.must(&["config", "-q"]);
        project.must(&["up", "-d"]);
        let container = project.healthy(&name);
        let address = format!("http://{name}:8888/api/kernelspecs");
        let ask = format!("import urllib.request as r; print(r.urlopen('{address}').status)");
        assert_eq!(docker(&["exec", &container.id, "python", "-c", &ask]), "200\n");
        // Others of its network find it; not all hosts of tests let them through to it.
        let find = format!("import socket; print(socket.gethostbyname('{name}'))");
        let api = project.must(&["ps", "-q", "api"]);
        let found = docker(&["exec", api.trim(), "python", "-c", &find]);
        let addresses = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
        assert_eq!(found.trim(), docker(&["inspect", "--format", addresses, &container.id]).trim());
        drop(container);
    }
}

/// What a script of the tests says of a text.
fn told(arguments: &[&str], text: &str) -> String {
    let mut command = Command::new(python_with("manifests"));
    command.arg(format!("{ROOT}/tests/clients/manifests.py")).args(arguments);
    let mut reader = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    reader.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = reader.wait_with_output().unwrap();
    assert!(output.status.success(), "{text}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn kubernetes_takes_the_manifests() {
    let gateway = Image::build("manifest", &["-V", "minimal"]);
    let executor = run(ipybox().args(["compose", "a", "b_c", "--format", "k8s", "--cpus", "1.5"]));
    let gateway = run(ipybox().args(["compose", "-t", &gateway.tag, "--format", "k8s", "--any-uid"]));
    for version in ["1.28", "1.33", "1.37"] {
        assert_eq!(told(&["validate", version], &executor), "Deployment Service Deployment Service\n");
        assert_eq!(told(&["validate", version], &gateway), "Deployment Service\n");
    }
}

/// What the manifest asks of the container, by the engine's own words.
#[test]
fn an_executor_runs_as_its_manifest_has_it() {
    let image = executor("restricted", "restricted");
    let manifest = run(ipybox().args(["compose", "-t", &image.tag, "--format", "k8s"]));
    let read: serde_json::Value = serde_json::from_str(&told(&["json"], &manifest)).unwrap();
    let pod = &read[0]["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    let mut options: Vec<String> =
        ["--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--user"]
            .map(str::to_owned)
            .into();
    options.push(format!("{}:{}", pod["securityContext"]["runAsUser"], pod["securityContext"]["runAsGroup"]));
    for mount in container["volumeMounts"].as_array().unwrap() {
        options.extend([
            "--tmpfs".to_owned(),
            format!("{}:exec,mode=2777", mount["mountPath"].as_str().unwrap()),
        ]);
    }
    for variable in container["env"].as_array().unwrap() {
        let (name, value) = (variable["name"].as_str().unwrap(), variable["value"].as_str().unwrap());
        options.extend(["--env".to_owned(), format!("{name}={value}")]);
    }
    let options: Vec<_> = options.iter().map(String::as_str).collect();
    let started = Container::with_port(PORT, &image.tag, &options);
    assert_eq!(container["readinessProbe"]["httpGet"]["path"], "/health");
    assert_eq!(started.ask("GET", "/health", "").0, 200);
    let answer = started.execute("python", "w", "open('x', 'w').write('1'); print(open('x').read())");
    assert_eq!((&answer["stdout"], &answer["exit_code"]), (&"1".into(), &0.into()), "{answer}");
}

#[test]
fn every_text_reads_back_where_yaml_is_1_1() {
    let mut runner = TestRunner::deterministic();
    let strategies =
        ["\\PC{0,12}", "[-+.0-9a-zA-Z~:=<>?!&*|%@`#{}\\[\\], \n\t\"'\\\\]{0,8}", "[0-9a-fox:._-]{1,6}"];
    let mut texts: Vec<String> = [
        "yes",
        "NO",
        "~",
        "012",
        "1_000",
        "0o7",
        "1:30:00",
        "2001-01-01",
        "=",
        "<<",
        "\u{85}\u{2028}\u{feff}\u{7f}",
    ]
    .map(str::to_owned)
    .into();
    for strategy in strategies {
        let tree = || proptest::string::string_regex(strategy).unwrap();
        texts.extend((0..2000).map(|_| tree().new_tree(&mut runner).unwrap().current()));
    }
    let map = texts.iter().enumerate().map(|(number, text)| (format!("{number} {text}"), Node::text(text)));
    let document = Node::Map(map.collect()).document();
    let read: serde_json::Value = serde_json::from_str(&told(&["json"], &document)).unwrap();
    for (number, text) in texts.iter().enumerate() {
        assert_eq!(read[0][format!("{number} {text}")], text.as_str());
    }
}
