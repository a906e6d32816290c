//! The conversation with one agent on Control: records down, offers up, and who dials whom.

use std::sync::Arc;
use std::time::Duration;

use edgemesh_core::identity::{CLOUD, Proved};
use edgemesh_core::io::now;
use edgemesh_core::link::{
    self, Answering, Called, Failure, LinkError, MessageReader, MessageWriter, Messages,
};
use edgemesh_core::peers::{Heard, PULSE_EVERY, Pulse, message, removal};
use edgemesh_proto::message::{Body, Counts, DialBack, Message, Offer, Ranges, Refused, Welcome};
use edgemesh_proto::record::NodeName;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::hub::door::{refusal, refuse, reply};
use crate::hub::node::Node;
use crate::hub::roster::Arrival;
use crate::hub::{Hub, LAST_WORDS, Parts};
use crate::registry::session::Said;
use crate::registry::shared::Talk;

/// Messages for one node that wait at once.
const QUEUE: usize = 16;
/// Answers to pings that wait at once.
const PONGS: usize = 4;
/// Longest wait for a node to take what is said next: a Message of 1 MiB takes as long where 70 kbit
/// a second get through. Who is silent altogether is noticed much sooner, by its Link.
const TAKEN_WITHIN: Duration = Duration::from_secs(120);

/// Seats an agent that says hello, or says why not.
pub(super) async fn begin(hub: &Hub, called: Called, proved: &Proved) -> Answering {
    let Some(Body::Hello(hello)) = called.opening.body.as_deref().cloned() else {
        return refuse(hub, &called, "unknownOperation", "Control begins with hello");
    };
    if hello.node != proved.node {
        let text = format!("{} says that it is {}", proved.node.0, hello.node.0);
        return refuse(hub, &called, "otherNode", &text);
    }
    let talk = match hub.0.parts.registry.talk(&hello) {
        Ok(talk) => talk,
        Err(violation) => {
            let told = violation.refused();
            return refuse(hub, &called, &told.label, &told.text);
        }
    };
    let (say, to_node) = mpsc::channel(QUEUE);
    let address = called.from.address;
    let seated = |seat| Arc::new(Node::new(&hello, seat, proved.issued, address, say));
    let arrival = hub.0.seats.write().arrives(&hello, seated);
    let node = match arrival {
        Arrival::Seated(node) => node,
        Arrival::Replaces { new, older } => {
            older.left();
            new
        }
        Arrival::Duplicate { generation } => {
            let text = format!(
                "another agent says that it is {} (start {generation}, this is start {}): stop one \
                 of them, or give it another name and join again",
                hello.node.0, hello.generation
            );
            return refuse(hub, &called, "duplicateNode", &text);
        }
    };
    let seated = Seated { hub: hub.clone(), node };
    let opening = reply(&called.opening, Body::Welcome(welcome(hub, proved)));
    let (writer, rest) = link::pipe();
    let (pongs, pongs_to_node) = mpsc::channel(PONGS);
    let (proved, pulse) = (proved.clone(), Mutex::default());
    let session = Session { seated, proved, talk, pulse, pongs };
    let messages = Messages::new(writer, called.body);
    let to_node = ToNode { asked: to_node, pongs: pongs_to_node };
    let stop = hub.0.parts.stop.clone();
    let registry = hub.0.parts.registry.clone();
    hub.0.parts.tasks.clone().spawn(stop.run_until_cancelled_owned(async move {
        tracing::info!(node = %hello.node.0, %address, version = hello.version, "linked");
        registry.joined(&hello.node, session.proved.issued, hello.links.clone()).await;
        session.run(messages, to_node).await;
    }));
    Answering { opening, rest }
}

fn welcome(hub: &Hub, proved: &Proved) -> Welcome {
    let parts = &hub.0.parts;
    Welcome {
        node: NodeName(CLOUD.into()),
        instance: parts.instance,
        epoch: parts.registry.epoch(),
        revision: parts.registry.revision(),
        renew: proved.is_due(parts.tls.clock().seconds()),
    }
}

/// A seat that is taken, until this is dropped.
struct Seated {
    hub: Hub,
    node: Arc<Node>,
}

impl Drop for Seated {
    fn drop(&mut self) {
        self.node.left();
        self.hub.0.seats.write().leaves(&self.node.name, self.node.seat);
    }
}

struct Session {
    seated: Seated,
    proved: Proved,
    talk: Talk,
    pulse: Mutex<Pulse>,
    /// Takes answers to pings.
    pongs: mpsc::Sender<Body>,
}

/// What is to be said, beside the records.
struct ToNode {
    asked: mpsc::Receiver<Body>,
    pongs: mpsc::Receiver<Body>,
}

/// How a conversation ended.
struct End {
    why: String,
    /// What the node is to hear about it.
    last: Option<Body>,
}

impl From<LinkError> for End {
    fn from(error: LinkError) -> Self {
        let why = error.to_string();
        let breaks_rules = error.kind() == Failure::Protocol;
        Self { last: breaks_rules.then(|| refusal("malformed", &why)), why }
    }
}

impl End {
    fn of(why: &str) -> Self {
        Self { why: why.to_owned(), last: None }
    }
}

