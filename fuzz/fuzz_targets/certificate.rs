//! Fuzzes `certificate`; what must hold is in `src/lib.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    edgemesh_fuzz::check("certificate", bytes);
});
