//! Packages that no index has as a wheel, on a real engine. A missing engine is a failure.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod engine;

use std::fs;

use engine::{Image, base, docker, ipybox, list};

/// Runs Python in a container of its own.
fn prints(image: &Image, code: &str) -> String {
    docker(&["run", "--rm", "--network", "none", &image.tag, "sh", "-lc", &format!("python -c '{code}'")])
}

/// What a build says that is refused.
fn refused(arguments: &[&str]) -> String {
    let output =
        ipybox().args(["build", "--base", &base(), "-t", &Image::tag("refused")]).args(arguments).output();
    let output = output.unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    said
}

#[test]
fn what_has_no_wheel_is_built_from_its_source() {
    let (_folder, file) = list("docopt = \"*\"\nwikipedia = \"^1.4\"\nnetifaces = \"*\"\n");
    let image = Image::build("sources", &["-d", &file, "--verify"]);
    let told = "built from source, since no index has a wheel that fits: docopt, netifaces, wikipedia";
    assert!(image.said.contains(told), "{}", image.said);
    assert!(image.said.contains("no index has a wheel of `docopt` that fits: it is built from its source"));
    assert!(image.said.contains("a build needs compilers"), "{}", image.said);
    let code =
        "import docopt, wikipedia, netifaces, shutil; print(shutil.which(\"gcc\"), netifaces.interfaces())";
    assert_eq!(prints(&image, code), "None ['lo']\n");
    // What was found out is not found out by failing again.
    let again = Image::build("sources-again", &["-d", &file]);
    assert!(
        again.said.contains(told) && !again.said.contains("it is built from its source"),
        "{}",
        again.said
    );
    assert_eq!(again.id, image.id);
}

#[test]
fn a_list_of_wheels_has_no_stage_for_builds() {
    let (_folder, file) = list("rich = \"*\"\n");
    let image = Image::build("no-sources", &["-V", "kernel", "-d", &file, "--build-apt", "libpq-dev"]);
    assert!(
        !image.said.contains("build wheels") && !image.said.contains("what builds need"),
        "{}",
        image.said
    );
}

#[test]
fn a_build_gets_the_libraries_that_it_needs_and_the_image_does_not() {
    let (_folder, file) = list("docopt = \"*\"\nwikipedia = \"*\"\npsycopg2 = \"*\"\n");
    let said = refused(&["-V", "kernel", "-d", &file]);
    for part in [
        "`psycopg2` cannot be built from its source",
        ":3:1",
        "`pg_config` is missing",
        "--build-apt libpq-dev",
    ] {
        assert!(said.contains(part), "no {part} in {said}");
    }
    let arguments = ["--name", "sources", "-d", &file, "--build-apt", "libpq-dev", "--apt", "libpq5"];
    let image = Image::build("libraries", &[&["-V", "any-base"], &arguments[..]].concat());
    let code = "import docopt, wikipedia, psycopg2, shutil; print(psycopg2.__libpq_version__ > 0, shutil.which(\"gcc\"), shutil.which(\"pg_config\"))";
    assert_eq!(prints(&image, code), "True None None\n");
}

#[test]
fn what_may_not_be_built_is_refused() {
    let (_folder, file) = list("docopt = \"*\"\n");
    for limit in ["never", "wikipedia"] {
        let said = refused(&["-V", "kernel", "-d", &file, "--from-source", limit]);
        assert!(said.contains("`docopt` has no wheel that fits") && said.contains("--from-source"), "{said}");
    }
}

#[test]
fn a_build_changes_nothing_outside_of_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("ours");
    fs::create_dir(&source).unwrap();
    let system = "[build-system]\nrequires = []\nbuild-backend = \"backend\"\nbackend-path = [\".\"]\n";
    fs::write(source.join("pyproject.toml"), system).unwrap();
    let backend = "import os\n\
        def build_wheel(*_):\n    \
        for path in ['/wheels', '/opt/own', '/dev/ipybox/cache', '/usr/local/bin/own', '/dev/ipybox/build.json']:\n        \
        try:\n            os.rename('own', path) if os.path.isdir(path) else open(path, 'w').close()\n        \
        except OSError as error:\n            print('stopped:', path, error.errno)\n    \
        raise SystemExit(7)\n";
    fs::write(source.join("backend.py"), backend).unwrap();
    let file = folder.path().join("dependencies.txt");
    fs::write(&file, "ours = { path = \"ours\" }\n").unwrap();
    let said = refused(&["-V", "kernel", "-d", file.to_str().unwrap()]);
    assert_eq!(said.matches("stopped: /").count(), 5, "{said}");
    assert!(said.contains("`ours` cannot be built from its source"), "{said}");
}
