#![no_main]
//! Poetry's lines.

#[path = "../check.rs"]
mod check;

libfuzzer_sys::fuzz_target!(|text: &str| check::list(ipybox::spec::Form::Poetry, text));
