//! A Link that is opened when it is needed, once for all who wait for it.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::link::Link;
use crate::peers::NoWay;

/// What came of opening one.
type Opened = Result<Link, NoWay>;

/// Where that is told; `None` while it is under way.
type Told = watch::Receiver<Option<Opened>>;

/// A place for one Link.
#[derive(Debug, Default)]
pub(super) struct Slot {
    link: ArcSwapOption<Link>,
    /// The last one that was opened.
    opening: Mutex<Option<Told>>,
}

impl Slot {
    /// The Link, if it stands.
    pub(super) fn ready(&self) -> Option<Link> {
        let link = self.link.load();
        link.as_ref().filter(|link| link.is_open()).map(|link| Link::clone(link))
    }

    /// From now on it is this one; gives the one before.
    pub(super) fn put(&self, link: Link) -> Option<Link> {
        self.link.swap(Some(link.into())).map(|before| Link::clone(&before))
    }

    /// Forgets it; what is under way on it goes on.
    pub(super) fn end(&self) {
        if let Some(link) = self.link.swap(None) {
            link.close();
        }
    }

    /// Closes the Link where nothing is under way on it.
    pub(super) fn close_idle(&self) {
        if let Some(link) = self.ready().filter(|link| link.exchanges() == 0) {
            link.close();
        }
    }

    /// The Link; where there is none, `open` makes one in a task of its own, and the others wait for
    /// it. Who stops waiting ends nothing: a connection may take longer than one caller has time.
    pub(super) async fn get(
        self: &Arc<Self>,
        tasks: &TaskTracker,
        stop: &CancellationToken,
        open: impl Future<Output = Opened> + Send + 'static,
    ) -> Opened {
        if let Some(link) = self.ready() {
            return Ok(link);
        }
        let mut opening = {
            let mut opening = self.opening.lock();
            if let Some(link) = self.ready() {
                return Ok(link);
            }
            // One that was given up says nothing any more, and none follows it.
            let under_way = |it: &Told| it.borrow().is_none() && it.has_changed().is_ok();
            match opening.as_ref().filter(|it| under_way(it)) {
                Some(under_way) => under_way.clone(),
                None => {
                    let (tell, told) = watch::channel(None);
                    let this = self.clone();
                    tasks.spawn(stop.clone().run_until_cancelled_owned(async move {
                        let opened = open.await;
                        if let Ok(link) = &opened {
                            this.put(link.clone());
                        }
                        tell.send_replace(Some(opened));
                    }));
                    opening.insert(told).clone()
                }
            }
        };
        let opened = opening.wait_for(Option::is_some).await;
        let opened = opened.ok().and_then(|opened| opened.clone());
        opened.unwrap_or_else(|| Err(NoWay::new("this agent stops")))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::future::pending;
    use std::pin::Pin;
    use std::time::Duration;

    use tokio::time::{sleep, timeout};

    use super::*;
    use crate::link::{Answering, Called, Dialled, Limits, Peer, Role, Serve, client, serve};

    struct Nothing;

    impl Serve for Nothing {
        fn serve(self: Arc<Self>, _: Called) -> Pin<Box<dyn Future<Output = Answering> + Send>> {
            Box::pin(pending())
        }
    }

    pub(in crate::peers) async fn link(tasks: &TaskTracker) -> Link {
        let peer = Arc::new(Peer { proved: None, address: ([127, 0, 0, 1], 1).into() });
        let (near, far) = tokio::io::duplex(64 * 1024);
        let end = |stream, role| Dialled { stream, peer: peer.clone(), role };
        serve(end(far, Role::Serves), Arc::new(Nothing), Limits::CONTROL, tasks);
        client(end(near, Role::Opens), Limits::CONTROL, tasks.clone()).await.unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn who_gives_up_ends_it_for_nobody() {
        let (slot, tasks) = (Arc::new(Slot::default()), TaskTracker::new());
        let stop = CancellationToken::new();
        let made = link(&tasks).await;
        let slow = async move {
            sleep(Duration::from_secs(2)).await;
            Ok(made)
        };
        let patience = Duration::from_secs(1);
        assert!(timeout(patience, slot.get(&tasks, &stop, slow)).await.is_err());
        let again = async || slot.get(&tasks, &stop, async { panic!("it is being opened") }).await;
        assert!(timeout(patience * 2, again()).await.unwrap().is_ok());
        assert!(slot.ready().is_some() && again().await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_everybodys_and_then_over() {
        let (slot, tasks) = (Arc::new(Slot::default()), TaskTracker::new());
        let stop = CancellationToken::new();
        let fails = async {
            sleep(Duration::from_secs(2)).await;
            Err(NoWay::new("refused"))
        };
        let (one, two) = tokio::join!(
            slot.get(&tasks, &stop, fails),
            slot.get(&tasks, &stop, async { panic!("it is being opened") })
        );
        assert_eq!([one.unwrap_err(), two.unwrap_err()], [0; 2].map(|_| NoWay::new("refused")));
        let made = link(&tasks).await;
        assert!(slot.get(&tasks, &stop, async { Ok(made) }).await.is_ok());
        slot.end();
        let stopping = slot.get(&tasks, &stop, pending());
        let stops = async { stop.cancel() };
        assert!(tokio::join!(stopping, stops).0.is_err());
    }
}
