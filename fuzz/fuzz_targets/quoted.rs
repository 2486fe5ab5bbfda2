#![no_main]
//! Quoted requirements.

#[path = "../check.rs"]
mod check;

libfuzzer_sys::fuzz_target!(|text: &str| check::list(ipybox::spec::Form::Quoted, text));
