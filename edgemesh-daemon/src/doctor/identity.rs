//! Whether this node can prove who it is, and for how long.

use std::time::Duration;

use crate::api::rfc3339;
use crate::doctor::facts::Facts;
use crate::doctor::report::{Finding, bad, ok, or_ok, warn};
use crate::doctor::uplink::{Known, Shown};
use crate::show::page::counted;

/// Renewed daily, a certificate has four weeks left; with fewer days than this, something is amiss.
const LOW: Duration = Duration::from_secs(14 * DAY);
/// Seconds of a day.
const DAY: u64 = 86_400;
/// What makes a node join anew.
const ANEW: &str = "stop the agent, remove `identity.pem` in `dataDir`, put a fresh token into \
                    `cloud.tokenFile` (`edgemesh token create`), and start it";
/// What renews a certificate.
const RENEW: &str = "nothing but to let the agent reach the cloud: it renews it there by itself";

/// Whether the identity is this node's, and valid.
pub(super) fn identity(facts: &Facts) -> Vec<Finding> {
    let Some((config, known)) = facts.told().zip(facts.uplink.identity.as_ref()) else {
        return ok("none is needed: no `cloud` is configured");
    };
    let grace = config.cloud.as_ref().map(|cloud| cloud.offline_grace).unwrap_or_default();
    match known {
        Known::Nobody => ok("none yet: the node joins as soon as it reaches the cloud"),
        Known::Hidden => {
            vec![warn("it cannot be looked at: only root may", "run `edgemesh doctor` as root")]
        }
        Known::Damaged(error) => vec![bad(error, ANEW)],
        Known::Somebody(shown) => judge(shown, &config.node, grace),
    }
}

fn judge(shown: &Shown, node: &str, grace: Duration) -> Vec<Finding> {
    let Shown { node: named, not_after, now, .. } = shown;
    let mut findings = Vec::new();
    if named != node {
        findings.push(bad(
            format!("the certificate is of node {named}, and this one is called {node}"),
            format!("`node: {named}`; or, to join by the new name: {ANEW}"),
        ));
    }
    if !now.is_sure {
        findings.push(warn(
            format!(
                "the clock is behind the certificate: it is taken for {} until it is set",
                rfc3339(now.seconds)
            ),
            "`timedatectl set-ntp true`, or a battery for the clock",
        ));
    }
    let left = not_after.saturating_sub(now.seconds);
    let over = Duration::from_secs(left.min(0).unsigned_abs());
    let until = rfc3339(*not_after);
    match over {
        Duration::ZERO if left < LOW.as_secs().cast_signed() => findings.push(warn(
            format!("the certificate ends at {until}, and was not renewed for days"),
            RENEW,
        )),
        Duration::ZERO => {}
        over if over <= grace => findings.push(warn(
            format!(
                "the certificate ended {} ago; other nodes accept it for another {}",
                days(over),
                days(grace - over)
            ),
            RENEW,
        )),
        _ => findings.push(bad(
            format!("the certificate ended at {until}: no other node accepts it any more"),
            RENEW,
        )),
    }
    or_ok(findings, format!("{named}, valid until {until}"))
}

fn days(time: Duration) -> String {
    counted(time.as_secs() / DAY, "day")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::report::Level;

    /// Whom the certificate names, the time, and what is found.
    type Case = (&'static str, i64, &'static [(Level, &'static str)]);

    #[test]
    fn certificates_are_judged_by_name_and_time() {
        const DAYS: i64 = 86_400;
        let cases: &[Case] = &[
            ("edge-1", 1, &[(Level::Ok, "edge-1, valid until 1970-01-31T00:00:00Z")]),
            ("edge-1", 16 * DAYS, &[(Level::Ok, "valid until")]),
            ("edge-1", 16 * DAYS + 1, &[(Level::Warn, "was not renewed for days")]),
            ("edge-1", 30 * DAYS, &[(Level::Warn, "was not renewed for days")]),
            (
                "edge-1",
                31 * DAYS,
                &[(Level::Warn, "ended 1 day ago; other nodes accept it for another 9 days")],
            ),
            ("edge-1", 40 * DAYS, &[(Level::Warn, "accept it for another 0 days")]),
            ("edge-1", 40 * DAYS + 1, &[(Level::Bad, "no other node accepts it any more")]),
            ("edge-2", 1, &[(Level::Bad, "of node edge-2, and this one is called edge-1")]),
            ("edge-2", 41 * DAYS, &[(Level::Bad, "of node edge-2"), (Level::Bad, "no other node")]),
        ];
        for (node, now, want) in cases {
            let shown = Shown::at(node, 30 * DAYS, *now);
            let findings = judge(&shown, "edge-1", Duration::from_secs(10 * DAY));
            let have: Vec<_> = findings.iter().map(|f| (f.level, f.found.as_str())).collect();
            let fits = have.len() == want.len()
                && have.iter().zip(*want).all(|(h, w)| h.0 == w.0 && h.1.contains(w.1));
            assert!(fits, "{node} at {now}: {have:?}, not {want:?}");
        }
    }

    #[test]
    fn a_clock_of_1970_is_named() {
        let mut shown = Shown::at("edge-1", 2_592_000, 86_400);
        shown.now.is_sure = false;
        let findings = judge(&shown, "edge-1", Duration::ZERO);
        assert!(findings[0].found.contains("taken for 1970-01-02T00:00:00Z"), "{findings:?}");
    }
}
