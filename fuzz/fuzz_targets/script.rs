#![no_main]
//! Scripts with inline metadata.

#[path = "../check.rs"]
mod check;

libfuzzer_sys::fuzz_target!(|text: &str| check::list(ipybox::spec::Form::Script, text));
