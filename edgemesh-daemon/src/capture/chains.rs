//! All chains that we own, one line each: what renders, loads, heals and removes them walks this
//! table, so that a new chain needs a line here and a function that writes its rules.

use crate::capture::rules::{self, IN, Input, OUT, Text};
use crate::capture::udp::{self, POST, UDP};

/// A chain of ours in the nat table. Each one costs a child process a family whenever it is
/// looked at: rather few chains with many rules than many with few.
pub(super) struct Chain {
    /// Its name, `EDGEMESH_…`. (Other programs have such names too: it is compared whole.)
    pub(super) name: &'static str,
    /// The built-in chain that begins with a jump to it. `None`: another chain of ours leads there.
    pub(super) from: Option<&'static str>,
    /// Writes its rules for one family (`true`: IPv4).
    pub(super) write: fn(&mut Text, &Input, bool),
}

/// All of them. Jumps from one built-in chain stand in the order of this table.
pub(super) const CHAINS: &[Chain] = &[
    Chain { name: OUT, from: Some("OUTPUT"), write: rules::from_host },
    Chain { name: IN, from: Some("PREROUTING"), write: rules::from_pods },
    Chain { name: UDP, from: None, write: udp::services },
    Chain { name: POST, from: Some("POSTROUTING"), write: udp::on_the_way },
];

/// A chain without rules: says that nft had no nat table here before ours. It stays with it, so
/// that whoever removes us, the next agent or the guard too, knows to remove the table as well.
pub(super) const MADE: &str = "EDGEMESH_MADE";

/// Built-in chains and our chain that each jumps to.
pub(super) fn jumps() -> impl DoubleEndedIterator<Item = (&'static str, &'static str)> {
    CHAINS.iter().filter_map(|chain| Some((chain.from?, chain.name)))
}

/// Whether a chain is ours.
pub(super) fn is_own(name: &str) -> bool {
    name == MADE || CHAINS.iter().any(|chain| chain.name == name)
}

/// Whether a rule, as it was listed, leads to a chain of ours.
pub(super) fn leads_to_ours(rule: &str) -> bool {
    rule.rsplit_once(" -j ").is_some_and(|(_, target)| is_own(target))
}

/// Whether a rule, as it was listed, stands in a chain of ours.
pub(super) fn is_ours(rule: &str) -> bool {
    rule.strip_prefix("-A ").and_then(|rest| rest.split(' ').next()).is_some_and(is_own)
}
