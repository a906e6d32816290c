//! Checks of the machine: data folder, rights, limits, clock.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use nix::sys::statvfs::{FsFlags, statvfs};

use crate::capture::lock::holder_of;
use crate::config::AgentConfig;
use crate::doctor::facts::Facts;
use crate::doctor::processes::{Process, field};
use crate::doctor::report::{Finding, bad, ok, or_ok, warn};

/// CAP_NET_BIND_SERVICE
const BIND: u32 = 10;
/// CAP_NET_ADMIN
const NET_ADMIN: u32 = 12;
/// Below this much free space the metastore may soon be read-only.
const SPACE_BAD: u64 = 16 << 20;
/// Below this much it is time to look.
const SPACE_LOW: u64 = 128 << 20;
/// Fewer open files than this are too few for a node.
const FILES_FEW: u64 = 4096;
/// A clock before this (2024-01-01) was never set.
const CLOCK_LEAST: Duration = Duration::from_secs(1_704_067_200);

/// Seconds of a mean year.
const YEAR: u64 = 31_556_952;

/// What was seen of the machine.
#[derive(Clone, Debug, Default)]
pub(super) struct Machine {
    pub(super) route_localnet: bool,
    data: Option<Data>,
    /// Effective capabilities of the agent, or ours where none runs.
    capabilities: Option<u64>,
    /// Tracked connections, and how many there may be.
    conntrack: Option<(u64, u64)>,
    /// Files that the agent has open, and how many it may.
    files: Option<(u64, u64)>,
}

/// The data folder.
#[derive(Clone, Debug, Default)]
struct Data {
    exists: bool,
    mode: u32,
    read_only: bool,
    free: u64,
    /// Who holds its lock.
    holder: Option<String>,
}

impl Machine {
    /// Looks at what the checks need.
    pub(super) fn look(config: Option<&AgentConfig>, agents: &[Process]) -> Self {
        // The youngest: an older one may only let its last connections end.
        let agent = agents.iter().rev().find(|agent| agent.guarded).or_else(|| agents.last());
        let of = |agent: &Process| agent.pid.to_string();
        let pid = agent.map_or_else(|| "self".to_owned(), of);
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        Self {
            route_localnet: number("/proc/sys/net/ipv4/conf/all/route_localnet") == Some(1),
            data: config.map(|config| Data::look(&config.data_dir)),
            capabilities: field(&status, "CapEff")
                .and_then(|hex| u64::from_str_radix(&hex, 16).ok()),
            conntrack: number("/proc/sys/net/netfilter/nf_conntrack_count")
                .zip(number("/proc/sys/net/netfilter/nf_conntrack_max")),
            files: agent.and_then(|_| files(&pid)),
        }
    }
}

impl Data {
    fn look(folder: &Path) -> Self {
        let Ok(found) = fs::metadata(folder) else { return Self::default() };
        let space = statvfs(folder).ok();
        Self {
            exists: true,
            mode: found.permissions().mode() & 0o777,
            read_only: space.is_some_and(|space| space.flags().contains(FsFlags::ST_RDONLY)),
            free: space
                .map_or(u64::MAX, |s| s.blocks_available().saturating_mul(s.fragment_size())),
            holder: holder_of(&folder.join("lock")),
        }
    }
}

/// Whether the data folder can be used, and who uses it.
pub(super) fn data_folder(facts: &Facts) -> Vec<Finding> {
    let Some((data, config)) = facts.machine.data.as_ref().zip(facts.told()) else {
        return ok("not looked at: the configuration cannot be read");
    };
    let folder = config.data_dir.display();
    if !data.exists {
        return vec![warn(
            format!("{folder} does not exist yet"),
            "the agent makes it at its start",
        )];
    }
    let mut findings = Vec::new();
    if data.read_only {
        let fix = "mount it for writing, or point `dataDir` elsewhere";
        findings.push(bad(format!("{folder} is on a read-only file system"), fix));
    } else if data.free < SPACE_BAD {
        let found = format!("{} KiB are free in {folder}", data.free >> 10);
        findings.push(bad(found, "free some space: changes can be served, but not kept"));
    } else if data.free < SPACE_LOW {
        let found = format!("{} MiB are free in {folder}", data.free >> 20);
        findings.push(warn(found, "free some space"));
    }
    if data.mode & 0o077 != 0 {
        let found =
            format!("others may enter {folder} (mode {:03o}), where keys are kept", data.mode);
        findings.push(warn(found, format!("`chmod 700 {folder}`")));
    }
    if let (Some(holder), true) = (&data.holder, facts.agents.is_empty()) {
        let found = format!("{folder} is locked by {holder}, which is no agent of this namespace");
        findings.push(bad(found, "end it, or give each agent a `dataDir` of its own"));
    }
    let held = data.holder.as_ref().map(|holder| format!(", held by {holder}"));
    or_ok(findings, format!("{folder}: {} MiB free{}", data.free >> 20, held.unwrap_or_default()))
}

