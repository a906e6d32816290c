//! Limits of the process: as many open files as the system grants, and how many connections fit
//! into those and into the memory.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Files that are not connections: store, listeners, logs, and room.
const SET_ASIDE: u64 = 256;
/// A connection and its other half.
const FILES_A_CONNECTION: u64 = 2;
/// More connections than this nobody has tried.
const MOST: u64 = 200_000;
/// Memory that is set aside for a connection: two sockets of the kernel and what is under way
/// between them. An idle one takes a fraction.
const BYTES_A_CONNECTION: u64 = 32 * 1024;
/// Connections may take this share of the memory, one in so many bytes.
const SHARE_OF_MEMORY: u64 = 2;

/// Raises the limit on open files to what is allowed, and returns how many connections fit.
pub(super) fn raise_open_files() -> usize {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return 1024 };
    let open = match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(_) => soft,
    };
    let files = open.saturating_sub(SET_ASIDE) / FILES_A_CONNECTION;
    let fits =
        memory().map_or(files, |bytes| files.min(bytes / SHARE_OF_MEMORY / BYTES_A_CONNECTION));
    usize::try_from(fits.clamp(64, MOST)).unwrap_or(1024)
}

/// Memory that this process may use: the machine's, or what its control group leaves of it.
fn memory() -> Option<u64> {
    let machine = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| total(&text));
    let group = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let group = group.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
    let limit = |folder: &str| {
        std::fs::read_to_string(format!("/sys/fs/cgroup{folder}/memory.max"))
            .ok()?
            .trim()
            .parse()
            .ok()
    };
    // In a container the group is the root of what it sees.
    machine.into_iter().chain(limit(group)).chain(limit("")).min()
}

fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read() {
        assert_eq!(total("MemTotal:        2048 kB\nMemFree: 1 kB\n"), Some(2 << 20));
        assert_eq!(total("MemFree: 1 kB\n"), None);
        assert!(memory().is_some_and(|bytes| bytes > 1 << 20));
    }
}
