//! The conversations with the hub, one after the other, and what this node tells of its own there and to
//! its peers.

use std::collections::BTreeMap;
use std::sync::Arc;

use edgemesh_proto::message::{Body, Counts, MAX_COUNTS, Offer, Refused, RuleCount, Welcome};
use edgemesh_proto::record::RuleName;
use tokio::sync::{mpsc, watch};

use crate::peers::{PeerSaid, Position, Talk};
use crate::sync::replica::Holding;

/// Offers of peers that wait to be heard.
const OFFERS: usize = 64;
/// Room towards the hub that is left to answers: what runs here can wait, and its last state counts.
const ANSWERS: usize = 4;

/// The side of whoever keeps the records.
#[derive(Debug)]
pub(super) struct Talking {
    talks: mpsc::Receiver<Talk>,
    talk: Option<Talk>,
    position: watch::Sender<Position>,
    own: watch::Sender<Arc<Offer>>,
    /// The hub has not heard what runs here now.
    owed: bool,
    counter: [u8; 16],
    /// What Rules have counted and the hub has not heard.
    uncounted: BTreeMap<RuleName, RuleCount>,
    offered: mpsc::Receiver<PeerSaid>,
}

/// What [`Talking`] is connected with.
#[derive(Clone, Debug)]
pub(super) struct Ends {
    /// Takes each conversation with the hub.
    pub(super) talks: mpsc::Sender<Talk>,
    /// What is held, for Hello.
    pub(super) position: watch::Receiver<Position>,
    /// What runs here.
    pub(super) own: watch::Receiver<Arc<Offer>>,
    /// Takes what peers say of themselves.
    pub(super) offered: mpsc::Sender<PeerSaid>,
}

/// What is heard.
#[derive(Debug)]
pub(super) enum News {
    /// A conversation begins; the one before is over.
    Begun(Welcome),
    /// What the hub says of records.
    Said(Box<Body>),
    /// The conversation is over.
    Over,
    /// What runs on a peer, by its own word.
    Peer(PeerSaid),
}

impl Talking {
    pub(super) fn new(at: Position) -> (Self, Ends) {
        let ((talks_in, talks), (offers_in, offered)) = (mpsc::channel(1), mpsc::channel(OFFERS));
        let (position, own) = (watch::Sender::new(at), watch::Sender::default());
        let ends = Ends {
            talks: talks_in,
            position: position.subscribe(),
            own: own.subscribe(),
            offered: offers_in,
        };
        let (counter, uncounted) = ([0; 16], BTreeMap::new());
        let talk = None;
        let new = Self { talks, talk, position, own, owed: false, counter, uncounted, offered };
        (new, ends)
    }

    /// Waits for news. Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> News {
        while self.owed || !self.uncounted.is_empty() {
            tokio::select! {
                () = room(self.talk.as_ref().map(|talk| talk.outgoing.clone())) => self.pay(),
                news = self.news() => return news,
            }
        }
        self.news().await
    }

    async fn news(&mut self) -> News {
        tokio::select! {
            Some(talk) = self.talks.recv() => {
                let welcome = talk.welcome.clone();
                self.talk = Some(talk);
                News::Begun(welcome)
            }
            body = heard(&mut self.talk) => match body {
                Some(body) => News::Said(Box::new(body)),
                None => {
                    self.talk = None;
                    News::Over
                }
            },
            Some(said) = self.offered.recv() => News::Peer(said),
            // Nobody is connected any more.
            else => std::future::pending().await,
        }
    }

    /// Tells the hub. `false`: nobody is there.
    pub(super) async fn say(&mut self, body: Body) -> bool {
        let Some(talk) = &self.talk else { return false };
        let said = talk.outgoing.send(body).await.is_ok();
        if !said {
            self.talk = None;
        }
        said
    }

    /// Ends the conversation, for a reason that both ends learn.
    pub(super) async fn refuse(&mut self, label: &str, text: String) {
        tracing::error!("the conversation with the cloud is over: {text}");
        let refused = Refused { label: label.to_owned(), text, retry_after_ms: 0 };
        self.say(Body::Refused(refused)).await;
        self.talk = None;
    }

    /// What the next Hello says.
    pub(super) fn holds(&self, at: Position) {
        self.position.send_if_modified(|before| std::mem::replace(before, at) != at);
    }

    /// Tells the hub and the peers what runs here, if that is news.
    pub(super) fn tell(&mut self, offer: Offer) {
        let offer = Arc::new(offer);
        let news = self.own.send_if_modified(|before| {
            let news = *before != offer;
            *before = offer.clone();
            news
        });
        if news {
            self.introduce();
        }
    }

    /// Tells the hub what runs here, as a conversation begins with.
    pub(super) fn introduce(&mut self) {
        self.owed = true;
        self.pay();
    }

    /// Tells the hub what Rules have counted by `counter`.
    pub(super) fn count(&mut self, counter: [u8; 16], counts: Vec<RuleCount>) {
        self.counter = counter;
        self.uncounted.extend(counts.into_iter().map(|count| (count.rule.clone(), count)));
        self.pay();
    }

    /// Tells what is owed, if there is room: waiting for a hub that does not listen would keep this
    /// node from its own affairs.
    fn pay(&mut self) {
        let Some(talk) = &self.talk else {
            // All of it is told when a conversation begins.
            self.uncounted.clear();
            return self.owed = false;
        };
        let has_room =
            || talk.outgoing.is_closed() || talk.outgoing.capacity() >= wanted(&talk.outgoing);
        // There is room, or the conversation is over.
        if self.owed && has_room() {
            let offer = Offer::clone(&self.own.borrow());
            let _ = talk.outgoing.try_send(Body::Offer(offer));
            self.owed = false;
        }
        while !self.owed && !self.uncounted.is_empty() && has_room() {
            let counts = std::iter::from_fn(|| self.uncounted.pop_first());
            let rules = counts.map(|(_, count)| count).take(MAX_COUNTS).collect();
            let counts = Counts { counter: self.counter, rules };
            let _ = talk.outgoing.try_send(Body::Counts(counts));
        }
    }
}

/// Resolves when there is room for more than answers; never where there is no conversation.
async fn room(outgoing: Option<mpsc::Sender<Body>>) {
    let Some(outgoing) = outgoing else { return std::future::pending().await };
    // An error says that the conversation is over.
    let _ = outgoing.reserve_many(wanted(&outgoing)).await;
}

/// Room that must be there before what runs here is told.
fn wanted(outgoing: &mpsc::Sender<Body>) -> usize {
    outgoing.max_capacity().min(ANSWERS + 1)
}

impl From<Holding> for Position {
    fn from(held: Holding) -> Self {
        let Holding { epoch, revision, digest } = held;
        Self { epoch, revision, digest }
    }
}

async fn heard(talk: &mut Option<Talk>) -> Option<Body> {
    match talk {
        Some(talk) => talk.incoming.recv().await,
        None => std::future::pending().await,
    }
}

/// As [`Talking::next`], for whoever may have none.
pub(super) async fn next(talking: &mut Option<Talking>) -> News {
    match talking {
        Some(talking) => talking.next().await,
        None => std::future::pending().await,
    }
}
