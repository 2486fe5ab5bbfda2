//! The pipelines of the examples: their steps, run as a runner does.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod engine;
mod sandbox;
mod served;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use engine::{ROOT, base, ipybox, setting};
use sandbox::text;
use served::Registry;

const FOLDER: &str = "examples/ci";

/// The steps of a workflow of GitHub that have a script, by their names.
fn steps(file: &str) -> Vec<(String, String)> {
    let text = fs::read_to_string(Path::new(ROOT).join(FOLDER).join(file)).unwrap();
    let (mut steps, mut name) = (Vec::new(), String::new());
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if let Some(named) = line.trim_start().strip_prefix("- name: ") {
            named.clone_into(&mut name);
        }
        if line.trim_start() == "run: |" {
            let indent = line.len() - line.trim_start().len() + 2;
            let mut script = String::new();
            while let Some(line) =
                lines.next_if(|line| line.len() >= indent && line[..indent].trim().is_empty())
            {
                script += &format!("{}\n", &line[indent..]);
            }
            steps.push((name.clone(), script));
        }
    }
    steps
}

/// The lines of each job of a pipeline of GitLab.
fn jobs(file: &str) -> Vec<(String, String)> {
    let text = fs::read_to_string(Path::new(ROOT).join(FOLDER).join(file)).unwrap();
    let mut jobs: Vec<(String, String)> = Vec::new();
    let mut is_script = false;
    for line in text.lines() {
        match line.trim_start() {
            _ if line.ends_with(':') && !line.starts_with(' ') => {
                jobs.push((line.trim_end_matches(':').to_owned(), String::new()));
            }
            "script:" => is_script = true,
            step if is_script && step.starts_with("- ") => {
                jobs.last_mut().unwrap().1 += &format!("{}\n", &step[2..]);
            }
            _ => is_script = false,
        }
    }
    jobs
}

/// A checkout of the example, on a base that is here, and a registry.
struct Checkout {
    folder: tempfile::TempDir,
    registry: Registry,
    name: String,
}

impl Checkout {
    fn new(name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let name = format!("ipybox-test-{}-{name}", std::process::id());
        let example = Path::new(ROOT).join(FOLDER);
        let fleet = fs::read_to_string(example.join("ipybox.toml")).unwrap();
        let own = format!("[image.{name}]\nbase = \"{}\"\nlabels = {{ test = \"{name}\" }}", base());
        fs::write(folder.path().join("ipybox.toml"), fleet.replace("[image.sandbox]", &own)).unwrap();
        fs::copy(example.join("sandbox.txt"), folder.path().join("sandbox.txt")).unwrap();
        Self { folder, registry: Registry::start(), name }
    }

    /// Runs a step.
    fn step(&self, script: &str) -> Output {
        let program = ipybox();
        let mut shell = Command::new("bash");
        shell.args(["--noprofile", "--norc", "-eo", "pipefail", "-c", script]);
        for (name, value) in program.get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        let folder = Path::new(program.get_program()).parent().unwrap().to_owned();
        let path = setting("PATH");
        let path = std::env::join_paths([folder].into_iter().chain(std::env::split_paths(&path))).unwrap();
        shell.env("PATH", path).env("GITHUB_ACTIONS", "true").env("CI", "true").env("USERNAME", "");
        shell.env("REGISTRY", format!("{}/team", self.registry.address)).env("PLATFORM", "linux/amd64");
        shell.env("GITHUB_OUTPUT", self.folder.path().join("output"));
        shell.env("GITHUB_STEP_SUMMARY", self.folder.path().join("summary"));
        shell.current_dir(self.folder.path()).output().unwrap()
    }

    fn passes(&self, (name, script): &(String, String)) {
        let output = self.step(script);
        assert!(output.status.success(), "{name}: {}\n{}", text(&output.stdout), text(&output.stderr));
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.folder.path().join(name)).unwrap_or_default()
    }
}

impl Drop for Checkout {
    fn drop(&mut self) {
        for tag in ["1.0.0", "latest"] {
            let _ = Command::new("docker").args(["rmi", "--force", &format!("{}:{tag}", self.name)]).output();
        }
    }
}

#[test]
fn the_steps_for_github_pass_on_a_runner() {
    let checkout = Checkout::new("github");
    let steps = steps("github/images.yml");
    let names: Vec<&str> = steps.iter().map(|(name, _)| name.as_str()).collect();
    let all = [
        "Lists",
        "Log in",
        "What is to be done",
        "Build and prove",
        "Newer versions",
        "Build and prove",
        "Propose them",
        "Log in",
        "Publish",
    ];
    assert_eq!(names, all);
    for step in &steps[..4] {
        checkout.passes(step);
    }
    let summary = checkout.read("summary");
    assert!(summary.contains("to be built") && summary.contains("latest is new"), "{summary}");
    checkout.passes(&steps[8]);
    assert!(checkout.read("output").starts_with("images={"), "{}", checkout.read("output"));
    assert!(checkout.read("summary").contains("| image | tags |"));
    assert!(checkout.read(&format!("pages/{}.md", checkout.name)).contains("| idna |"));
    assert!(checkout.read("publish.json").contains("\"digest\""));
    // Locks are for a base, which is a local one here.
    let (name, script) = &steps[4];
    checkout.passes(&(name.clone(), format!("export IPYBOX_BASE={}\n{script}", base())));
    assert!(checkout.read("pylock.sandbox.toml").contains("idna"));
    // Wrong lists end the first step.
    fs::write(checkout.folder.path().join("sandbox.txt"), "idna = \">>3\"\n").unwrap();
    assert_eq!(checkout.step(&steps[0].1).status.code(), Some(1));

    let checkout = Checkout::new("platforms");
    let steps = self::steps("github/platforms.yml");
    let one = checkout.read("ipybox.toml").replace("[fleet]\n", "[fleet]\nplatforms = [\"linux/amd64\"]\n");
    fs::write(checkout.folder.path().join("ipybox.toml"), one).unwrap();
    for step in &steps {
        checkout.passes(step);
    }
    assert!(checkout.read("publish.json").contains("linux"), "{}", checkout.read("publish.json"));
}

#[test]
fn the_jobs_for_gitlab_pass_on_a_runner() {
    let checkout = Checkout::new("gitlab");
    let jobs = jobs("gitlab/.gitlab-ci.yml");
    let names: Vec<&str> = jobs.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["default", "check", "upgrade", "publish"]);
    checkout.passes(&jobs[1]);
    checkout.passes(&jobs[3]);
    assert!(checkout.read("publish.json").contains("latest"));
}
