#![no_main]
//! `pyproject.toml`.

#[path = "../check.rs"]
#[allow(dead_code, reason = "each target uses a part of it")]
mod check;

libfuzzer_sys::fuzz_target!(|text: &str| check::list(ipybox::deps::Form::Project, text));
