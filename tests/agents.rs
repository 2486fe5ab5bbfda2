//! Agents that enter a container and run commands in it, through their own code. A missing engine is a failure.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod engine;

use std::path::Path;
use std::process::Command;

use engine::{Image, ROOT, list, python_with, setting};

/// Drives an image with a client; each script tells what it tries.
fn drive(client: &str, script: &str, tag: &str) {
    driven(client, script, tag).unwrap_or_else(|why| panic!("{why}"));
}

fn driven(client: &str, script: &str, tag: &str) -> Result<(), String> {
    let compose = Path::new(&setting("IPYBOX_TEST_CLIENTS")).join("compose");
    let mut command = Command::new(python_with(client));
    if compose.is_dir() {
        command.env("DOCKER_CONFIG", compose);
    }
    let output = command.arg(format!("{ROOT}/tests/clients/{script}")).arg(tag).output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        Ok(())
    } else {
        Err(format!("{client}: {}\n{printed}\n{said}", output.status))
    }
}

/// The one image that all of them are given.
fn basic(name: &str) -> Image {
    Image::build(name, &["-V", "basic"])
}

#[test]
#[ignore = "takes minutes; scripts/test --all runs it"]
fn nine_ways_to_start_times_six_to_enter_find_the_packages() {
    drive("mini-swe-agent", "matrix.py", &basic("matrix").tag);
}

#[test]
fn basic_serves_mini_swe_agent() {
    drive("mini-swe-agent", "with_mini_swe_agent.py", &basic("mini-swe-agent").tag);
}

/// Clients that ask the same of an image as those that CI drives, by other ways.
const OTHERS: [&str; 10] = [
    "autogen",
    "deepagents-docker",
    "deepagents-docker-sandbox",
    "harbor",
    "inspect",
    "langchain-docker",
    "langchain-docker-backend",
    "llm-sandbox",
    "openai-agents",
    "pydantic-ai-backend",
];

/// Drives an image with all of [`OTHERS`].
fn serves_the_others(tag: &str) {
    let script = |client: &str| format!("with_{}.py", client.replace('-', "_"));
    let failed: Vec<_> =
        OTHERS.iter().filter_map(|client| driven(client, &script(client), tag).err()).collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
#[ignore = "ten clients take several minutes"]
fn basic_serves_every_other_agent() {
    serves_the_others(&basic("others").tag);
}

#[test]
#[ignore = "ten clients take several minutes"]
fn an_extended_image_serves_every_other_agent() {
    let base = basic("to-extend-for-others");
    let (_folder, file) = list("rich = \"*\"\nswe-rex = \"^1.4\"\n");
    let mut command = engine::ipybox();
    command.args(["build", "-V", "extend-base", "--base", &base.tag, "-d", &file]);
    let image = Image::build_with("extended-for-others", &mut command);
    serves_the_others(&image.tag);
    drive("mini-swe-agent", "matrix.py", &image.tag);
    drive("swe-rex", "with_swe_rex.py", &image.tag);
}

#[test]
#[ignore = "swe-rex is installed for it"]
fn an_image_with_swe_rex_serves_it() {
    let (_folder, file) = list("numpy = \"*\"\npandas = \"*\"\nswe-rex = \"^1.4\"\n");
    drive("swe-rex", "with_swe_rex.py", &Image::build("swe-rex", &["-d", &file]).tag);
}

#[test]
fn an_extended_image_is_what_it_was_and_has_more_packages() {
    let base = basic("to-extend");
    let (_folder, file) = list("rich = \"*\"\n");
    let mut command = engine::ipybox();
    command.args(["build", "-V", "extend-base", "--base", &base.tag, "-d", &file, "--verify"]);
    let image = Image::build_with("extended", &mut command);
    assert!(image.said.contains("ok      every shell finds the packages"), "{}", image.said);
    assert!(image.said.contains("ok      MCP tools become functions"), "{}", image.said);
    let labels = engine::docker(&["inspect", "--format", "{{json .Config.Labels}}", &image.tag]);
    assert!(labels.contains("\"ipybox.variant\":\"basic\""), "{labels}");
    assert!(labels.contains("freeact-skills matplotlib numpy pandas rich sympy"), "{labels}");
    drive("mini-swe-agent", "with_mini_swe_agent.py", &image.tag);
}
