//! Gives memory back to the system, after work that needed much of it for a moment.
#![allow(
    unsafe_code,
    reason = "calls into the C library; 1,000 Services need 24 MiB without the first, and half of that with it (benches/README.md)"
)]

use std::fs;
use std::io;
use std::ops::Range;

use nix::libc;

/// Gives back what is free, and what of the program was needed for that work alone.
pub(crate) fn give_back() {
    trim();
    if let Err(error) = unmap_program() {
        tracing::debug!(%error, "the program's pages stay mapped");
    }
}

/// Reading manifests and loading the store leave holes all over glibc's arenas; freed memory
/// would otherwise stay resident for ever, on machines that have little.
fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim takes its locks itself, may be called from any thread at any time, and
    // touches nothing but free memory.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// A start touches most of the program, and serving a third of that; what is mapped the kernel
/// takes for used. What is needed again is found in the page cache.
fn unmap_program() -> io::Result<()> {
    let own = fs::read_link("/proc/self/exe")?;
    let maps = fs::read_to_string("/proc/self/maps")?;
    for code in maps.lines().filter_map(|line| code_of(line, &own.to_string_lossy())) {
        // SAFETY: it is a mapping of this very file that nobody can write to, through which the kernel
        // finds the same bytes again: a file that runs cannot be written to either.
        let result = unsafe {
            libc::madvise(code.start as *mut libc::c_void, code.len(), libc::MADV_DONTNEED)
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// The addresses of a line of `/proc/PID/maps` (`proc_pid_maps(5)`) that is code of the file `own`.
fn code_of(line: &str, own: &str) -> Option<Range<usize>> {
    let (head, path) = line.split_once('/')?;
    let mut words = head.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let is_code = words.next()? == "r-xp" && path == own.strip_prefix('/')?;
    let at = |hex| usize::from_str_radix(hex, 16).ok();
    Some(at(start)?..at(end)?).filter(|_| is_code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_of_the_file_is_meant() {
        let line = "55d0c000-55e1f000 r-xp 0000c000 fe:00 97  /usr/bin/edgemesh";
        assert_eq!(code_of(line, "/usr/bin/edgemesh"), Some(0x55d0_c000..0x55e1_f000));
        for other in [
            "55d0c000-55e1f000 r--p 0000c000 fe:00 97  /usr/bin/edgemesh",
            "55d0c000-55e1f000 rw-p 0000c000 fe:00 97  /usr/bin/edgemesh",
            "55d0c000-55e1f000 r-xp 0000c000 fe:00 97  /usr/bin/edgemesh (deleted)",
            "7f00c000-7f01f000 r-xp 0000c000 fe:00 97  /usr/lib/libc.so.6",
            "7ffd5000-7ffd7000 r-xp 00000000 00:00 0   [vdso]",
            "",
        ] {
            assert_eq!(code_of(other, "/usr/bin/edgemesh"), None, "{other}");
        }
    }

    #[test]
    fn what_is_not_used_is_not_mapped() {
        let resident = || {
            let status = fs::read_to_string("/proc/self/status").unwrap();
            let line = status.lines().find_map(|line| line.strip_prefix("RssFile:")).unwrap();
            line.trim().trim_end_matches(" kB").parse::<usize>().unwrap()
        };
        // Whatever it was: of it, the test goes on to need little.
        let before = resident();
        give_back();
        let after = resident();
        assert!(after < before, "{before} kB before, {after} kB after");
    }
}
