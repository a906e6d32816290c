//! What two agents say to each other on a direct Link: who they are, how long the way is, and what
//! runs on them, so that a site knows its own Backends while the hub is away.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use edgemesh_proto::message::{Body, DialBack, Hello, Message, Offer, Selector, Welcome};
use edgemesh_proto::record::NodeName;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::io::{now, unique_id};
use crate::link::{self, Answering, Called, Link, Messages, Operation};
use crate::peers::message;
use crate::peers::pause::Pause;
use crate::peers::pulse::{Heard, PULSE_EVERY, Pulse};
use crate::peers::saying::Saying;
use crate::snapshot::Snapshot;

/// Longest wait for the answer to hello.
const WELCOME_WITHIN: Duration = Duration::from_secs(5);
/// A conversation that ended while its Link stands is opened again after so long at first, and at
/// most.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
const AGAIN_WITHIN: Duration = Duration::from_secs(60);

/// What a peer says of itself in one conversation.
#[derive(Clone, Debug)]
pub struct PeerSaid {
    /// The peer.
    pub node: NodeName,
    /// Tells the conversations apart: with each peer there may be several.
    pub talk: u64,
    /// What runs there; `None` = this conversation is over.
    pub offer: Option<Offer>,
}

/// What every conversation of this agent with peers uses. Clones share it.
#[derive(Clone, Debug)]
pub struct Controls {
    /// This node.
    pub node: NodeName,
    /// Random, of this process.
    pub instance: [u8; 16],
    /// Grows with each start.
    pub generation: u64,
    /// What runs here, as it changes.
    pub own: watch::Receiver<Arc<Offer>>,
    /// Hears what runs on peers.
    pub offered: mpsc::Sender<PeerSaid>,
    /// Hears of peers that ask to be dialled.
    pub asked: mpsc::Sender<DialBack>,
    /// Where the ways are noted.
    pub live: Arc<ArcSwap<Snapshot>>,
    /// Owns the tasks.
    pub tasks: TaskTracker,
    /// Ends everything.
    pub stop: CancellationToken,
}

impl Controls {
    /// Opens the conversation on a Link of ours, and keeps it for as long as that lives: one that
    /// ends before is opened again.
    pub fn begin(&self, link: Link, with: NodeName) {
        let this = self.clone();
        self.spawn(async move {
            let mut pause = Pause::new(AGAIN_AFTER, AGAIN_WITHIN);
            while link.is_open() {
                let began = now();
                match this.open(&link, &with).await {
                    // An open exchange would keep a Link that is to drain.
                    Ok(messages) => this.converse(messages, &with, link.closing()).await,
                    Err(error) => {
                        tracing::debug!(node = %with.0, "no Control with a peer: {error}")
                    }
                }
                pause.worked(now() - began);
                tokio::select! {
                    () = link.closing() => return,
                    () = sleep(pause.next(unique_id() as u64)) => {}
                }
            }
        });
    }

    async fn open(&self, link: &Link, with: &NodeName) -> Result<Messages, String> {
        let hello = self.message(with, Body::Hello(self.hello()));
        let (writer, rest) = link::pipe();
        let opened = link.open(Operation::Control, &hello, rest);
        let reply = tokio::time::timeout(WELCOME_WITHIN, opened).await;
        let reply = reply.map_err(|_| "it is silent".to_owned())?;
        let reply = reply.map_err(|error| error.to_string())?;
        match reply.opening.body.as_deref() {
            Some(Body::Welcome(_)) => Ok(Messages::new(writer, reply.body)),
            Some(Body::Refused(refused)) => Err(refused.text.clone()),
            Some(other) => Err(format!("it answers hello with `{}`", other.operation())),
            None => Err("it answers hello with nothing".into()),
        }
    }

    fn hello(&self) -> Hello {
        Hello {
            node: self.node.clone(),
            instance: self.instance,
            generation: self.generation,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            epoch: [0; 16],
            revision: 0,
            digest: [0; 32],
            selector: Selector::default(),
            links: Vec::new(),
            takes_over: false,
        }
    }

    /// Answers a peer that opened the conversation.
    pub fn answer(&self, called: Called, with: NodeName) -> Answering {
        let welcome = Body::Welcome(Welcome {
            node: self.node.clone(),
            instance: self.instance,
            epoch: [0; 16],
            revision: 0,
            renew: false,
        });
        let (writer, rest) = link::pipe();
        let opening = self.message(&with, welcome);
        let (this, messages) = (self.clone(), Messages::new(writer, called.body));
        self.spawn(async move { this.converse(messages, &with, pending()).await });
        Answering { opening, rest }
    }

    fn message(&self, to: &NodeName, body: Body) -> Message {
        message([&self.node.0, &to.0], body)
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(self.stop.clone().run_until_cancelled_owned(task));
    }

