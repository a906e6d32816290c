//! Puts back what others removed or pushed aside; called every few seconds.

use std::time::{Duration, Instant};

use crate::capture::backend::leading_to;
use crate::capture::chains::{CHAINS, jumps, leads_to_ours};
use crate::capture::error::CaptureError;
use crate::capture::rules::count;
use crate::capture::{Capture, outward};

/// How often [`Capture::check`] should be called: it runs some twenty short child processes.
pub const CHECK_EVERY: Duration = Duration::from_secs(10);
/// How often a jump may be moved to the front: a rival who does the same must not make us race.
const MOVE_EVERY: Duration = Duration::from_secs(5);

/// What was found wrong and put right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Healed {
    /// The jump from this built-in chain was gone.
    Jump {
        /// `OUTPUT` or `PREROUTING`.
        from: &'static str,
        /// IPv4, else IPv6.
        v4: bool,
    },
    /// A rule stood before the jump that may take the same connections.
    Moved {
        /// `OUTPUT` or `PREROUTING`.
        from: &'static str,
        /// IPv4, else IPv6.
        v4: bool,
        /// The rule that stood first.
        rival: String,
    },
    /// A chain of ours was gone, or did not hold as many rules as we loaded.
    Chains {
        /// IPv4, else IPv6.
        v4: bool,
    },
    /// Routes of last resort were gone.
    Routes {
        /// IPv4, else IPv6.
        v4: bool,
    },
    /// The device or an address of it was gone.
    Device,
    /// These interfaces hold a default route now; what comes in there is captured no more.
    Outward(Vec<String>),
}

/// What healing must remember.
#[derive(Default)]
pub(super) struct State {
    running: bool,
    moved: Option<Instant>,
}

impl State {
    pub(super) fn started(&mut self) {
        self.running = true;
    }

    pub(super) fn stopped(&mut self) {
        self.running = false;
    }
}

impl Capture {
    /// Looks whether all that was installed is there still, and puts back what is not. Does
    /// nothing before [`Capture::start`] or after [`Capture::stop_new`].
    ///
    /// # Errors
    /// What could not be read or written. Calling again later is right.
    pub fn check(&mut self, now: Instant) -> Result<Vec<Healed>, CaptureError> {
        let mut healed = Vec::new();
        if !self.healing.running {
            return Ok(healed);
        }
        self.heal_device(&mut healed)?;
        let new = outward()?;
        let new: Vec<String> =
            new.into_iter().filter(|name| !self.input.outward.contains(name)).collect();
        if !new.is_empty() {
            self.input = self.effective()?;
            self.write()?;
            healed.push(Healed::Outward(new));
        }
        for family in &mut self.families {
            let v4 = family.tables.v4;
            if family.routes.heal()? {
                healed.push(Healed::Routes { v4 });
            }
            let mut whole = true;
            for chain in CHAINS {
                let rules = family.tables.chain(chain.name)?.map(|rules| rules.len());
                whole &= rules == Some(count(&family.loaded, chain.name));
            }
            if !whole {
                family.tables.load(&family.loaded)?;
                healed.push(Healed::Chains { v4 });
            }
        }
        self.heal_jumps(now, &mut healed)?;
        Ok(healed)
    }

    fn heal_device(&mut self, healed: &mut Vec<Healed>) -> Result<(), CaptureError> {
        for address in &self.input.addresses {
            if self.device.carries(*address)? {
                continue;
            }
            self.device.reopen()?;
            healed.push(Healed::Device);
            return self.address();
        }
        Ok(())
    }

    fn heal_jumps(&mut self, now: Instant, healed: &mut Vec<Healed>) -> Result<(), CaptureError> {
        let rested = self.healing.moved.is_none_or(|at| now.duration_since(at) >= MOVE_EVERY);
        for family in &self.families {
            let v4 = family.tables.v4;
            for (from, to) in jumps() {
                let rules = family.tables.chain(from)?.unwrap_or_default();
                let Some(at) = leading_to(&rules, to).first().copied() else {
                    family.tables.place_jumps()?;
                    healed.push(Healed::Jump { from, v4 });
                    continue;
                };
                let rival = rules[..at].iter().find(|rule| takes_the_same(rule));
                if let Some(rival) = rival.filter(|_| rested) {
                    family.tables.move_jump(from, to, &rules)?;
                    self.healing.moved = Some(now);
                    healed.push(Healed::Moved { from, v4, rival: rival.clone() });
                }
            }
        }
        Ok(())
    }
}

/// Whether a rule before ours may take connections that we should see: it leads on, and not only
/// for addresses of this host (as the rules for published container ports do).
fn takes_the_same(rule: &str) -> bool {
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
            ),
            ("-A OUTPUT -p tcp -j ISTIO_OUTPUT", true),
            ("-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER", false),
            ("-A OUTPUT -j LOG", false),
            ("-A OUTPUT -p tcp", false),
        ];
        for (rule, want) in cases {
            assert_eq!(takes_the_same(rule), want, "{rule}");
        }
    }
}
