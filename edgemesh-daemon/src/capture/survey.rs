//! What the kernel holds of capture, ours and others', for whoever has to explain it: reads only.

use std::net::IpAddr;

use crate::capture::CaptureError;
use crate::capture::backend::{Backend, Tables, leading_to};
use crate::capture::chains::{CHAINS, is_ours, is_own, jumps, leads_to_ours};
use crate::capture::command::{line, run};
use crate::capture::device;
use crate::capture::family::has_ipv6;
use crate::capture::rivals::takes_the_same;
use crate::capture::routes::Routes;
use crate::capture::rules::{Input, Ruleset, count};

/// The nat table of one backend and family, as saved.
#[derive(Clone, Debug)]
pub struct Table {
    /// `nft` or `legacy`.
    pub backend: &'static str,
    /// IPv4, else IPv6.
    pub v4: bool,
    /// What iptables-save says of it.
    pub saved: String,
}

/// All nat tables there are: of each backend that is installed, of each family.
///
/// # Errors
/// What keeps iptables from being asked.
pub fn tables() -> Result<Vec<Table>, CaptureError> {
    let mut tables: Vec<Table> = Vec::new();
    for backend in Backend::in_use() {
        let name = Tables::name_of(&backend.version());
        if tables.iter().any(|table| table.backend == name) {
            continue; // two names of one implementation
        }
        for v4 in [true, false].into_iter().filter(|v4| *v4 || has_ipv6()) {
            let saved = Tables::new(backend, v4).saved()?;
            tables.push(Table { backend: name, v4, saved });
        }
    }
    Ok(tables)
}

/// A command and what it printed, or why it could not be run, for a report to be read by people.
pub fn transcript(program: &str, args: &[&str]) -> String {
    let said = match run(program, args, "") {
        Ok(output) => output.stdout + &output.stderr,
        Err(error) => format!("{error}\n"),
    };
    format!("$ {}\n{said}\n", line(program, args))
}

/// What the programs on the PATH call themselves; empty: there are none.
pub fn versions() -> Vec<String> {
    let mut versions: Vec<_> = Backend::installed().map(Backend::version).collect();
    versions.dedup();
    versions
}

/// Which backend an agent that starts now would use.
pub fn chosen() -> String {
    Backend::detect().version()
}

/// What is missing of device and addresses, a line each.
///
/// # Errors
/// When `ip` cannot be asked.
pub fn device_lacks(addresses: &[IpAddr]) -> Result<Vec<String>, CaptureError> {
    device::lacks(addresses)
}

/// What is missing of the routes of last resort, a line each.
///
/// # Errors
/// When `ip` cannot be asked.
pub fn routes_lack(input: &Input) -> Result<Vec<String>, CaptureError> {
    let mut lacks = Vec::new();
    for v4 in [true, false].into_iter().filter(|v4| *v4 || has_ipv6()) {
        lacks.extend(Routes::new(v4).lacks(input, input.address(v4))?);
    }
    Ok(lacks)
}

impl Table {
    /// `IPv4, nft`
    pub fn name(&self) -> String {
        format!("{}, {}", if self.v4 { "IPv4" } else { "IPv6" }, self.backend)
    }

    /// Whether anything of ours is in it.
    pub fn has_ours(&self) -> bool {
        self.saved.lines().any(|line| is_ours(line) || leads_to_ours(line))
            || self.own_chains().next().is_some()
    }

    /// How many rules of others it holds.
    pub fn foreign(&self) -> usize {
        let foreign =
            |line: &&str| line.starts_with("-A ") && !is_ours(line) && !leads_to_ours(line);
        self.saved.lines().filter(foreign).count()
    }

    /// What is missing of our chains and jumps, a line each. `rules`: what should be there, where
    /// that is known; of interfaces seen before there may be more rules than it says.
    pub fn lacks(&self, rules: Option<&Ruleset>) -> Vec<String> {
        let want = rules.map(|rules| if self.v4 { &rules.v4 } else { &rules.v6 });
        let mut lacks = Vec::new();
        for name in CHAINS.iter().map(|chain| chain.name) {
            let have = count(&self.saved, name);
            let want = want.map_or(1, |text| count(text, name));
            if !self.own_chains().any(|own| own == name) {
                lacks.push(format!("chain {name} is missing"));
            } else if have < want {
                lacks.push(format!("chain {name} has {have} of {want} rules"));
            }
        }
        for (from, to) in jumps() {
            if leading_to(&self.chain(from), to).is_empty() {
                lacks.push(format!("the jump from {from} to {to} is missing"));
            }
        }
        lacks
    }

