//! Gives memory that is free back to the system, after work that needed much of it for a moment.
#![allow(
    unsafe_code,
    reason = "the one call into the C library; 1,000 Services need 24 MiB without it, and half of that with it (benches/README.md)"
)]

/// Reading manifests and loading the store leave holes all over glibc's arenas; freed memory
/// would otherwise stay resident for ever, on machines that have little.
pub(super) fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim takes its locks itself, may be called from any thread at any time, and
    // touches nothing but free memory.
    unsafe {
        nix::libc::malloc_trim(0);
    }
}