/// Whether the agent may do what it has to.
pub(super) fn rights(facts: &Facts) -> Vec<Finding> {
    let who = if facts.agents.is_empty() { "this process" } else { "the agent" };
    let Some(held) = facts.machine.capabilities else { return ok("cannot be told here") };
    let has = |bit: u32| held >> bit & 1 == 1;
    let mut findings = Vec::new();
    if facts.captures() && !has(NET_ADMIN) {
        let fix = "run as root or with AmbientCapabilities=CAP_NET_ADMIN, or proxy.intercept: none";
        findings.push(bad(format!("{who} lacks CAP_NET_ADMIN, which capture needs"), fix));
    }
    let low = facts.told().is_some_and(|c| c.dns.listen.iter().any(|at| at.port() < 1024));
    if low && !has(BIND) {
        let found = format!("{who} lacks CAP_NET_BIND_SERVICE, which port 53 in dns.listen needs");
        findings.push(bad(found, "run as root, or listen on a port above 1023"));
    }
    or_ok(findings, format!("{who} has the capabilities it needs"))
}

/// Whether the kernel can track more connections.
pub(super) fn conntrack(facts: &Facts) -> Vec<Finding> {
    facts.machine.conntrack.map_or_else(|| ok("no table is kept here"), tracked)
}

fn tracked((count, most): (u64, u64)) -> Vec<Finding> {
    let found = format!("{count} of {most} connections tracked");
    let fix = format!("`sysctl -w net.netfilter.nf_conntrack_max={}`", most.saturating_mul(2));
    match share(count, most) {
        90.. => vec![bad(format!("{found}: new ones are about to be dropped"), fix)],
        70..90 => vec![warn(found, fix)],
        _ => ok(found),
    }
}

/// Whether the agent can open more files.
pub(super) fn open_files(facts: &Facts) -> Vec<Finding> {
    let unseen = || ok("not looked at: no agent that may be looked into");
    facts.machine.files.map_or_else(unseen, opened)
}

fn opened((open, most): (u64, u64)) -> Vec<Finding> {
    let found = format!("{open} of {most} files open");
    let fix = "LimitNOFILE=1048576 in the unit, then restart the agent";
    match share(open, most) {
        90.. => vec![bad(format!("{found}: connections are about to be refused"), fix)],
        _ if most < FILES_FEW => vec![warn(format!("{found}; a connection needs two"), fix)],
        70..90 => vec![warn(found, fix)],
        _ => ok(found),
    }
}

/// Whether the clock was ever set.
pub(super) fn clock(facts: &Facts) -> Vec<Finding> {
    set(facts.now.duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn set(since: Duration) -> Vec<Finding> {
    if since < CLOCK_LEAST {
        let days = since.as_secs() / 86_400;
        let found = format!("the clock was never set: it is {days} days after 1970");
        return vec![warn(found, "`timedatectl set-ntp true`, or a battery for the clock")];
    }
    ok(format!("was set: it is {}", 1970 + since.as_secs() / YEAR))
}

fn share(count: u64, most: u64) -> u64 {
    count.saturating_mul(100).checked_div(most).unwrap_or(0)
}

fn number(file: &str) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

fn files(pid: &str) -> Option<(u64, u64)> {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count();
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).ok()?;
    let soft = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    Some((open as u64, soft.split_whitespace().next()?.parse().unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::report::Level;

    #[test]
    fn what_runs_out_is_told_before_it_has() {
        let cases = [
            (tracked((69, 100)), Level::Ok, "69 of 100"),
            (tracked((70, 100)), Level::Warn, "nf_conntrack_max=200"),
            (tracked((90, 100)), Level::Bad, "about to be dropped"),
            (tracked((0, 0)), Level::Ok, "0 of 0"),
            (opened((10, 1024)), Level::Warn, "a connection needs two"),
            (opened((10, 4096)), Level::Ok, "10 of 4096"),
            (opened((3000, 4096)), Level::Warn, "LimitNOFILE"),
            (opened((1000, 1024)), Level::Bad, "about to be refused"),
            (set(Duration::from_secs(3 * 86_400)), Level::Warn, "it is 3 days after 1970"),
            (set(Duration::from_secs(1_795_000_000)), Level::Ok, "it is 2026"),
        ];
        for (findings, level, words) in cases {
            let [finding] = findings.as_slice() else { panic!("{findings:?}") };
            assert_eq!(finding.level, level, "{finding:?}");
            assert!(format!("{} {}", finding.found, finding.fix).contains(words), "{finding:?}");
        }
    }
}
