//! Rules of others that stand before ours: which of them matter, and whose they are.

use std::fmt;
use std::time::{Duration, Instant};

use crate::capture::chains::leads_to_ours;

/// Rivals that are remembered.
const MOST: usize = 16;
/// A rival that kept still for so long is no news.
const FORGET_AFTER: Duration = Duration::from_secs(600);

/// Whose a chain is, by how its name begins; the first line that fits counts.
const OWNERS: &[(&str, &str)] = &[
    ("EDGEMESH-", "EdgeMesh (Go)"),
    ("EDGE-MESH", "EdgeMesh (Go)"),
    ("KUBE-PORTALS-", "EdgeMesh (Go)"),
    ("KUBE-", "kube-proxy"),
    ("ISTIO_", "Istio"),
    ("PROXY_INIT_", "Linkerd"),
    ("CILIUM_", "Cilium"),
    ("OLD_CILIUM_", "Cilium"),
    ("cali-", "Calico"),
    ("FLANNEL-", "flannel"),
    ("CNI-", "a CNI plug-in"),
    ("DOCKER", "Docker"),
];

/// A rule that keeps putting itself before ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rival {
    /// `OUTPUT` or `PREROUTING`.
    pub from: &'static str,
    /// IPv4, else IPv6.
    pub v4: bool,
    /// The rule, as iptables lists it.
    pub rule: String,
    /// How often our jump was moved before it.
    pub moved: u32,
    /// When it was last seen before ours.
    pub seen: Instant,
}

/// Rivals seen lately.
#[derive(Debug, Default)]
pub(super) struct Rivals(Vec<Rival>);

impl Rivals {
    /// Notes a rival before our jump, and whether that was moved.
    pub(super) fn note(
        &mut self,
        now: Instant,
        from: &'static str,
        v4: bool,
        rule: &str,
    ) -> &mut u32 {
        let same = |r: &Rival| r.from == from && r.v4 == v4 && r.rule == rule;
        let at = self.0.iter().position(same).unwrap_or_else(|| {
            self.0.truncate(MOST - 1);
            self.0.push(Rival { from, v4, rule: rule.to_owned(), moved: 0, seen: now });
            self.0.len() - 1
        });
        let rival = &mut self.0[at];
        rival.seen = now;
        &mut rival.moved
    }

    /// Those of the last minutes.
    pub(super) fn lately(&self, now: Instant) -> impl Iterator<Item = &Rival> {
        self.0.iter().filter(move |r| now.saturating_duration_since(r.seen) < FORGET_AFTER)
    }
}

impl fmt::Display for Rival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = if self.v4 { "IPv4" } else { "IPv6" };
        let owner = owner_of(&self.rule).map(|owner| format!(" of {owner}")).unwrap_or_default();
        let times = if self.moved == 1 { "once" } else { "again and again" };
        write!(
            f,
            "rival in {} ({family}): the rule{owner} `{}` stood before ours; ours was moved \
             before it {times} ({})",
            self.from, self.rule, self.moved
        )
    }
}

/// Whose chain a rule leads to, or stands in.
pub fn owner_of(rule: &str) -> Option<&'static str> {
    let words = || rule.split_whitespace();
    let target = words().zip(words().skip(1)).find(|(word, _)| matches!(*word, "-j" | "-g"));
    let chain = words().nth(1).filter(|_| rule.starts_with("-A "));
    [target.map(|(_, name)| name), chain].into_iter().flatten().find_map(|name| {
        OWNERS.iter().find(|(start, _)| name.starts_with(start)).map(|(_, owner)| *owner)
    })
}

/// Whether a rule before ours may take connections that we should see: it leads on, and not only
/// for addresses of this host (as the rules for published container ports do).
pub(super) fn takes_the_same(rule: &str) -> bool {
    let leads_on = rule.contains(" -j ") || rule.contains(" -g ");
    let harmless = [" -j LOG", " -j MARK", " -j CONNMARK", " -j NFLOG", "--dst-type LOCAL"];
    leads_on && !leads_to_ours(rule) && !harmless.iter().any(|word| rule.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rivals_are_told_from_bystanders() {
        let cases = [
            (
                "-A OUTPUT -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES",
                true,
                Some("kube-proxy"),
            ),
            ("-A OUTPUT -p tcp -j ISTIO_OUTPUT", true, Some("Istio")),
            ("-A PREROUTING -j EDGEMESH-PORTALS-CONTAINER", true, Some("EdgeMesh (Go)")),
            ("-A PREROUTING -j KUBE-PORTALS-CONTAINER", true, Some("EdgeMesh (Go)")),
            ("-A OUTPUT -j EDGEMESH_OUT", false, None),
            ("-A OUTPUT -j EDGEMESH_OUTBOUND", true, None),
            (
                "-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER",
                false,
                Some("Docker"),
            ),
            ("-A KUBE-SERVICES -d 10.0.0.1/32 -j DNAT", true, Some("kube-proxy")),
            ("-A OUTPUT -j LOG", false, None),
            ("-A OUTPUT -p tcp", false, None),
        ];
        for (rule, takes, owner) in cases {
            assert_eq!(takes_the_same(rule), takes, "{rule}");
            assert_eq!(owner_of(rule), owner, "{rule}");
        }
    }

    #[test]
    fn rivals_are_counted_and_bounded() {
        let now = edgemesh_core::io::now();
        let mut rivals = Rivals::default();
        for i in 0..100 {
            *rivals.note(now, "OUTPUT", true, &format!("-A OUTPUT -j R{i}")) += 1;
        }
        assert_eq!(rivals.lately(now).count(), MOST);
        *rivals.note(now, "OUTPUT", true, "-A OUTPUT -j R0") += 1;
        assert!(rivals.lately(now).any(|r| r.moved == 2 && r.to_string().contains("again")));
        assert_eq!(rivals.lately(now + FORGET_AFTER).count(), 0);
    }
}
