//! Why a Backend gets no call: its breaker rejects, or its health check fails.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::breaker::{Pass, Stance};
use crate::snapshot::{Backend, Pool};

/// Why a Backend gets no call, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Away {
    pub(super) why: &'static str,
    pub(super) wait: Duration,
}

/// A Backend that is ill is asked again by its health check within about so long.
const ILL_FOR: Duration = Duration::from_secs(1);

/// Whether a Backend's health check keeps calls away. Where all are ill, none of the checks is
/// believed: a call that may fail is better than one that must.
pub(super) fn well(pool: &Pool, backend: &Backend) -> Result<(), Away> {
    let is_ill = |backend: &Backend| backend.live.ill.load(Relaxed);
    match is_ill(backend) && !pool.backends.iter().all(is_ill) {
        true => Err(Away { why: "its health check fails", wait: ILL_FOR }),
        false => Ok(()),
    }
}

/// For as long as a breaker says.
pub(super) const fn rejected(wait: Duration) -> Away {
    Away { why: "its breaker rejects", wait }
}

/// A race takes no probe: it goes only where everyone may go.
pub(super) fn ordinary(stance: Stance) -> Result<Pass, Away> {
    match stance {
        Stance::Admits => Ok(Pass::Ordinary),
        Stance::WouldProbe => Err(rejected(Duration::ZERO)),
        Stance::Rejects { wait } => Err(rejected(wait)),
    }
}
