//! Checks of rules, device and routes, straight from the kernel: also with the agent down.

use std::collections::BTreeSet;

use crate::capture::lock as xtables;
use crate::capture::rivals::owner_of;
use crate::capture::survey::Table;
use crate::doctor::facts::Facts;
use crate::doctor::report::{Finding, bad, ok, or_ok, warn};

/// Said where nothing is meant to be captured.
const OFF: &str = "proxy.intercept is none: not needed";
/// Said where the rules cannot be read.
const UNREAD: &str = "not looked at: iptables cannot be asked, see above";
/// Said where there is nothing that could be broken.
const IDLE: &str = "not in place, since no agent runs";
/// What puts back what is missing.
const PUT_BACK: &str = "a running agent puts it back within seconds; without one: \
    `systemctl restart edgemesh-agent`";

/// Whether there is an iptables.
pub(super) fn programs(facts: &Facts) -> Vec<Finding> {
    if !facts.captures() {
        return ok(OFF);
    }
    if facts.kernel.versions.is_empty() {
        return vec![bad(
            "iptables is not on the PATH",
            "`apt-get install iptables iproute2`, or proxy.intercept: none",
        )];
    }
    match &facts.kernel.tables {
        Err(error) => vec![bad(error, "run the doctor as root; what the line names")],
        Ok(_) => ok(format!("{} is what an agent uses here", facts.kernel.chosen)),
    }
}

/// Whether rules stand in both backends at once.
pub(super) fn both_backends(facts: &Facts) -> Vec<Finding> {
    if facts.kernel.tables.is_err() {
        return ok(UNREAD);
    }
    let count = |backend: &str, of: fn(&Table) -> usize| -> usize {
        tables(facts).filter(|table| table.backend == backend).map(of).sum()
    };
    let foreign = [count("nft", Table::foreign), count("legacy", Table::foreign)];
    let ours = |table: &Table| usize::from(table.has_ours());
    let mut findings = Vec::new();
    if foreign.iter().all(|count| *count > 0) {
        findings.push(warn(
            format!(
                "others have NAT rules in nft ({}) and in legacy ({}): both are walked, and which \
                 first is luck",
                foreign[0], foreign[1]
            ),
            "let all programs use one (`update-alternatives --config iptables`), then reboot",
        ));
    }
    if count("nft", ours) > 0 && count("legacy", ours) > 0 {
        findings.push(bad(
            "our chains are in nft and in legacy",
            "`systemctl restart edgemesh-agent`: it removes those it does not use",
        ));
    }
    or_ok(findings, "one backend holds all NAT rules")
}

/// Whether somebody holds the lock of legacy iptables.
pub(super) fn lock(_: &Facts) -> Vec<Finding> {
    match xtables::holder() {
        None => ok("nobody holds the xtables lock"),
        Some(holder) => vec![warn(
            format!("the xtables lock is held by {holder}: legacy rules cannot be changed now"),
            "look again; if it stays, end that process",
        )],
    }
}

/// Whether our chains and jumps are whole, or gone where they are not wanted.
pub(super) fn chains(facts: &Facts) -> Vec<Finding> {
    if !facts.captures() {
        let left = tables(facts).filter(|table| table.has_ours());
        let left = left.map(|table| {
            bad(
                format!("{}: rules of ours, though proxy.intercept is none", table.name()),
                "`edgemesh redirect remove --config FILE`",
            )
        });
        return or_ok(left.collect(), OFF);
    }
    if facts.is_idle() {
        return ok(IDLE);
    }
    if facts.kernel.tables.is_err() {
        return ok(UNREAD);
    }
    let findings = expected(facts).filter_map(|table| {
        let lacks = table.lacks(facts.kernel.rules.as_ref());
        let found = || format!("{}: {}", table.name(), lacks.join("; "));
        (!lacks.is_empty()).then(|| bad(found(), PUT_BACK))
    });
    or_ok(findings.collect(), "chains and jumps are whole")
}

