//! Puts back what others removed or pushed aside: looked at when the kernel tells of a change
//! ([`crate::capture::Watch`]), and every few seconds anyway.

use std::fmt;
use std::time::{Duration, Instant};

use crate::capture::backend::{Tables, leading_to};
use crate::capture::chains::jumps;
use crate::capture::error::CaptureError;
use crate::capture::rivals::{Rival, Rivals, takes_the_same};
use crate::capture::{Capture, outward};

/// How often [`Capture::check`] should be called: it runs some twenty short child processes.
pub const CHECK_EVERY: Duration = Duration::from_secs(10);
/// The same where the kernel tells of no changes: legacy tables.
const CHECK_LEGACY_EVERY: Duration = Duration::from_secs(5);
/// How often a jump may be moved to the front: a rival who does the same must not make us race.
pub const MOVE_EVERY: Duration = Duration::from_secs(5);

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
    /// A chain of ours was gone, or did not hold the rules that we loaded.
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

impl fmt::Display for Healed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = |v4: bool| if v4 { "IPv4" } else { "IPv6" };
        match self {
            Self::Jump { from, v4 } => {
                write!(f, "the jump from {from} ({}) was gone: put back", family(*v4))
            }
            Self::Moved { from, v4, rival } => {
                write!(f, "`{rival}` ({}) stood first in {from}: ours moved first", family(*v4))
            }
            Self::Chains { v4 } => {
                write!(f, "our chains ({}) were not as loaded: loaded again", family(*v4))
            }
            Self::Routes { v4 } => {
                write!(f, "routes of last resort ({}) were gone: put back", family(*v4))
            }
            Self::Device => write!(f, "edgemesh0 or its address was gone: put back"),
            Self::Outward(names) => write!(
                f,
                "{} has a default route now: what comes in there is captured no more",
                names.join(", ")
            ),
        }
    }
}

/// What healing must remember.
#[derive(Default)]
pub(super) struct State {
    running: bool,
    moved: Option<Instant>,
    rivals: Rivals,
    /// A rival stands before us still: its turn comes when we have rested.
    waiting: bool,
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
    /// Looks whether all that was installed is there still, and puts back what is not, as far as
    /// it can. Does nothing before [`Capture::start`] or after [`Capture::stop_new`].
    ///
    /// # Errors
    /// What could not be read or written first; what else could be healed is. Calling again later
    /// is right.
    pub fn check(&mut self, now: Instant, healed: &mut Vec<Healed>) -> Result<(), CaptureError> {
        if !self.healing.running {
            return Ok(());
        }
        let device = self.heal_device(healed);
        let routes = self.heal_routes(healed);
        // Last, since a lock that is held makes each call wait.
        let rules = self.heal_outward(healed).and_then(|()| self.heal_rules(now, healed));
        device.and(routes).and(rules)
    }

    /// When [`Capture::check`] should be called again.
    pub fn check_after(&self, now: Instant) -> Duration {
        match self.healing.moved {
            Some(moved) if self.healing.waiting => {
                (moved + MOVE_EVERY).saturating_duration_since(now)
            }
            _ if Tables::name_of(&self.report.backend) == "nft" => CHECK_EVERY,
            _ => CHECK_LEGACY_EVERY,
        }
    }

    /// Rules that lately stood before ours.
    pub fn rivals(&self, now: Instant) -> impl Iterator<Item = &Rival> {
        self.healing.rivals.lately(now)
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

    fn heal_routes(&mut self, healed: &mut Vec<Healed>) -> Result<(), CaptureError> {
        let mut first = Ok(());
        for family in &mut self.families {
            match family.routes.heal() {
                Ok(false) => {}
                Ok(true) => healed.push(Healed::Routes { v4: family.tables.v4 }),
                Err(error) => first = first.and(Err(error)),
            }
        }
        first
    }

    fn heal_outward(&mut self, healed: &mut Vec<Healed>) -> Result<(), CaptureError> {
        let mut new = outward()?;
        new.retain(|name| !self.input.outward.contains(name));
        if !new.is_empty() {
            self.input = self.effective()?;
            self.write()?;
            healed.push(Healed::Outward(new));
        }
        Ok(())
    }

    fn heal_rules(&mut self, now: Instant, healed: &mut Vec<Healed>) -> Result<(), CaptureError> {
        for family in &mut self.families {
            if family.reload_if_changed()? {
                healed.push(Healed::Chains { v4: family.tables.v4 });
            }
        }
        self.heal_jumps(now, healed)
    }

    fn heal_jumps(&mut self, now: Instant, healed: &mut Vec<Healed>) -> Result<(), CaptureError> {
        let healing = &mut self.healing;
        let rested = healing.moved.is_none_or(|at| now.duration_since(at) >= MOVE_EVERY);
        healing.waiting = false;
        for family in &self.families {
            let v4 = family.tables.v4;
            for (from, to) in jumps() {
                let rules = family.tables.chain(from)?.unwrap_or_default();
                let Some(at) = leading_to(&rules, to).first().copied() else {
                    family.tables.place_jumps()?;
                    healed.push(Healed::Jump { from, v4 });
                    continue;
                };
                let Some(rival) = rules[..at].iter().find(|rule| takes_the_same(rule)) else {
                    continue;
                };
                let moved = healing.rivals.note(now, from, v4, rival);
                if rested {
                    family.tables.move_jump(from, to, &rules)?;
                    *moved += 1;
                    healing.moved = Some(now);
                    healed.push(Healed::Moved { from, v4, rival: rival.clone() });
                }
                healing.waiting |= !rested;
            }
        }
        Ok(())
    }
}
