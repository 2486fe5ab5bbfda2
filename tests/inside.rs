//! What is inside of images, on a real engine. A missing engine is a failure.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod engine;

use std::io::Write;
use std::process::{Command, Stdio};

use engine::{Image, ROOT, ipybox, list, python_with, run};
use serde_json::Value;

fn told(arguments: &[&str]) -> String {
    run(ipybox().args(arguments))
}

/// What the libraries of a format say of a bill.
fn verdict(format: &str, bill: &str) -> String {
    let mut command = Command::new(python_with("bills"));
    command.arg(format!("{ROOT}/tests/clients/bills.py")).arg(format);
    let mut validator = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    validator.stdin.take().unwrap().write_all(bill.as_bytes()).unwrap();
    String::from_utf8(validator.wait_with_output().unwrap().stdout).unwrap()
}

#[test]
fn an_image_tells_what_is_inside_and_who_asked_for_it() {
    let (_folder, file) = list("requests = { version = \"*\", extras = [\"socks\"] }\ntomli-w = \"<1.1\"\n");
    let image = Image::build("inside", &["-V", "kernel", "-d", &file]);
    let inside: Value = serde_json::from_str(&told(&["inspect", "--json", &image.tag])).unwrap();
    assert_eq!(inside["image"], image.id.as_str());
    assert_eq!(inside["variant"], "kernel");
    let packages = &inside["packages"];
    assert_eq!(packages["tomli-w"]["version"], "1.0.0");
    assert_eq!(packages["requests"]["asked"]["by_list"], true);
    assert_eq!(packages["ipykernel"]["asked"]["by_list"], false);
    assert_eq!(packages["pysocks"]["needed_by"], serde_json::json!(["requests"]));
    assert!(packages["pip"]["bytes"].as_u64().unwrap() > 1_000_000);
    assert!(inside["debian"]["libc6"]["version"].is_string());

    let text = told(&["inspect", &image.tag]);
    let sizes = text.lines().filter(|line| line.contains(" MB "));
    assert!(sizes.count() > 3 && text.contains("the list asks for `tomli-w<1.1`"), "{text}");
    let why = told(&["why", &image.tag, "PySocks"]);
    assert!(why.contains("the list asks for `requests[socks]`: requests "), "{why}");
    let unknown = ipybox().args(["why", &image.tag, "reqests"]).output().unwrap();
    let unknown = String::from_utf8(unknown.stderr).unwrap();
    assert!(unknown.contains("there is requests"), "{unknown}");
    for format in ["cyclonedx", "spdx"] {
        let bill = told(&["inspect", "--format", format, &image.tag]);
        assert_eq!(verdict(format, &bill), "valid\n");
        assert_eq!(bill, told(&["inspect", "--format", format, &image.tag]));
    }

    let (_folder, file) = list("requests = \"*\"\ntomli-w = \"<1.2\"\n");
    let other = Image::build("inside-other", &["-V", "kernel", "-d", &file]);
    let diff = told(&["diff", &image.tag, &other.tag]);
    for part in
        ["tomli-w: <1.1 → <1.2", "tomli-w 1.0.0 → 1.1.0, +", "pysocks 1.7.1 is gone, -", "layers in common"]
    {
        assert!(diff.contains(part), "no `{part}` in {diff}");
    }
    assert!(!diff.contains("pip ") && !diff.contains("Debian"), "{diff}");
    let diff: Value = serde_json::from_str(&told(&["diff", "--json", &image.tag, &other.tag])).unwrap();
    assert_eq!(diff["packages"].as_array().unwrap().len(), 2, "{diff}");
    assert!(told(&["diff", &image.tag, &image.tag]).contains("the same packages"));
    let left = engine::docker(&["ps", "--all", "--quiet", "--filter", "label=ipybox.inside"]);
    assert_eq!(left, "");
}
