//! The Links with other agents that stand, whoever dialled: those of a node that is removed end, and no
//! node has more of them than it has a use for.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use edgemesh_proto::record::{NodeName, Revocation};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::identity::{Clock, is_revoked};
use crate::lanes;
use crate::link::{Peer, Role};
use crate::snapshot::Snapshot;

/// Most Links of one kind with one node. As many as it has lanes are in use; those that others took the
/// place of drain for as long as flows on them go on.
const MOST: usize = 4 * lanes::MOST;

/// Nodes of which it is remembered that their certificate expired.
const MOST_EXPIRED: usize = 1024;

/// There are [`MOST`] already.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("tooManyLinks: {MOST} of this kind stand with {0} already")]
pub(super) struct TooMany(String);

/// See the module. Clones share it.
#[derive(Clone)]
pub struct Standing {
    /// Where Revocations are read.
    live: Arc<ArcSwap<Snapshot>>,
    /// Judges certificates.
    clock: Arc<Clock>,
    table: Arc<Mutex<Table>>,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    all: BTreeMap<u64, Entry>,
    /// Nodes whose certificate had expired, and since when.
    expired: BTreeMap<NodeName, i64>,
}

#[derive(Debug)]
struct Entry {
    peer: Arc<Peer>,
    role: Role,
    over: CancellationToken,
}

/// The place of one Link, given back on drop.
#[derive(Debug)]
pub(super) struct Stay {
    table: Arc<Mutex<Table>>,
    number: u64,
    over: CancellationToken,
}

impl fmt::Debug for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Standing").field("links", &self.table.lock().all.len()).finish()
    }
}

impl Standing {
    /// None yet; Revocations are read in `live`, and `clock` says which certificates have expired.
    pub fn new(live: Arc<ArcSwap<Snapshot>>, clock: Arc<Clock>) -> Self {
        Self { live, clock, table: Arc::default() }
    }

    /// Whether the node was removed after it got its certificate.
    pub(super) fn is_revoked(&self, peer: &Peer) -> bool {
        of_removed(peer, &self.live.load().revocations)
    }

    /// A Link stands, for as long as the answer is held.
    ///
    /// # Errors
    /// [`TooMany`]: it is not to stand.
    pub(super) fn enter(&self, peer: &Arc<Peer>, role: Role) -> Result<Stay, TooMany> {
        let over = CancellationToken::new();
        let mut table = self.table.lock();
        let same = |entry: &&Entry| entry.role == role && entry.peer.node() == peer.node();
        if table.all.values().filter(same).count() >= MOST {
            return Err(TooMany(peer.to_string()));
        }
        if let Some(expired) = news_of_expiry(&mut table.expired, peer, self.clock.seconds()) {
            let hours = expired.as_secs() / 3600;
            tracing::warn!(%peer, "its certificate expired {hours} h ago, and is let pass for a while");
        }
        let number = table.next;
        table.next += 1;
        table.all.insert(number, Entry { peer: peer.clone(), role, over: over.clone() });
        drop(table);
        // Only now: who is removed from here on is found in the table.
        if self.is_revoked(peer) {
            over.cancel();
        }
        Ok(Stay { table: self.table.clone(), number, over })
    }

