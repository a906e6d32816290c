//! The Links with other agents that stand, whoever dialled: those of a node that is removed end, and no
//! node has more of them than it has a use for.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use edgemesh_proto::record::Revocation;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::identity::is_revoked;
use crate::link::{Peer, Role};
use crate::snapshot::Snapshot;

/// Most Links of one kind with one node. One is in use; one that another took the place of drains for
/// as long as flows on it go on.
const MOST: usize = 8;

/// There are [`MOST`] already.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("tooManyLinks: {MOST} of this kind stand with {0} already")]
pub(super) struct TooMany(String);

/// See the module. Clones share it.
#[derive(Clone)]
pub struct Standing {
    /// Where Revocations are read.
    live: Arc<ArcSwap<Snapshot>>,
    table: Arc<Mutex<Table>>,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    all: BTreeMap<u64, Entry>,
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
    /// None yet; Revocations are read in `live`.
    pub fn new(live: Arc<ArcSwap<Snapshot>>) -> Self {
        Self { live, table: Arc::default() }
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

fn of_removed(peer: &Peer, revocations: &BTreeMap<Box<str>, Revocation>) -> bool {
    peer.proved.as_ref().is_some_and(|proved| is_revoked(proved, revocations))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use edgemesh_proto::record::NodeName;
    use tokio::time::timeout;
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::identity::Proved;

    fn peer(node: &str, issued: i64) -> Arc<Peer> {
        let node = NodeName(node.into());
        let proved = Proved { node, is_hub: false, issued, until: i64::MAX };
        Arc::new(Peer { proved: Some(proved), address: ([127, 0, 0, 1], 1).into() })
    }

    #[tokio::test(start_paused = true)]
    async fn the_links_of_a_removed_node_end_and_no_others() {
        let live = Arc::<ArcSwap<Snapshot>>::default();
        let standing = Standing::new(live.clone());
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
        let standing = Standing::new(Arc::default());
        let enter = |node, role| standing.enter(&peer(node, 0), role);
        let mut all: Vec<_> = (0..MOST).map(|_| enter("a", Role::Serves).unwrap()).collect();
        let refused = enter("a", Role::Serves).unwrap_err().to_string();
        assert!(refused.starts_with("tooManyLinks: 8 ") && refused.contains(" a"), "{refused}");
        all.push(enter("a", Role::Opens).unwrap());
        all.push(enter("b", Role::Serves).unwrap());
        all.remove(0);
        all.push(enter("a", Role::Serves).unwrap());
        assert!(enter("a", Role::Serves).is_err());
    }
}