    /// Rules before our jumps that may take the same connections: the built-in chain, the rule.
    pub fn rivals(&self) -> Vec<(&'static str, String)> {
        let mut rivals = Vec::new();
        for (from, to) in jumps() {
            let rules = self.chain(from);
            let ours = leading_to(&rules, to).first().copied().unwrap_or(0);
            let before = rules[..ours].iter().filter(|rule| takes_the_same(rule));
            rivals.extend(before.map(|rule| (from, rule.clone())));
        }
        rivals
    }

    /// The lines that concern us: our chains, and the built-in chains that lead there.
    pub fn ours(&self) -> String {
        let from: Vec<&str> = jumps().map(|(from, _)| from).collect();
        let concerns = |line: &&str| {
            let of = |start: char, rest: &str| line.starts_with(start) && from.contains(&rest);
            let chain = line.trim_start_matches("-A ").trim_start_matches(':');
            let chain = chain.split(' ').next().unwrap_or_default();
            is_own(chain) || of(':', chain) || of('-', chain)
        };
        self.saved.lines().filter(concerns).map(|line| format!("{line}\n")).collect()
    }

    fn chain(&self, name: &str) -> Vec<String> {
        let start = format!("-A {name} ");
        self.saved.lines().filter(|line| line.starts_with(&start)).map(str::to_owned).collect()
    }

    fn own_chains(&self) -> impl Iterator<Item = &str> {
        let names = self.saved.lines().filter_map(|line| line.strip_prefix(':')?.split(' ').next());
        names.filter(|name| is_own(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(saved: &str) -> Table {
        Table { backend: "nft", v4: true, saved: saved.into() }
    }

    #[test]
    fn what_is_missing_and_who_is_first_is_told() {
        let whole = ":OUTPUT ACCEPT [0:0]\n:EDGEMESH_OUT - [0:0]\n:EDGEMESH_IN - [0:0]\n\
                     :EDGEMESH_UDP - [0:0]\n:EDGEMESH_POST - [0:0]\n\
                     -A OUTPUT -j EDGEMESH_OUT\n-A PREROUTING -j EDGEMESH_IN\n\
                     -A POSTROUTING -j EDGEMESH_POST\n\
                     -A EDGEMESH_OUT -j RETURN\n-A EDGEMESH_IN -j RETURN\n\
                     -A EDGEMESH_UDP -j RETURN\n-A EDGEMESH_POST -j RETURN\n";
        let rival = "-A OUTPUT -j KUBE-SERVICES\n";
        let cases: [(String, &[&str], usize); 5] = [
            (whole.into(), &[], 0),
            (format!("{rival}{whole}"), &[], 1),
            (format!("{whole}{rival}"), &[], 0),
            (
                whole.replace("-A EDGEMESH_IN -j RETURN\n", ""),
                &["chain EDGEMESH_IN has 0 of 1 rules"],
                0,
            ),
            (
                whole.replace("-A OUTPUT -j EDGEMESH_OUT\n", ""),
                &["the jump from OUTPUT to EDGEMESH_OUT is missing"],
                0,
            ),
        ];
        for (saved, lacks, rivals) in cases {
            let table = table(&saved);
            assert_eq!(table.lacks(None), lacks, "{saved}");
            assert_eq!(table.rivals().len(), rivals, "{saved}");
            assert!(table.has_ours());
        }
        assert!(!table(":EDGEMESH_OUTBOUND - [0:0]\n-A OUTPUT -j EDGEMESH_OUTBOUND\n").has_ours());
        assert!(!table(rival).ours().contains("Completed"));
    }

    /// Text of a stranger's program, cut and damaged: whatever is said of it, it is said.
    #[test]
    fn any_text_is_surveyed() {
        let saved = concat!(
            "*nat\n:OUTPUT ACCEPT [0:0]\n:EDGEMESH_OUT - [0:0]\n",
            "-A OUTPUT -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n",
            "-A OUTPUT -j EDGEMESH_OUT\n",
            "-A EDGEMESH_OUT -d 10.96.0.0/12 -p tcp -j REDIRECT --to-ports 15001\nCOMMIT\n",
        );
        let lines = saved.lines().count() + 1; // damage may make a line of two
        let check = |bytes: &[u8]| {
            let table = table(&String::from_utf8_lossy(bytes));
            assert!(table.foreign() <= lines && table.rivals().len() <= lines);
            assert!(table.ours().lines().count() <= lines);
            let _ = (table.lacks(None), table.has_ours());
        };
        for at in 0..saved.len() {
            check(&saved.as_bytes()[..at]);
            for bit in 0..8 {
                let mut damaged = saved.as_bytes().to_vec();
                damaged[at] ^= 1 << bit;
                check(&damaged);
            }
        }
    }
}
