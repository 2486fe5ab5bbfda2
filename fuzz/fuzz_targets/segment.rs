#![no_main]
//! Segments of caches that others have written.

#[path = "../check.rs"]
#[allow(dead_code, reason = "each target uses a part of it")]
mod check;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| check::segment(bytes));
