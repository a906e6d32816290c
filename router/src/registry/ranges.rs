//! Where addresses of Services lie, as the source has it: nothing of it is kept over a restart, since agents
//! go on with what they were told before.

use std::sync::Arc;

use ipnet::IpNet;
use tokio::sync::watch;

/// See the module.
#[derive(Debug, Default)]
pub struct Ranges(watch::Sender<Option<Arc<[IpNet]>>>);

impl Ranges {
    /// These are all of them; none: the source knows of no ranges.
    pub fn are(&self, ranges: Arc<[IpNet]>) {
        self.0.send_if_modified(|known| {
            let news = known.as_ref() != Some(&ranges);
            *known = Some(ranges);
            news
        });
    }

    /// Wakes when others are known; `None`: the source has not said anything yet.
    pub fn follow(&self) -> watch::Receiver<Option<Arc<[IpNet]>>> {
        self.0.subscribe()
    }
}
