//! What `wal` of `tests/parsers/targets.rs` checks, for any bytes.

#![no_main]

#[path = "../../tests/parsers/targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| targets::wal(bytes));
