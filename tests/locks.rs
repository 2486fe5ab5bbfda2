//! Locks: made of lists, kept to by builds, and installed by other tools. A missing engine is a failure.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::disallowed_methods, reason = "tests are configured through the environment")]

mod engine;

use std::fs;
use std::path::Path;
use std::process::Command;

use engine::{Image, ROOT, base, docker, ipybox, list};

/// Runs a command of the program, and returns its exit code and what it says.
fn said(arguments: &[&str]) -> (i32, String) {
    let output = ipybox().args(arguments).output().unwrap();
    (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Makes or checks the lock of a list for the variant `kernel`.
fn lock(file: &str, arguments: &[&str]) -> (i32, String) {
    said(&[&["lock", "--base", &base(), "-V", "kernel", "-d", file], arguments].concat())
}

fn text(file: &Path) -> String {
    fs::read_to_string(file).unwrap()
}

#[test]
fn builds_keep_to_a_lock_and_say_what_differs() {
    let (folder, file) = list("rich = \"*\"\ntomli-w = \"<1.2\"\n");
    let pylock = folder.path().join("pylock.toml");
    let build = |name: &str, arguments: &[&str]| {
        Image::build(name, &[&["-V", "kernel", "-d", &file], arguments].concat())
    };
    let refused = |arguments: &[&str]| {
        let tag = Image::tag("refused");
        said(&[&["build", "--base", &base(), "-t", &tag, "-V", "kernel", "-d", &file], arguments].concat())
    };
    let (code, told) = refused(&["--locked"]);
    assert!(code == 1 && told.contains("there is no lock") && told.contains("ipybox lock"), "{told}");
    let (code, told) = lock(&file, &[]);
    assert!(code == 0 && told.contains("locked "), "{told}");
    let first = text(&pylock);
    for (again, with) in [(vec![], "up to date"), (vec!["--check"], "up to date")] {
        let (code, told) = lock(&file, &again);
        assert!(code == 0 && told.contains(with), "{told}");
    }
    let image = build("locked", &["--locked"]);
    assert_eq!(build("locked", &["--locked"]).id, image.id);

    // Another list: the lock is not of it, and says so by line.
    fs::write(&file, "rich = \"*\"\ntomli-w = \"<1.1\"\n").unwrap();
    let changed = "tomli-w: <1.2 → <1.1";
    for (code, told) in [lock(&file, &["--check"]), refused(&["--locked"]), refused(&["--check"])] {
        assert!(code != 0 && told.contains(changed) && told.contains("dependencies.txt:2"), "{told}");
    }
    assert_eq!(text(&pylock), first);
    // A build brings it up to date, and keeps everything else.
    let other = build("relocked", &[]);
    assert!(
        other.said.contains("is brought up to date") && other.said.contains("tomli-w 1.1.0 → 1.0.0, because"),
        "{}",
        other.said
    );
    let second = text(&pylock);
    let versions = |text: &str| {
        text.lines().filter(|line| line.starts_with("version = ")).map(str::to_owned).collect::<Vec<_>>()
    };
    let differ = versions(&first).iter().zip(&versions(&second)).filter(|(one, other)| one != other).count();
    assert_eq!(differ, 1);
    assert!(second.contains("tool.ipybox = { generation = 1 }"), "{second}");
    assert_ne!(other.id, image.id);

    // It is the lock of this image, and of no other.
    let minimal = ["build", "--base", &base(), "-t", &Image::tag("refused"), "-V", "minimal", "-d", &file];
    let (code, told) = said(&minimal);
    assert!(code == 1 && told.contains("is of another image: kernel on "), "{told}");
    assert_eq!(text(&pylock), second);
    let (code, told) = refused(&["--lock", "pylock.elsewhere.toml"]);
    assert!(code == 1 && told.contains("there is no lock `pylock.elsewhere.toml`"), "{told}");
    // Versions of elsewhere are taken over into what is counted on from the lock that is there.
    let from = folder.path().join("uv.lock");
    fs::write(&from, "version = 1\n[[package]]\nname = \"tomli-w\"\nversion = \"0.4.0\"\n").unwrap();
    let (code, told) = lock(&file, &["--from", from.to_str().unwrap()]);
    assert!(code == 0 && told.contains("tomli-w 1.0.0 → 0.4.0"), "{told}");
    assert!(text(&pylock).contains("generation = 2\n"), "{}", text(&pylock));
    fs::write(&pylock, &second).unwrap();

    // A file that is not the one that was locked is not installed, and is told by its name.
    let sha256 = second.rsplit("rich-").next().unwrap().split("sha256 = \"").nth(1).unwrap()[..64].to_owned();
    fs::write(&pylock, second.replace(&sha256, &"0".repeat(64))).unwrap();
    let (code, told) = refused(&["--locked"]);
    assert!(
        code == 1 && told.contains("rich") && told.contains("is not the one that was promised"),
        "{told}"
    );

    // What is in the cache is installed without any index. Another order of packages makes the step run again.
    fs::write(&file, "rich = \"*\"\n").unwrap();
    fs::write(&pylock, &second).unwrap();
    let (code, told) = lock(&file, &[]);
    assert!(code == 0 && told.contains("tomli-w 1.0.0 is gone"), "{told}");
    let nowhere = "HTTPS_PROXY=http://127.0.0.1:9";
    let offline = build(
        "offline",
        &["--locked", "--build-arg", nowhere, "--build-arg", "ALL_PROXY=http://127.0.0.1:9"],
    );
    let code = "import rich, importlib.util; print(importlib.util.find_spec(\"tomli_w\"))";
    assert_eq!(offline.run(&["python", "-c", code]), "None\n");
}

#[test]
fn what_is_built_from_a_source_enters_a_lock_as_a_wheel() {
    let (folder, file) = list("docopt = \"*\"\nours = { path = \"ours\" }\n");
    let ours = folder.path().join("ours");
    fs::create_dir(&ours).unwrap();
    let project = "[project]\nname = \"ours\"\nversion = \"1.5\"\ndependencies = [\"tomli-w<1.1\"]\n";
    fs::write(ours.join("pyproject.toml"), project).unwrap();
    fs::write(ours.join("ours.py"), "import tomli_w\n").unwrap();
    let (code, told) = lock(&file, &[]);
    assert!(code == 0, "{told}");
    let pylock = text(&folder.path().join("pylock.toml"));
    for wheel in ["docopt-0.6.2-py2.py3-none-any.whl", "ours-1.5-py3-none-any.whl"] {
        assert!(pylock.contains(&format!("path = \"pylock.wheels/{wheel}\"")), "{pylock}");
        assert!(folder.path().join("pylock.wheels").join(wheel).is_file());
    }
    assert!(pylock.contains("tomli_w-1.0.0-py3-none-any.whl"), "{pylock}");
    let ours = &pylock[pylock.find("name = \"ours\"").unwrap()..];
    assert!(ours[..ours.find("wheels").unwrap()].contains("{ name = \"tomli-w\" }"), "{pylock}");
    let image = Image::build("wheels", &["-V", "kernel", "-d", &file, "--locked"]);
    assert!(!image.said.contains("build wheels"), "{}", image.said);
    assert_eq!(image.run(&["python", "-c", "import ours, docopt; print(docopt.__version__)"]), "0.6.2\n");
    let left = docker(&["ps", "--all", "--quiet", "--filter", "label=ipybox.wheels"]);
    assert_eq!(left, "");
    fs::remove_file(folder.path().join("pylock.wheels/ours-1.5-py3-none-any.whl")).unwrap();
    let tag = Image::tag("refused");
    let (code, told) = said(&["build", "--base", &base(), "-t", &tag, "-V", "kernel", "-d", &file]);
    assert!(code == 1 && told.contains("the wheel of `ours`"), "{told}");
}

#[test]
fn an_image_that_somebody_changed_is_not_what_comes_of_its_plan() {
    let (folder, file) = list("tomli-w = \"*\"\n");
    let (code, told) = lock(&file, &[]);
    assert!(code == 0, "{told}");
    let context = folder.path().join("context");
    let arguments = ["--base", &base(), "-V", "kernel", "-d", &file, "--out", context.to_str().unwrap()];
    let (code, told) = said(&[&["render"], &arguments[..]].concat());
    assert!(code == 0, "{told}");
    let dockerfile = context.join("Dockerfile");
    let marker = "rm -f /opt/venv/.lock;";
    let change = "sed -i '1i # more' /opt/venv/lib/python*/site-packages/tomli_w/__init__.py;";
    let changed = text(&dockerfile).replacen(marker, &format!("{marker} {change}"), 1);
    assert!(changed.contains(change), "{changed}");
    fs::write(&dockerfile, changed).unwrap();
    let mut build = Command::new(engine::client_with_buildkit().join("docker"));
    let image = Image { tag: Image::tag("changed"), id: String::new(), said: String::new() };
    build.args(["build", "--quiet", "-t", &image.tag]);
    if let Ok(certificates) = std::env::var("SSL_CERT_FILE") {
        build.arg(format!("--secret=id=ipybox-ca,src={certificates}"));
    }
    engine::run(build.arg(&context).env("DOCKER_BUILDKIT", "1"));
    let (code, told) = said(&["verify", "--rebuild", &image.tag]);
    assert!(code == 1 && told.contains("is not what comes of its plan"), "{told}");
    assert!(told.contains("tomli_w/__init__.py`: ") && told.contains(" bytes"), "{told}");
    let (code, told) = said(&["verify", "--rebuild", &base()]);
    assert!(code == 1 && told.contains("it does not say what it was built from"), "{told}");
}

#[test]
fn what_cannot_be_resolved_is_told_without_a_container() {
    let (folder, file) = list("rich = \">=99\"\nnumpy = \"*\"\n");
    let (code, told) = lock(&file, &[]);
    assert!(code == 1, "{told}");
    assert!(
        told.contains("`rich` has no version that meets `>=99`") && told.contains("dependencies.txt:1"),
        "{told}"
    );
    assert!(!folder.path().join("pylock.toml").exists());
}

/// Installs the lock of a variant with pip and with uv beside the image's own packages, and compares all files.
fn is_installed_alike(variant: &str) {
    let folder = tempfile::tempdir().unwrap();
    let pylock = folder.path().join("pylock.toml");
    let arguments = ["--base", &base(), "-V", variant, "--lock", pylock.to_str().unwrap()];
    let (code, told) = said(&[&["lock"], &arguments[..]].concat());
    assert!(code == 0, "{told}");
    let image = Image::build("alike", &["-V", variant, "--lock", pylock.to_str().unwrap(), "--locked"]);
    let mut command = Command::new("docker");
    command.args(["run", "--rm", "--label", "ipybox.test", "--network", "host", "--user", "0:0"]);
    command.arg("--volume").arg(format!("{}:/lock:ro", folder.path().display()));
    command.arg("--volume").arg(format!("{ROOT}/tests/pip/alike.py:/alike.py:ro"));
    if let Ok(certificates) = std::env::var("SSL_CERT_FILE") {
        command.arg("--volume").arg(format!("{certificates}:/ca.pem:ro"));
        command.args(["--env", "SSL_CERT_FILE=/ca.pem", "--env", "PIP_CERT=/ca.pem"]);
    }
    let told = engine::run(command.args([&image.tag, "python", "/alike.py", "/lock/pylock.toml"]));
    assert!(told.ends_with("alike\n"), "{told}");
}

#[test]
fn a_lock_of_minimal_is_installed_alike_by_pip_and_uv() {
    is_installed_alike("minimal");
}

#[test]
#[ignore = "takes minutes; scripts/test --all runs it"]
fn locks_of_the_other_variants_are_installed_alike() {
    for variant in ["basic", "example", "eval"] {
        is_installed_alike(variant);
    }
}
