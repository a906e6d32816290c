//! Sockets of this network namespace, and the processes that hold them, as `/proc` tells.

use std::collections::HashMap;
use std::fs;

/// The state of a listening TCP socket in `/proc/net/tcp`.
const LISTEN: &str = "0A";

/// A socket that others cannot bind beside: a TCP listener, or a bound UDP socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Socket {
    /// `tcp` or `udp`.
    pub(crate) protocol: &'static str,
    /// The address in the kernel's hexadecimal.
    pub(crate) address: String,
    pub(crate) port: u16,
    pub(crate) inode: u64,
}

/// The sockets of one table: `tcp`, `tcp6`, `udp` or `udp6`. A kernel without IPv6 has not all.
pub(crate) fn bound(table: &str) -> Vec<Socket> {
    let text = fs::read_to_string(format!("/proc/thread-self/net/{table}")).unwrap_or_default();
    let protocol = if table.starts_with("tcp") { "tcp" } else { "udp" };
    text.lines().skip(1).filter_map(|line| socket(protocol, line)).collect()
}

/// A line such as `0: 0100007F:3A99 00000000:0000 0A … uid timeout inode`.
fn socket(protocol: &'static str, line: &str) -> Option<Socket> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (address, port) = words.get(1)?.split_once(':')?;
    if protocol == "tcp" && *words.get(3)? != LISTEN {
        return None;
    }
    let port = u16::from_str_radix(port, 16).ok()?;
    Some(Socket { protocol, address: address.into(), port, inode: words.get(9)?.parse().ok()? })
}

/// Which process holds which socket, by inode, as far as we may see: its id and its name.
pub(crate) fn owners() -> HashMap<u64, (u32, String)> {
    let mut owners = HashMap::new();
    for pid in pids() {
        let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        for target in files.filter_map(|file| fs::read_link(file.path()).ok()) {
            let inode = target.to_str().and_then(|t| t.strip_prefix("socket:[")?.strip_suffix(']'));
            if let Some(inode) = inode.and_then(|inode| inode.parse().ok()) {
                let name = || {
                    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
                    name.trim().to_owned()
                };
                // The first, in the order of ids: a child that is about to become another program has
                // its parent's sockets for a moment.
                owners.entry(inode).or_insert_with(|| (pid, name()));
            }
        }
    }
    owners
}

/// All processes that can be seen.
pub(crate) fn pids() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_are_told_from_connections() {
        let row = |state: &str| {
            format!("0: 0100007F:3A99 00000000:0000 {state} 00000000:00000000 00:0 0 0 0 77 1")
        };
        let at = socket("tcp", &row(LISTEN)).unwrap();
        assert_eq!((&*at.address, at.port, at.inode), ("0100007F", 15001, 77));
        assert_eq!(socket("tcp", &row("01")), None);
        assert_eq!(socket("udp", &row("07")).map(|at| at.port), Some(15001));
        for line in ["  sl  local_address rem_address   st tx_queue", ""] {
            assert_eq!(socket("tcp", line), None, "{line}");
        }
    }
}
