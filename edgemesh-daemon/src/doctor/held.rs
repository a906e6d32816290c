//! Whether others hold the ports that the agent needs.

use crate::doctor::facts::Facts;
use crate::doctor::report::{Finding, bad, ok, or_ok};

/// Whether each port that the agent needs is the agent's.
pub(super) fn held(facts: &Facts) -> Vec<Finding> {
    let others = facts.ports.iter().filter(|holder| match &holder.process {
        Some((pid, _)) => !facts.agents.iter().any(|agent| agent.pid == *pid),
        None => facts.agent.is_err(),
    });
    let findings = others.map(|holder| {
        bad(holder.to_string(), format!("stop it, or choose another `{}`", holder.key))
    });
    let findings: Vec<_> = findings.collect();
    match facts.told() {
        None => ok("not looked at: the configuration cannot be read"),
        Some(_) if facts.agent.is_ok() => or_ok(findings, "all held by the agent"),
        Some(_) => or_ok(findings, "free, or held by an agent"),
    }
}
