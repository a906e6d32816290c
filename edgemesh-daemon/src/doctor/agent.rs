//! Checks of the configuration and of what the agent says about itself.

use std::collections::BTreeMap;

use crate::api::{
    BackendView, BreakerState, CaptureState, HealthState, HealthView, RouteView, ServiceView,
    Severity, StoreState,
};
use crate::doctor::facts::{Answers, Facts};
use crate::doctor::report::{Finding, bad, ok, or_ok, warn};

/// Findings of one kind that are listed; the rest is counted.
const LISTED: usize = 8;
/// What starts an agent.
const START: &str = "`systemctl start edgemesh-agent`, or `edgemesh agent --config FILE`";
/// Said where a check needs the agent.
const UNASKED: &str = "not looked at: no agent answers";

/// Whether the configuration is one.
pub(super) fn config(facts: &Facts) -> Vec<Finding> {
    let fix = "correct it; `edgemesh check --config FILE` prints what it amounts to";
    match (&facts.config, &facts.file) {
        (Err(problems), _) => problems.iter().map(|problem| bad(problem, fix)).collect(),
        (Ok(_), Some(file)) => ok(format!("{} is valid", file.display())),
        (Ok(_), None) => ok("there is no file: the defaults hold"),
    }
}

/// Whether the agent runs and is ready.
pub(super) fn reachable(facts: &Facts) -> Vec<Finding> {
    match &facts.agent {
        Ok(answers) if answers.status.ready => {
            let status = &answers.status;
            ok(format!("ready; node {}, revision {}", status.node, status.revision))
        }
        Ok(answers) => {
            let missing = answers.status.not_ready.iter();
            missing.map(|line| bad(format!("not ready: {line}"), "see the lines below")).collect()
        }
        Err(reason) => vec![silent(facts, reason)],
    }
}

fn silent(facts: &Facts, reason: &str) -> Finding {
    let tables = facts.kernel.tables.iter().flatten();
    if let Some(agent) = facts.agents.first() {
        let found = format!("pid {} runs, and does not answer: {reason}", agent.pid);
        return bad(found, "its log says why: `journalctl -u edgemesh-agent`; name its --admin");
    }
    if tables.into_iter().any(|table| table.has_ours()) {
        return bad(
            format!("{reason}. The rules of one are in place: what they capture is refused"),
            format!("{START}; or `edgemesh redirect remove --config FILE`"),
        );
    }
    bad(reason, START)
}

/// Whether there is more than one.
pub(super) fn second(facts: &Facts) -> Vec<Finding> {
    let first: Vec<_> = facts.agents.iter().filter(|agent| !agent.guarded).collect();
    let named = |process: &&crate::doctor::processes::Process| {
        let config = process.config.as_ref().map(|c| format!(" ({})", c.display()));
        format!("pid {}{}", process.pid, config.unwrap_or_default())
    };
    match first.as_slice() {
        [] | [_] => ok("no second agent in this network namespace"),
        many => vec![warn(
            format!(
                "{} agents: {}",
                many.len(),
                many.iter().map(named).collect::<Vec<_>>().join(", ")
            ),
            "one captures, the others can only be explicit proxies: stop what is not meant",
        )],
    }
}

/// What the agent says of capture: troubles, repairs, rivals.
pub(super) fn capture(facts: &Facts) -> Vec<Finding> {
    asked(facts, |answers| {
        let capture = &answers.status.capture;
        let notes = capture.notes.iter();
        match capture.state {
            CaptureState::Off => ok("off, as configured"),
            CaptureState::Failed => notes.map(|note| bad(note, fix_of(note))).collect(),
            CaptureState::Installed => {
                let notes = notes.map(|note| warn(note, fix_of(note))).collect();
                or_ok(notes, format!("installed, {}, {}", capture.backend, capture.device))
            }
        }
    })
}

/// What to do about a note of the agent's, by its words.
fn fix_of(note: &str) -> &'static str {
    const FIXES: &[(&str, &str)] = &[
        (
            "rival in",
            "stop what inserts it, or let it insert after ours; ours goes first every 5 s",
        ),
        (" s ago: ", "it is put back already; find out who changed it (a firewall reload?)"),
        (
            "xtables lock",
            "end the process that holds /run/xtables.lock; it is tried again by itself",
        ),
        ("IPv6 is not captured", "nothing, where IPv6 is not needed; else what the note names"),
    ];
    let fix = FIXES.iter().find(|(words, _)| note.contains(words));
    fix.map_or("what the note names; it is tried again every few seconds", |(_, fix)| fix)
}

/// Services whose address nobody captures.
pub(super) fn outside(facts: &Facts) -> Vec<Finding> {
    asked(facts, |answers| {
        let outside = answers.status.capture.outside.iter().map(|outside| {
            warn(
                format!("{} at {} is not captured", outside.service, outside.address),
                "add its range to `proxy.include`",
            )
        });
        or_ok(few(outside), "every Service's address is captured")
    })
}