/// Whether our jumps come first, and who is behind them.
pub(super) fn order(facts: &Facts) -> Vec<Finding> {
    if !facts.captures() {
        return ok(OFF);
    }
    if facts.kernel.tables.is_err() {
        return ok(UNREAD);
    }
    let findings = expected(facts).flat_map(|table| {
        table.rivals().into_iter().map(|(from, rule)| {
            let owner = owner_of(&rule).map(|owner| format!(" of {owner}")).unwrap_or_default();
            bad(
                format!("{}: in {from} the rule{owner} `{rule}` stands before ours", table.name()),
                "a running agent goes first within 5 s; where it comes back again and again, stop \
                 what inserts it",
            )
        })
    });
    let lines = || expected(facts).flat_map(|table| table.saved.lines());
    let jumps = lines().filter(|l| l.starts_with("-A OUTPUT ") || l.starts_with("-A PREROUTING "));
    let behind: BTreeSet<_> = jumps.filter_map(owner_of).collect();
    let behind: Vec<_> = behind.into_iter().collect();
    let well = match behind.as_slice() {
        [] => "ours are first, and nobody else is there".to_owned(),
        some => format!("ours are first; behind them: {}", some.join(", ")),
    };
    or_ok(findings.collect(), well)
}

/// Whether our device is there and carries our addresses.
pub(super) fn device(facts: &Facts) -> Vec<Finding> {
    let well = || {
        let own: Vec<_> = facts.own().iter().map(ToString::to_string).collect();
        format!("carries {}", own.join(", "))
    };
    lacking(facts, &facts.kernel.device, well)
}

/// Whether the routes of last resort are there.
pub(super) fn routes(facts: &Facts) -> Vec<Finding> {
    lacking(facts, &facts.kernel.routes, || "routes of last resort are whole".into())
}

fn lacking(
    facts: &Facts,
    lacks: &Result<Vec<String>, String>,
    well: impl FnOnce() -> String,
) -> Vec<Finding> {
    match lacks {
        _ if !facts.captures() => ok(OFF),
        _ if facts.is_idle() => ok(IDLE),
        Err(error) => vec![bad(error, "install iproute2; run the doctor as root")],
        Ok(lacks) if lacks.is_empty() => ok(well()),
        Ok(lacks) => vec![bad(lacks.join("; "), PUT_BACK)],
    }
}

/// We need no `route_localnet`; where it is on, loopback can be reached from the network.
pub(super) fn route_localnet(facts: &Facts) -> Vec<Finding> {
    if facts.machine.route_localnet {
        return vec![warn(
            "route_localnet is on: neighbours can reach what listens on loopback. We do not need it",
            "`sysctl -w net.ipv4.conf.all.route_localnet=0`, unless kube-proxy wants it",
        )];
    }
    ok("route_localnet is off, and not needed")
}

/// Whether NodePorts are ours.
pub(super) fn node_ports(facts: &Facts) -> Vec<Finding> {
    match facts.told() {
        Some(config) if config.proxy.node_ports => ok("NodePorts and external IPs are captured"),
        _ => ok("NodePorts and external IPs are left alone (proxy.nodePorts: false)"),
    }
}

fn tables(facts: &Facts) -> impl Iterator<Item = &Table> {
    facts.kernel.tables.iter().flatten()
}

/// Tables that should hold our rules: of the agent's backend, or of the one that holds some, or of
/// the one an agent would choose; IPv6 unless the agent says that it has none.
fn expected(facts: &Facts) -> impl Iterator<Item = &Table> {
    let agent = facts.agent.as_ref().ok().map(|answers| &answers.status.capture);
    let holding = || tables(facts).find(|table| table.has_ours()).map(|table| table.backend);
    let by_version = |version: &str| if version.contains("nf_tables") { "nft" } else { "legacy" };
    let backend = agent.filter(|capture| !capture.backend.is_empty());
    let backend = backend.map(|capture| by_version(&capture.backend));
    let backend = backend.or_else(holding).unwrap_or_else(|| by_version(&facts.kernel.chosen));
    let without_ipv6 = agent.is_some_and(|capture| {
        capture.notes.iter().any(|note| note.contains("IPv6 is not captured"))
    });
    tables(facts).filter(move |table| table.backend == backend && (table.v4 || !without_ipv6))
}
