//! Agents that run here: found by their command lines, told apart by network namespace.

use std::fs;
use std::path::PathBuf;

use nix::unistd::geteuid;

use crate::proc_net::pids;

/// A running agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) pid: u32,
    /// Where its configuration is.
    pub(super) config: Option<PathBuf>,
    /// It is the child of a guard, and serves; else it is a guard, or serves without one.
    pub(super) guarded: bool,
}

/// Agents in this network namespace, the oldest first.
pub(super) fn agents() -> Vec<Process> {
    let mut agents: Vec<Process> = pids().filter_map(agent).collect();
    agents.sort_unstable_by_key(|process| process.pid);
    agents
}

/// A field of `/proc/PID/status` or of a file like it.
pub(super) fn field(text: &str, name: &str) -> Option<String> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(line.trim().to_owned())
}

fn agent(pid: u32) -> Option<Process> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let mut process = of_line(pid, &String::from_utf8_lossy(&line))?;
    if let Ok(folder) = fs::read_link(format!("/proc/{pid}/cwd")) {
        process.config = process.config.map(|config| folder.join(config));
    }
    let namespace = |of: &str| fs::read_link(format!("/proc/{of}/ns/net"));
    let here = match (namespace("self"), namespace(&pid.to_string())) {
        (Ok(ours), Ok(its)) => ours == its,
        // Root is refused only what is another namespace's; others are refused what is root's.
        _ => !geteuid().is_root(),
    };
    here.then_some(process)
}

/// What a command line, its words parted by NUL, says of an agent.
fn of_line(pid: u32, line: &str) -> Option<Process> {
    let words: Vec<&str> = line.split('\0').collect();
    let program = words.first()?.rsplit('/').next()?;
    if program != "edgemesh" || !words.contains(&"agent") {
        return None;
    }
    let config = words.iter().enumerate().find_map(|(at, word)| match *word {
        "--config" => words.get(at + 1).copied(),
        word => word.strip_prefix("--config="),
    });
    let guarded = words.contains(&"--guarded");
    Some(Process { pid, config: config.map(PathBuf::from), guarded })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_are_told_from_everything_else() {
        let cases = [
            ("/usr/bin/edgemesh\0agent\0--config\0/a\0", Some((Some("/a"), false))),
            ("edgemesh\0agent\0--config=/a\0--guarded\0", Some((Some("/a"), true))),
            ("edgemesh\0status\0", None),
            ("grep\0edgemesh agent\0", None),
            ("edgemesh-agent\0agent\0", None),
            ("", None),
        ];
        for (line, want) in cases {
            let got = of_line(1, line);
            let got = got.as_ref().map(|p| (p.config.as_ref().and_then(|c| c.to_str()), p.guarded));
            assert_eq!(got, want, "{line:?}");
        }
    }
}
