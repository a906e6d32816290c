//! Who holds the lock of legacy iptables: the kernel knows, and whoever waits wants to.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The lock file that iptables uses unless told otherwise.
const FILE: &str = "/run/xtables.lock";

/// Process that holds the lock now, as `pid 12 (iptables-restor)`. `None`: nobody, or it cannot
/// be told (a process of another pid namespace).
pub fn holder() -> Option<String> {
    holder_of(Path::new(FILE))
}

/// The same for any file that is locked by flock.
pub fn holder_of(file: &Path) -> Option<String> {
    let inode = fs::metadata(file).ok()?.ino();
    let pid = pid_of(&fs::read_to_string("/proc/locks").ok()?, inode)?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    Some(format!("pid {pid} ({})", name.trim()))
}

/// The process that holds the lock of the file with `inode`; those that wait for it are marked `->`.
fn pid_of(locks: &str, inode: u64) -> Option<u32> {
    let end = format!(":{inode}");
    let held = |line: &&str| {
        let mut words = line.split_whitespace();
        words.nth(1) == Some("FLOCK") && words.any(|word| word.ends_with(&end))
    };
    locks.lines().find(held)?.split_whitespace().nth(4)?.parse().ok().filter(|pid| *pid > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_is_told_from_those_who_wait() {
        let locks = "1: POSIX  ADVISORY  WRITE 11 00:1b:77 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 12 00:1b:777 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 13 00:1b:77 0 EOF\n\
                     3: -> FLOCK  ADVISORY  WRITE 14 00:1b:77 0 EOF\n";
        for (inode, want) in [(77, Some(13)), (777, Some(12)), (7, None)] {
            assert_eq!(pid_of(locks, inode), want, "{inode}");
        }
    }
}