    async fn converse(&self, messages: Messages, with: &NodeName, end: impl Future<Output = ()>) {
        let talk = unique_id() as u64;
        tokio::select! {
            () = self.carry(messages, with, talk) => {}
            () = end => {}
        }
        // An error says that the mesh stops.
        let _ = self.offered.send(PeerSaid { node: with.clone(), talk, offer: None }).await;
    }

    /// Carries what both say until one of them ends it.
    async fn carry(&self, messages: Messages, with: &NodeName, talk: u64) {
        let Messages { writer, mut reader } = messages;
        let mut saying = Saying::new(writer);
        let mut own = self.own.clone();
        own.mark_changed(); // the first word is what runs here
        let mut beat = tokio::time::interval(PULSE_EVERY);
        let mut pulse = Pulse::default();
        loop {
            let say = tokio::select! {
                said = saying.done() => match said {
                    Ok(()) => continue,
                    Err(_) => return,
                },
                heard = reader.next() => {
                    let Ok(Some(message)) = heard else { return };
                    match message.body.map(|body| *body) {
                        Some(Body::Ping(ping)) => match pulse.heard(ping, now()) {
                            Heard::Answer(pong) => *pong,
                            Heard::Took(took) => {
                                self.measured(with, took);
                                continue;
                            }
                            Heard::Stale => continue,
                        },
                        Some(Body::Offer(offer)) => {
                            let (node, offer) = (with.clone(), Some(offer));
                            match self.offered.send(PeerSaid { node, talk, offer }).await {
                                Ok(()) => continue,
                                Err(_) => return, // the mesh stops
                            }
                        }
                        // A peer speaks for itself only.
                        Some(Body::DialBack(asked)) => {
                            let asked = DialBack { node: Some(with.clone()), ..asked };
                            drop(self.asked.try_send(asked)); // who is not heard asks again
                            continue;
                        }
                        Some(_) | None => continue,
                    }
                }
                Ok(()) = own.changed(), if saying.is_free() => Body::Offer((**own.borrow_and_update()).clone()),
                _ = beat.tick(), if saying.is_free() => pulse.ask(now()),
            };
            saying.say(&self.message(with, say));
        }
    }

    fn measured(&self, with: &NodeName, took: Duration) {
        if let Some(live) = self.live.load().lives.get(&with.0) {
            live.took(took);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::link::sample::end;
    use crate::link::{Limits, Rest, Role, Serve, client, serve};

    fn controls(node: &str) -> (Controls, mpsc::Receiver<PeerSaid>) {
        let (offered, said) = mpsc::channel(16);
        let controls = Controls {
            node: NodeName(node.into()),
            instance: [0; 16],
            generation: 1,
            own: watch::Sender::<Arc<Offer>>::default().subscribe(),
            offered,
            asked: mpsc::channel(1).0,
            live: Arc::default(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        };
        (controls, said)
    }

    /// Answers the first Control with a refusal, the second with a Welcome and an end, others as it
    /// should.
    struct Moody(Controls, AtomicUsize);

    impl Serve for Moody {
        fn serve(
            self: Arc<Self>,
            called: Called,
        ) -> Pin<Box<dyn Future<Output = Answering> + Send>> {
            let with = NodeName("near".into());
            let turn = self.1.fetch_add(1, Ordering::Relaxed);
            let mut answering = self.0.answer(called, with.clone());
            match turn {
                0 => answering.opening.body = None,
                1 => answering.rest = Rest::Nothing,
                _ => {}
            }
            Box::pin(async move { answering })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_conversation_that_ends_is_opened_again_while_its_link_stands() {
        let ((near, mut said), (far, _far_said)) = (controls("near"), controls("far"));
        let (one, other) = tokio::io::duplex(1 << 16);
        let moody = Arc::new(Moody(far, AtomicUsize::new(0)));
        serve(end(other, "near", Role::Serves), moody.clone(), Limits::REQUESTS, &near.tasks);
        let link = client(end(one, "far", Role::Opens), Limits::REQUESTS, near.tasks.clone());
        let link = link.await.unwrap();
        near.begin(link.clone(), NodeName("far".into()));
        let mut heard = Vec::new();
        while heard.last() != Some(&true) {
            heard.push(said.recv().await.unwrap().offer.is_some());
        }
        assert_eq!(moody.1.load(Ordering::Relaxed), 3, "{heard:?}");
        sleep(AGAIN_WITHIN * 10).await;
        assert_eq!(moody.1.load(Ordering::Relaxed), 3, "it holds");
        assert!(link.is_open());
        // A Link that another takes the place of drains.
        link.close();
        link.closed().await;
        assert_eq!(said.recv().await.unwrap().offer.map(|_| ()), None);
        near.tasks.close();
        near.stop.cancel();
        near.tasks.wait().await;
    }
}
