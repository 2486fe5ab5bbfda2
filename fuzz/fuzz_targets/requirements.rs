#![no_main]
//! pip's requirements files.

#[path = "../check.rs"]
mod check;

libfuzzer_sys::fuzz_target!(|text: &str| check::list(ipybox::spec::Form::Requirements, text));
