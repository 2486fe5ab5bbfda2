//! What is inside of images, on a real engine. A missing engine is a failure.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod engine;

use std::fs;
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

/// A wheel with a shared library that needs another, and is nothing else. No two runs have the same, since a step that an
/// engine has done before tells nothing.
fn needy(library: &str) -> Vec<u8> {
    let numbers =
        |numbers: &[u64]| numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<u8>>();
    let strings = format!("\0{library}\0").into_bytes();
    let at = 64 + 2 * 56;
    let dynamic = numbers(&[5, at, 1, 1, 0, 0]);
    let size = at + (strings.len() + dynamic.len()) as u64;
    let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
    elf.resize(16, 0);
    elf.extend([3, 0, 62, 0, 1, 0, 0, 0]);
    elf.extend(numbers(&[0, 64, 0]));
    elf.extend([0, 0, 0, 0, 64, 0, 56, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
    elf.extend(numbers(&[1 | 4 << 32, 0, 0, 0, size, size, 4096]));
    let begin = at + strings.len() as u64;
    elf.extend(numbers(&[2 | 4 << 32, begin, 0, 0, dynamic.len() as u64, dynamic.len() as u64, 8]));
    elf.extend(strings);
    elf.extend(dynamic);
    let mut wheel = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let info = "needy-1.0.dist-info";
    for (file, bytes) in [
        ("needy/lib.so", elf),
        (&format!("{info}/METADATA"), b"Metadata-Version: 2.1\nName: needy\nVersion: 1.0\n".to_vec()),
        (
            &format!("{info}/WHEEL"),
            b"Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n".to_vec(),
        ),
        (&format!("{info}/RECORD"), Vec::new()),
        ("needy/run", format!("{:?} {}", std::time::SystemTime::now(), std::process::id()).into_bytes()),
    ] {
        let options = zip::write::SimpleFileOptions::default();
        wheel.start_file(file, options.compression_method(zip::CompressionMethod::Stored)).unwrap();
        wheel.write_all(&bytes).unwrap();
    }
    wheel.finish().unwrap().into_inner()
}

#[test]
fn libraries_that_packages_lack_are_told_and_can_be_added() {
    let (folder, file) = list("needy = { path = \"needy-1.0-py3-none-any.whl\" }\n");
    fs::write(folder.path().join("needy-1.0-py3-none-any.whl"), needy("libxcb.so.1")).unwrap();
    let image = Image::build("lacking", &["-V", "kernel", "-d", &file]);
    let said = &image.said;
    assert!(said.contains("`needy` may not work: nothing has `libxcb.so.1`"), "{said}");
    assert!(said.contains("add `--apt libxcb1`") && said.contains("the largest: "), "{said}");
    // What was found out is known from then on; another list finds it out in its first build.
    fs::write(&file, "needy = { path = \"needy-1.0-py3-none-any.whl\" }\ntomli-w = \"*\"\n").unwrap();
    let added = Image::build("added", &["-V", "kernel", "-d", &file, "--apt", "auto"]);
    assert!(added.said.contains("built once more with libxcb1"), "{}", added.said);
    assert!(!added.said.contains("may not work"), "{}", added.said);
    assert!(added.run(&["sh", "-c", "ls /usr/lib/*-linux-*/libxcb.so.1"]).contains("libxcb.so.1"));
    let again = Image::build("added", &["-V", "kernel", "-d", &file, "--apt", "auto"]);
    assert!(again.said.contains("up to date") && again.id == added.id, "{}", again.said);
}

#[test]
fn an_image_that_is_too_large_gets_no_tag() {
    let (_folder, file) = list("tomli-w = \"*\"\n");
    let tag = Image::tag("large");
    let mut command = ipybox();
    command.args([
        "build",
        "--base",
        &engine::base(),
        "-V",
        "kernel",
        "-d",
        &file,
        "-t",
        &tag,
        "--max-size",
        "50 MB",
    ]);
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("and may have 50 MB") && said.contains("no tag was moved"), "{said}");
    assert!(!Command::new("docker").args(["image", "inspect", &tag]).output().unwrap().status.success());
}