    /// Ends the Links of nodes as they are removed, until nobody tells of changes any more.
    pub async fn follow(self, mut changes: watch::Receiver<u64>) {
        let mut known = Arc::default();
        loop {
            let revocations = self.live.load().revocations.clone();
            if !Arc::ptr_eq(&known, &revocations) {
                self.end_of(&revocations);
                known = revocations;
            }
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    fn end_of(&self, revocations: &BTreeMap<Box<str>, Revocation>) {
        for Entry { peer, over, .. } in self.table.lock().all.values() {
            if of_removed(peer, revocations) && !over.is_cancelled() {
                tracing::warn!(%peer, "the node was removed: its Link ends");
                over.cancel();
            }
        }
    }
}

impl Stay {
    /// Resolves when the Link is to end.
    pub(super) async fn over(&self) {
        self.over.cancelled().await;
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        self.table.lock().all.remove(&self.number);
    }
}

/// How long the certificate has been expired, where that was not told yet: a peer that is cut off
/// from the cloud comes back many times with the same one.
fn news_of_expiry(told: &mut BTreeMap<NodeName, i64>, peer: &Peer, now: i64) -> Option<Duration> {
    let proved = peer.proved.as_ref()?;
    let expired = proved.expired_for(now)?;
    if told.len() >= MOST_EXPIRED && !told.contains_key(&proved.node) {
        told.clear(); // some are told again
    }
    (told.insert(proved.node.clone(), proved.until) != Some(proved.until)).then_some(expired)
}

fn of_removed(peer: &Peer, revocations: &BTreeMap<Box<str>, Revocation>) -> bool {
    peer.proved.as_ref().is_some_and(|proved| is_revoked(proved, revocations))
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::identity::Proved;

    fn peer(node: &str, issued: i64) -> Arc<Peer> {
        let node = NodeName(node.into());
        let proved = Proved { node, is_hub: false, issued, until: i64::MAX };
        Arc::new(Peer { proved: Some(proved), address: ([127, 0, 0, 1], 1).into() })
    }

    fn clock() -> Arc<Clock> {
        Arc::new(Clock::with(None, || 0))
    }

    #[test]
    fn that_a_certificate_expired_is_told_once() {
        let mut told = BTreeMap::new();
        let until = |node, until| {
            let proved = Proved { until, ..peer(node, 0).proved.clone().unwrap() };
            Peer { proved: Some(proved), ..Peer::clone(&peer(node, 0)) }
        };
        for (node, end, now, want) in [
            ("a", 100, 100, None),
            ("a", 100, 101, Some(1)),
            ("a", 100, 4000, None),
            ("b", 100, 4000, Some(3900)),
            ("a", 200, 4000, Some(3800)),
        ] {
            let news = news_of_expiry(&mut told, &until(node, end), now);
            assert_eq!(news.map(|since| since.as_secs()), want, "{node} {end} {now}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_links_of_a_removed_node_end_and_no_others() {
        let live = Arc::<ArcSwap<Snapshot>>::default();
        let standing = Standing::new(live.clone(), clock());
        let (changed, changes) = watch::channel(0);
        let following = TaskTracker::new().spawn(standing.clone().follow(changes));
        let is_over =
            async |stay: &Stay| timeout(Duration::from_secs(1), stay.over()).await.is_ok();
        let enter = |node, issued| standing.enter(&peer(node, issued), Role::Serves).unwrap();
        let stays = [("a", 5), ("a", 10), ("b", 5)].map(|(node, issued)| enter(node, issued));
        let left = enter("a", 5);
        drop(left);
        let revocations = BTreeMap::from([("a".into(), Revocation { before: 10 })]).into();
        let mut snapshot = Snapshot::default();
        snapshot.revocations = revocations;
        live.store(Arc::new(snapshot));
        changed.send_replace(1);
        assert!(is_over(&stays[0]).await);
        assert!(!is_over(&stays[1]).await, "it has joined again");
        assert!(!is_over(&stays[2]).await);
        // One whose handshake was under way meanwhile.
        assert!(is_over(&enter("a", 9)).await);
        drop(stays);
        assert!(standing.table.lock().all.is_empty());
        drop(changed);
        following.await.unwrap();
    }

    #[test]
    fn no_node_has_more_than_it_can_use() {
        let standing = Standing::new(Arc::default(), clock());
        let enter = |node, role| standing.enter(&peer(node, 0), role);
        let mut all: Vec<_> = (0..MOST).map(|_| enter("a", Role::Serves).unwrap()).collect();
        let refused = enter("a", Role::Serves).unwrap_err().to_string();
        assert!(refused.starts_with("tooManyLinks: 16 ") && refused.contains(" a"), "{refused}");
        all.push(enter("a", Role::Opens).unwrap());
        all.push(enter("b", Role::Serves).unwrap());
        all.remove(0);
        all.push(enter("a", Role::Serves).unwrap());
        assert!(enter("a", Role::Serves).is_err());
    }
}
