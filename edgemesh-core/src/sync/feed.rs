//! The records as a stream of steps, for whoever mirrors this node: the whole first, then each change.

use std::net::IpAddr;
use std::sync::Arc;

use edgemesh_proto::record::{Delta, ServiceName};
use tokio::sync::{broadcast, mpsc, oneshot};

use crate::snapshot::Host;

/// Steps that are kept for a slow reader; over it, it gets the whole again.
const BEHIND: usize = 64;
/// Readers that wait for the whole at once; more wait until there is room.
const ASKING: usize = 16;

/// One step of the records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// Records put and deleted; with `reset`, all there are.
    pub delta: Delta,
    /// Virtual addresses: all of each Service named, none = taken away. With `reset` of the delta
    /// they are all there are.
    pub addresses: Vec<(ServiceName, Vec<IpAddr>)>,
    /// Hosts, in the same way.
    pub hosts: Vec<(ServiceName, Vec<Host>)>,
}

/// Where steps come from. Clones share it.
#[derive(Clone, Debug)]
pub struct Feed {
    asking: mpsc::Sender<Asked>,
}

/// The writer's side.
#[derive(Debug)]
pub struct Outlet {
    pub(super) steps: broadcast::Sender<Arc<Published>>,
    asked: mpsc::Receiver<Asked>,
}

/// A reader that wants the whole.
#[derive(Debug)]
pub struct Asked(oneshot::Sender<(Arc<Published>, broadcast::Receiver<Arc<Published>>)>);

/// One reader.
#[derive(Debug)]
pub struct Following {
    feed: Feed,
    steps: Option<broadcast::Receiver<Arc<Published>>>,
}

/// A feed and its writer's side.
pub(super) fn feed() -> (Feed, Outlet) {
    let (asking, asked) = mpsc::channel(ASKING);
    (Feed { asking }, Outlet { steps: broadcast::Sender::new(BEHIND), asked })
}

impl Feed {
    /// Follows from now on.
    pub fn follow(&self) -> Following {
        Following { feed: self.clone(), steps: None }
    }
}

impl Following {
    /// The next step; the first is the whole, and so is the one after this reader was too slow.
    /// `None` when the writer is gone. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Arc<Published>> {
        if let Some(steps) = &mut self.steps {
            match steps.recv().await {
                Ok(step) => return Some(step),
                Err(broadcast::error::RecvError::Closed) => return None,
                Err(broadcast::error::RecvError::Lagged(_)) => self.steps = None,
            }
        }
        let (answer, whole) = oneshot::channel();
        self.feed.asking.send(Asked(answer)).await.ok()?;
        let (whole, steps) = whole.await.ok()?;
        self.steps = Some(steps);
        Some(whole)
    }
}

impl Outlet {
    /// Waits for a reader that wants the whole.
    pub async fn asked(&mut self) -> Option<Asked> {
        self.asked.recv().await
    }

    /// Somebody reads.
    pub(super) fn is_read(&self) -> bool {
        self.steps.receiver_count() > 0
    }

    pub(super) fn answer(&self, Asked(reader): Asked, whole: Published) {
        // A reader that has gone meanwhile needs none.
        let _ = reader.send((Arc::new(whole), self.steps.subscribe()));
    }

    pub(super) fn publish(&self, step: Published) {
        // An error means that the last reader has gone meanwhile.
        let _ = self.steps.send(Arc::new(step));
    }
}
