//! Why a Backend gets no call: its breaker rejects, its health check fails, or no way leads there.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use crate::backends::Known;
use crate::breaker::{Pass, Stance};
use crate::snapshot::{Backend, Pool};

/// Why a Backend gets no call, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Away {
    pub(super) why: Why,
    pub(super) wait: Duration,
}

/// What keeps calls away from a Backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// Its breaker.
    Rejected,
    /// Its health check.
    Ill,
    /// No Link leads to its node.
    NoPath,
    /// The limit on the server's side, which is held here for it.
    Limited,
}

/// A Backend that is ill is asked again by its health check within about so long.
const ILL_FOR: Duration = Duration::from_secs(1);

/// Whether anything but its breaker keeps calls away from a Backend. Where all are ill, none of the
/// checks is believed: a call that may fail is better than one that must.
pub(super) fn well(pool: &Pool, backend: &Backend, now: Instant) -> Result<(), Away> {
    let is_ill = |backend: &Backend| backend.live.ill.load(Relaxed);
    if is_ill(backend) && !pool.backends.iter().all(is_ill) {
        return Err(Away { why: Why::Ill, wait: ILL_FOR });
    }
    match backend.reach.node().map(|node| node.known(now)) {
        Some(Known::Lost { wait }) => Err(Away { why: Why::NoPath, wait }),
        Some(Known::Nothing | Known::Works(_)) | None => Ok(()),
    }
}

/// For as long as a breaker says.
pub(super) const fn rejected(wait: Duration) -> Away {
    Away { why: Why::Rejected, wait }
}

/// A race takes no probe: it goes only where everyone may go.
pub(super) fn ordinary(stance: Stance) -> Result<Pass, Away> {
    match stance {
        Stance::Admits => Ok(Pass::Ordinary),
        Stance::WouldProbe => Err(rejected(Duration::ZERO)),
        Stance::Rejects { wait } => Err(rejected(wait)),
    }
}
