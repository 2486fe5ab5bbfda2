//! The fuzz targets' corpus, read once more: `fuzz/corpus/TARGET/`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;

use ipybox::deps::Form;

#[path = "../fuzz/check.rs"]
mod check;

fn replay(target: &str, check: impl Fn(&str)) {
    replay_bytes(target, |bytes| check(&String::from_utf8_lossy(bytes)));
}

fn replay_bytes(target: &str, check: impl Fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut files = 0;
    for entry in folder.read_dir().unwrap() {
        check(&fs::read(entry.unwrap().path()).unwrap());
        files += 1;
    }
    assert!(files > 0, "{} is empty", folder.display());
}

#[test]
fn the_corpus_of_every_target_is_read_without_a_finding() {
    for (target, form) in [
        ("poetry", Form::Poetry),
        ("quoted", Form::Quoted),
        ("project", Form::Project),
        ("script", Form::Script),
    ] {
        replay(target, |text| check::list(form, text));
    }
    replay("requirements", check::requirements);
    replay("requirement", check::requirement);
    replay("lock", check::lock);
    replay("compose", check::composition);
    replay("fleet", check::fleet);
    replay_bytes("wheel", check::wheel);
    replay_bytes("stored", check::stored);
    replay_bytes("segment", check::segment);
    replay_bytes("signature", check::signature);
}
