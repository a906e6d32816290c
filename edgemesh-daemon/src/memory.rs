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

/// A start touches most of the program and its libraries, and serving a third of that; what is mapped
/// the kernel takes for used. What is needed again is found in the page cache.
fn unmap_program() -> io::Result<()> {
    for code in of_files(&fs::read_to_string("/proc/self/smaps")?) {
        // SAFETY: it is a mapping of a file that nobody can write to and that nobody has written to, so
        // that the kernel finds the same bytes again.
        let result = unsafe {
            libc::madvise(code.start as *mut libc::c_void, code.len(), libc::MADV_DONTNEED)
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// The mappings in `smaps` (`proc_pid_smaps(5)`) that are as they are in their files, and stay so.
fn of_files(smaps: &str) -> Vec<Range<usize>> {
    let (mut all, mut current) = (Vec::new(), None);
    for line in smaps.lines() {
        match line.split_once(':') {
            Some(("Anonymous", said)) => {
                let none = said.trim() == "0 kB";
                all.extend(current.take().filter(|_| none));
            }
            // The names of figures have no blanks; what a mapping begins with does.
            Some((name, _)) if !name.contains(' ') => {}
            Some(_) | None => current = mapping(line),
        }
    }
    all
}

/// The addresses of a file's mapping that may not be written to.
fn mapping(line: &str) -> Option<Range<usize>> {
    let mut words = line.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let is_fixed = matches!(words.next()?, "r-xp" | "r--p") && words.nth(3)?.starts_with('/');
    let at = |hex| usize::from_str_radix(hex, 16).ok();
    Some(at(start)?..at(end)?).filter(|_| is_fixed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_as_it_is_in_its_file_is_meant() {
        let of = |head: &str, anonymous: &str| {
            let figures = format!("Size: 4 kB\nRss: 4 kB\nAnonymous: {anonymous}\nLocked: 0 kB");
            of_files(&format!("{head}\n{figures}\nVmFlags: rd ex mr mw me\n"))
        };
        for (permissions, path, anonymous, want) in [
            ("r-xp", "/usr/bin/edgemesh", "0 kB", true),
            ("r--p", "/usr/lib/libc.so.6", "0 kB", true),
            ("r-xp", "/usr/bin/edgemesh (deleted)", "0 kB", true),
            ("r--p", "/usr/bin/edgemesh", "4 kB", false), // relocated
            ("rw-p", "/usr/bin/edgemesh", "0 kB", false),
            ("rw-s", "/var/lib/edgemesh/meta.db-shm", "0 kB", false),
            ("r-xp", "[vdso]", "0 kB", false),
            ("r--p", "", "0 kB", false),
        ] {
            let head = format!("55d0c000-55e1f000 {permissions} 0000c000 fe:00 97  {path}");
            let got = of(&head, anonymous);
            let wanted = want.then_some(0x55d0_c000..0x55e1_f000);
            assert_eq!(got, Vec::from_iter(wanted), "{head} {anonymous}");
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
