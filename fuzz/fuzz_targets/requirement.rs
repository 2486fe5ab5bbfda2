#![no_main]
//! Requirements, constraints and markers by themselves.

#[path = "../check.rs"]
mod check;

libfuzzer_sys::fuzz_target!(|text: &str| check::requirement(text));
