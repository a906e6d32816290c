//! `edgemesh doctor`: finds what is wrong with this node, and prints the fix.
//!
//! All that is asked of agent, kernel and machine is gathered first ([`facts`]); each check is a
//! function of that, listed in [`CHECKS`]. So it works with the agent down, and beside a broken
//! machine: what cannot be asked is a finding too.

mod agent;
mod bundle;
mod capture;
mod facts;
mod held;
mod identity;
mod links;
mod machine;
mod names;
mod processes;
mod redact;
mod report;
mod uplink;

use crate::cli::DoctorArgs;
use crate::doctor::facts::Facts;
use crate::doctor::report::{Finding, Level, Report};
use crate::say;
use crate::show;

/// A check: what it is called, and what looks.
type Check = (&'static str, fn(&Facts) -> Vec<Finding>);

/// All checks, in the order they are printed: what explains others comes first.
const CHECKS: &[Check] = &[
    ("config", agent::config),
    ("agent", agent::reachable),
    ("second", agent::second),
    ("data", machine::data_folder),
    ("rights", machine::rights),
    ("iptables", capture::programs),
    ("backends", capture::both_backends),
    ("lock", capture::lock),
    ("chains", capture::chains),
    ("order", capture::order),
    ("device", capture::device),
    ("routes", capture::routes),
    ("loopback", capture::route_localnet),
    ("capture", agent::capture),
    ("ports", held::held),
    ("resolver", names::resolver),
    ("names", names::answers),
    ("outside", agent::outside),
    ("records", agent::records),
    ("source", agent::source),
    ("services", agent::ejected),
    ("cloud", links::cloud),
    ("identity", identity::identity),
    ("token", links::token),
    ("peers", links::peers),
    ("nodePorts", capture::node_ports),
    ("conntrack", machine::conntrack),
    ("files", machine::open_files),
    ("clock", machine::clock),
];

/// Looks at everything, prints what it found, and writes the bundle where one is wanted. `true`:
/// nothing is bad.
///
/// # Errors
/// When the answer or the bundle cannot be written.
pub fn run(args: &DoctorArgs, admin: Option<&str>) -> anyhow::Result<bool> {
    let facts = Facts::gather(args.config.as_deref(), admin)?;
    let report = examine(&facts);
    let text = show::render(&report, args.output.output, |report| report.draw(say::width()))?;
    say::answer(&text)?;
    if let Some(out) = &args.bundle {
        say::progress(bundle::write(out, &facts, &report)?);
    }
    Ok(report.worst() != Level::Bad)
}

fn examine(facts: &Facts) -> Report {
    let findings = CHECKS.iter().flat_map(|(name, check)| {
        check(facts).into_iter().map(|finding| Finding { check: name, ..finding })
    });
    Report { findings: findings.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_checks_are_told_apart_and_fit_their_column() {
        for (index, (name, _)) in CHECKS.iter().enumerate() {
            assert!(name.len() <= report::NAME, "{name}");
            assert!(CHECKS[..index].iter().all(|(other, _)| other != name), "{name}");
        }
    }
}
