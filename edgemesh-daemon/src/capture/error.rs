//! Why capturing does not work, in words that name the fix.

use std::io;
use std::time::Duration;

use crate::capture::lock;

/// What went wrong, where, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// A program we need is not installed.
    #[error(
        "cannot capture: `{program}` is not on the PATH; install it \
         (apt-get install iptables iproute2), or set proxy.intercept: none"
    )]
    Missing {
        /// The program that was looked for.
        program: String,
    },
    /// We are not allowed to.
    #[error(
        "`{command}` is not permitted ({detail}); it needs CAP_NET_ADMIN: run as root, \
         or set proxy.intercept: none"
    )]
    Permission {
        /// The command line that was refused.
        command: String,
        /// Its own words.
        detail: String,
    },
    /// The kernel cannot do NAT with this backend.
    #[error(
        "`{command}`: the kernel has no nat table here ({detail}); load it with \
         `modprobe iptable_nat` (legacy) or `modprobe nft_chain_nat` (nft), or set \
         proxy.intercept: none"
    )]
    NoNat {
        /// The command line that failed.
        command: String,
        /// Its own words.
        detail: String,
    },
    /// Somebody else holds the xtables lock for too long.
    #[error(
        "`{command}` gave up waiting for the xtables lock ({detail}); \
         `fuser -v /run/xtables.lock` names the program that holds it"
    )]
    Locked {
        /// The command line that waited.
        command: String,
        /// Its own words.
        detail: String,
    },
    /// The lock file itself cannot be opened, as in user namespaces.
    #[error(
        "`{command}` cannot open its lock file ({detail}); set XTABLES_LOCKFILE to a file \
         that can be written"
    )]
    LockFile {
        /// The command line that failed.
        command: String,
        /// Its own words.
        detail: String,
    },
    /// A child process was ended because it did not finish.
    #[error("`{command}` did not finish within {after:?} and was ended")]
    TimedOut {
        /// The command line.
        command: String,
        /// How long it was given.
        after: Duration,
    },
    /// A child process failed for a reason of its own.
    #[error("`{command}` failed: {detail}")]
    Failed {
        /// The command line.
        command: String,
        /// Its own words.
        detail: String,
    },
    /// A child process could not be run at all.
    #[error("cannot run `{command}`")]
    Spawn {
        /// The command line.
        command: String,
        /// Why not.
        source: io::Error,
    },
    /// More prefixes than a chain may hold.
    #[error(
        "`{key}` has {count} prefixes of one family after merging neighbours; at most {most} \
         fit, since each new connection walks the chain: name wider prefixes"
    )]
    TooMany {
        /// The configuration key.
        key: &'static str,
        /// How many there are.
        count: usize,
        /// How many there may be.
        most: usize,
    },
}

impl CaptureError {
    /// Sorts a failed command by what it printed: exit codes of these programs say too little.
    pub(super) fn explain(command: String, printed: &str) -> Self {
        let detail = one_line(printed);
        let says = |words: &[&str]| words.iter().any(|word| printed.contains(word));
        if says(&["can't open lock file", "Fatal: can't open lock"]) {
            Self::LockFile { command, detail }
        } else if says(&["xtables lock"]) {
            let held = lock::holder().map(|holder| format!("; held by {holder}"));
            Self::Locked { command, detail: detail + &held.unwrap_or_default() }
        } else if says(&["Permission denied", "Operation not permitted"]) {
            Self::Permission { command, detail }
        } else if says(&["can't initialize", "Table does not exist", "table `nat'", "Protocol not"])
        {
            Self::NoNat { command, detail }
        } else {
            Self::Failed { command, detail }
        }
    }
}

/// The first telling line: these programs follow it with advice that does not fit here.
fn one_line(printed: &str) -> String {
    let mut lines = printed
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#') && !line.starts_with("Try `"));
    lines.next().unwrap_or("it printed nothing").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_programs_print_is_sorted_by_the_fix() {
        let cases = [
            (
                "iptables v1.8.9 (nf_tables): Could not fetch rule set generation id: Permission denied (you must be root)",
                "needs CAP_NET_ADMIN",
            ),
            ("RTNETLINK answers: Operation not permitted", "proxy.intercept: none"),
            (
                "iptables v1.8.9 (legacy): can't initialize iptables table `nat': Table does not exist (do you need to insmod?)",
                "modprobe iptable_nat",
            ),
            (
                "Another app is currently holding the xtables lock; still 1s 0us time ahead",
                "fuser -v /run/xtables.lock",
            ),
            (
                "Fatal: can't open lock file /run/xtables.lock: Permission denied",
                "XTABLES_LOCKFILE",
            ),
            ("iptables-restore: line 7 failed\n", "failed: iptables-restore: line 7 failed"),
            ("", "it printed nothing"),
        ];
        for (printed, want) in cases {
            let text = CaptureError::explain("iptables -t nat".into(), printed).to_string();
            assert!(text.contains(want), "{printed}\n -> {text}\n lacks {want}");
            assert!(text.contains("iptables -t nat"), "{text} does not say what was run");
        }
    }
}
