//! How calls that go by a Rule are counted on it: once, where they enter the mesh.

use std::time::Instant;

use crate::io::now;
use crate::metrics::Ended;
use crate::refusal::{Culprit, Refusal};
use crate::snapshot::rules::Rule;
use crate::tunnel::now_ms;

/// Counts a call that began at `began`; `why` puts a Refusal in words.
pub(super) fn count(
    rule: &Rule,
    ended: Ended,
    began: Instant,
    why: impl FnOnce(Refusal) -> String,
) {
    match ended {
        Ended::Ok => rule.live.delivered(now().saturating_duration_since(began), now_ms()),
        Ended::Refused(refusal) => match refusal.row().culprit {
            Culprit::Client => rule.live.refused(&why(refusal), now_ms()),
            Culprit::Backend | Culprit::Mesh => rule.live.failed(&why(refusal), now_ms()),
        },
        Ended::Failed => rule.live.failed("the answer broke off", now_ms()),
        Ended::Cancelled => {
            rule.live.refused("the caller left before the answer was there", now_ms());
        }
    }
}