impl Session {
    /// Listens and speaks at once: each side may have so much to say that it waits for the other to
    /// read, and if it did not read meanwhile, both would wait for ever.
    async fn run(self, messages: Messages, to_node: ToNode) {
        let Messages { writer, reader } = messages;
        let Seated { hub, node } = &self.seated;
        let ended = tokio::select! {
            () = node.over() => End::of(match hub.0.parts.stop.is_cancelled() {
                true => "the cloud stops",
                false => "the node's newer connection took its place",
            }),
            () = hub.until_void(&self.proved) => {
                End { why: "it was removed".into(), last: Some(removal(&node.name).into()) }
            }
            ended = self.listen(reader) => ended.unwrap_or_else(End::from),
            ended = self.speak(&writer, to_node) => ended.unwrap_or_else(End::from),
        };
        tracing::info!(node = %node.name.0, "no longer linked: {}", ended.why);
        node.left();
        if let Some(last) = ended.last {
            let said = timeout(LAST_WORDS, self.says_last(&writer, last)).await;
            drop(said); // who does not listen either has no right to know
        }
    }

    async fn says_last(&self, writer: &MessageWriter, body: Body) -> Result<(), LinkError> {
        writer.send(&self.message(body)).await?;
        writer.finish();
        Ok(())
    }

    async fn speak(&self, writer: &MessageWriter, mut to_node: ToNode) -> Result<End, LinkError> {
        let mut beat = tokio::time::interval(PULSE_EVERY);
        let mut ranges = self.seated.hub.0.parts.registry.ranges().follow();
        ranges.mark_changed();
        loop {
            let say = tokio::select! {
                // The sender lives in the registry.
                Ok(()) = ranges.changed() => {
                    let Some(known) = ranges.borrow_and_update().clone() else { continue };
                    self.message(Body::Ranges(Ranges { service_cidrs: known.to_vec() })).encode()
                }
                Some(body) = to_node.asked.recv() => self.message(body).encode(),
                Some(pong) = to_node.pongs.recv() => self.message(pong).encode(),
                said = self.talk.next() => match said {
                    Said::Delta(delta) => self.with_delta(&delta),
                    Said::Held(held) => self.message(Body::Held(held)).encode(),
                },
                _ = beat.tick() => {
                    let ping = self.pulse.lock().ask(now());
                    self.message(ping).encode()
                }
            };
            match timeout(TAKEN_WITHIN, writer.send_encoded(&say)).await {
                Ok(said) => said?,
                Err(_) => return Ok(End::of("it does not read what it is told")),
            }
        }
    }

    async fn listen(&self, mut reader: MessageReader) -> Result<End, LinkError> {
        loop {
            match reader.next().await? {
                None => return Ok(End::of("it hung up")),
                Some(message) => {
                    if let Some(end) = self.heard(message).await {
                        return Ok(end);
                    }
                }
            }
        }
    }

    /// What an agent says, and whether that is the end.
    async fn heard(&self, message: Message) -> Option<End> {
        match message.body.map(|body| *body)? {
            Body::Ping(ping) => {
                let heard = self.pulse.lock().heard(ping, now());
                match heard {
                    // Who asks faster than it reads the answers gets fewer.
                    Heard::Answer(pong) => drop(self.pongs.try_send(*pong)),
                    Heard::Took(took) => self.seated.node.took(took),
                    Heard::Stale => {}
                }
                None
            }
            Body::Offer(offer) => {
                self.offered(offer).await;
                None
            }
            Body::Counts(counts) => {
                self.counted(counts);
                None
            }
            Body::DialBack(asked) => {
                self.ask_back(asked);
                None
            }
            // It has ended the conversation: its reason is the one to be known.
            Body::Refused(Refused { label, text, .. }) => {
                tracing::warn!(node = %self.seated.node.name.0, label, "the node says no: {text}");
                Some(End { why: format!("it says no: {text} ({label})"), last: None })
            }
            body => self.talk.hear(&body).err().map(|violation| {
                let told = violation.refused();
                let last = Some(refusal(&told.label, &told.text));
                End { why: format!("it broke the rules: {violation}"), last }
            }),
        }
    }

    async fn offered(&self, offer: Offer) {
        let Seated { hub, node } = &self.seated;
        let registry = &hub.0.parts.registry;
        for bad in registry.offer(&node.name, self.proved.issued, offer.records).await {
            tracing::warn!(node = %node.name.0, "an offered record does not count: {bad}");
        }
    }

    /// A node whose clock is ahead says of no message that it is yet to be delivered.
    fn counted(&self, mut counts: Counts) {
        let Seated { hub, node } = &self.seated;
        let Parts { registry, tls, .. } = &hub.0.parts;
        let now = tls.clock().seconds().saturating_add(1).saturating_mul(1000);
        for count in &mut counts.rules {
            count.last_success = count.last_success.min(now);
        }
        registry.count(&node.name, self.proved.issued, &counts);
    }

    /// Passes on to another node that this one wants to be dialled.
    fn ask_back(&self, asked: DialBack) {
        let Seated { hub, node } = &self.seated;
        let Some(other) = asked.node.and_then(|name| hub.node(&name)) else { return };
        let asked = DialBack { node: Some(node.name.clone()), links: asked.links };
        // Who has left cannot dial either, and who is not heard asks again.
        if let Err(error) = other.tell(Body::DialBack(asked)) {
            tracing::debug!("not asked to dial: {error}");
        }
    }

    fn message(&self, body: Body) -> Message {
        message([CLOUD, &self.seated.node.name.0], body)
    }

    /// A delta was encoded once for all who get it.
    fn with_delta(&self, delta: &[u8]) -> Vec<u8> {
        let mut head = self.message(Body::Delta(Default::default()));
        head.body = None;
        head.encode_with_delta(delta)
    }
}
