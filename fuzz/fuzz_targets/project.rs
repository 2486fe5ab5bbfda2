#![no_main]
//! `pyproject.toml`.

#[path = "../check.rs"]
mod check;

libfuzzer_sys::fuzz_target!(|text: &str| check::list(ipybox::spec::Form::Project, text));