/// Documents that do not count.
pub(super) fn records(facts: &Facts) -> Vec<Finding> {
    asked(facts, |answers| {
        let findings = answers.status.remarks.iter().filter_map(|remark| {
            let place =
                format!("{}:{} {} {}", remark.file, remark.line, remark.object, remark.field);
            let place = place.trim_start_matches(":0 ").trim_end().to_owned();
            let found = format!("{place}: {}", remark.reason);
            match remark.severity {
                // Of the source as a whole.
                _ if remark.file.is_empty() => {
                    Some(bad(found, "see the lines `source` and `cloud`"))
                }
                Severity::Rejected => Some(bad(found, "correct the document; it is read at once")),
                Severity::Warning => Some(warn(found, "see whether that is what was meant")),
                Severity::Ignored => None,
            }
        });
        let status = &answers.status;
        or_ok(few(findings), format!("no document rejected, Services known: {}", status.services))
    })
}

/// Whether the source is read, and its changes are kept.
pub(super) fn source(facts: &Facts) -> Vec<Finding> {
    asked(facts, |answers| {
        let status = &answers.status;
        let mut findings = Vec::new();
        if status.data_age_seconds.is_none() {
            findings.push(bad(
                "the source was never read since the start; the last records are served",
                "see the line `cloud`, or that the folder of `source` exists and can be read",
            ));
        }
        if status.store == StoreState::StoreReadOnly {
            let why = status.repairs.last().map_or("", String::as_str);
            findings.push(bad(
                format!("storeReadOnly: changes are served and not kept. {why}"),
                "free space in `dataDir`, or let the agent write there",
            ));
        }
        let age = status.data_age_seconds.unwrap_or_default();
        or_ok(findings, format!("read {age} s ago, watched since; the metastore takes changes"))
    })
}

/// Services whose Backends are all ejected, and those that have none.
pub(super) fn ejected(facts: &Facts) -> Vec<Finding> {
    asked(facts, |answers| {
        let mut pools = BTreeMap::<[&str; 4], (usize, usize)>::new();
        for backend in &answers.backends {
            // A client has one family: Backends of the other are of no use to it.
            let family = if backend.address.starts_with('[') { "IPv6 " } else { "IPv4 " };
            let pool = [&backend.namespace, &backend.service, backend.port.as_str(), family];
            let pool = pools.entry(pool).or_default();
            pool.0 += 1;
            pool.1 += usize::from(is_out(backend));
        }
        for service in &answers.services {
            let whole = [&service.namespace, &*service.name, "", ""];
            let known = pools.range(whole..).next().is_some_and(|(key, _)| key[..2] == whole[..2]);
            let needs = !is_led_on(service, &answers.routes);
            if needs && !known && service.ports.iter().all(|port| port.backends == 0) {
                pools.insert(whole, (0, 0));
            }
        }
        let findings = pools.iter().filter_map(|([namespace, name, port, family], counts)| {
            let fix = format!("see why they fail: `edgemesh get backends {name} -n {namespace}`");
            match *counts {
                (0, _) => Some(warn(format!("{namespace}/{name} has no Backend"), fix)),
                (_, 0) => None,
                (all, ejected) => {
                    let at =
                        if port.is_empty() { String::new() } else { format!(", port {port},") };
                    let of = format!("{family}Backends of {namespace}/{name}{at}");
                    let found = format!("{ejected} of {all} {of} are ejected or unhealthy");
                    Some(if all == ejected { bad(found, fix) } else { warn(found, fix) })
                }
            }
        });
        or_ok(few(findings), "no Backend is ejected or unhealthy")
    })
}

/// Whether a Service has no use for Backends: it stands for a DNS name, or its Routes lead elsewhere.
fn is_led_on(service: &ServiceView, routes: &[RouteView]) -> bool {
    let name = format!("{}/{}", service.namespace, service.name);
    let routed = routes.iter().flat_map(|route| &route.parents).any(|to| to.service == name);
    routed || service.external_name.is_some()
}

/// Whether breaker or health check keeps calls away.
fn is_out(backend: &BackendView) -> bool {
    let unhealthy = |health: &HealthView| health.state == HealthState::Unhealthy;
    backend.state == BreakerState::Rejects || backend.health.as_ref().is_some_and(unhealthy)
}

fn asked(facts: &Facts, look: impl FnOnce(&Answers) -> Vec<Finding>) -> Vec<Finding> {
    facts.agent.as_ref().map_or_else(|_| ok(UNASKED), look)
}

/// The first of many; bad ones first.
fn few(findings: impl Iterator<Item = Finding>) -> Vec<Finding> {
    let mut all: Vec<_> = findings.collect();
    all.sort_by_key(|finding| std::cmp::Reverse(finding.level));
    let more = all.len().saturating_sub(LISTED);
    all.truncate(LISTED);
    if more > 0 {
        all.push(warn(format!("and {more} more"), "`edgemesh status` lists them"));
    }
    all
}
