//! The registry's records as this node keeps them: what its conversations with the hub say, step by
//! step, and what this node tells of its own.

use std::collections::BTreeMap;
use std::sync::Arc;

use edgemesh_proto::message::{Body, Offer, Refused};
use edgemesh_proto::record::{Body as RecordBody, Key, NodeName, Put, Record};
use tokio::sync::{mpsc, watch};

use crate::digest::Hasher;
use crate::peers::{Position, Talk};
use crate::sync::offer;
use crate::sync::replica::{Holding, Reaction, Replica, Step};

/// See the module.
#[derive(Debug)]
pub(super) struct Synced {
    node: NodeName,
    replica: Replica,
    records: BTreeMap<Key, Record>,
    talks: mpsc::Receiver<Talk>,
    talk: Option<Talk>,
    position: watch::Sender<Position>,
    own: watch::Sender<Arc<Offer>>,
    /// The registry has said that this is all.
    in_step: bool,
}

/// What [`Synced`] is connected with.
#[derive(Clone, Debug)]
pub(super) struct Ends {
    pub(super) talks: mpsc::Sender<Talk>,
    pub(super) position: watch::Receiver<Position>,
    pub(super) own: watch::Receiver<Arc<Offer>>,
}

impl Synced {
    /// Begins with what the store held.
    pub(super) fn new(
        node: NodeName,
        epoch: [u8; 16],
        revision: u64,
        records: impl IntoIterator<Item = Record>,
    ) -> (Self, Ends) {
        let records: BTreeMap<Key, Record> =
            records.into_iter().map(|record| (record.key(), record)).collect();
        let mut hasher = Hasher::default();
        let held: Vec<_> = records
            .iter()
            .map(|(key, record)| (key.clone(), hasher.of(key, &record.encode_body())))
            .collect();
        let replica = Replica::new(epoch, revision, held);
        let (talks_in, talks) = mpsc::channel(1);
        let position = watch::Sender::new(at(replica.holding()));
        let own = watch::Sender::default();
        let ends = Ends { talks: talks_in, position: position.subscribe(), own: own.subscribe() };
        let new = Self { node, replica, records, talks, talk: None, position, own, in_step: false };
        (new, ends)
    }

    /// The records, without those by which others see this node.
    pub(super) fn records(&self) -> BTreeMap<Key, Record> {
        let own = offer::prefix(&self.node);
        let others = self.records.iter().filter(|(key, _)| !key.name.starts_with(&*own));
        others.map(|(key, record)| (key.clone(), record.clone())).collect()
    }

    /// Waits for a step. Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> Step {
        loop {
            let Some(talk) = &mut self.talk else {
                match self.talks.recv().await {
                    Some(talk) => self.begin(talk).await,
                    None => std::future::pending().await,
                }
                continue;
            };
            let body = tokio::select! {
                Some(newer) = self.talks.recv() => {
                    self.begin(newer).await;
                    continue;
                }
                body = talk.incoming.recv() => body,
            };
            let Some(body) = body else {
                self.over();
                continue;
            };
            match self.replica.on(body) {
                Ok(Reaction::Nothing) => {}
                Ok(Reaction::Say(body)) => self.say(body).await,
                Ok(Reaction::Apply(step)) => return step,
                Err(broken) => {
                    tracing::error!("the conversation with the registry is over: {broken}");
                    let text = broken.to_string();
                    let refused = Refused { label: "badStep".into(), text, retry_after_ms: 0 };
                    self.say(Body::Refused(refused)).await;
                    self.over();
                }
            }
        }
    }

    async fn begin(&mut self, talk: Talk) {
        self.replica.begin();
        self.talk = Some(talk);
        let own = self.own.borrow().clone();
        self.say(Body::Offer((*own).clone())).await;
    }

    fn over(&mut self) {
        (self.talk, self.in_step) = (None, false);
    }

    async fn say(&mut self, body: Body) {
        let Some(talk) = &self.talk else { return };
        if talk.outgoing.send(body).await.is_err() {
            self.over();
        }
    }

    /// Takes a step in.
    pub(super) fn take(&mut self, step: &Step) {
        for key in &step.delete {
            self.records.remove(key);
        }
        for put in &step.put {
            match put.record() {
                Ok(record) => drop(self.records.insert(put.key.clone(), record)),
                Err(bad) => tracing::warn!(record = %put.key, "a record does not count: {bad}"),
            }
        }
    }

    /// The step is visible, and stored or not.
    pub(super) async fn done(&mut self, stored: bool) {
        let answer = self.replica.done(stored);
        self.position.send_replace(at(self.replica.holding()));
        self.in_step = true;
        self.say(answer).await;
    }

    /// Tells the hub and the peers what runs here, when that changed.
    pub(super) async fn tell<'r>(&mut self, own: impl Iterator<Item = &'r Record>) {
        let prefix = offer::prefix(&self.node);
        let risen = own.map(|record| {
            let mut record = record.clone();
            if let RecordBody::Slice(_) = record.body {
                record.name = format!("{prefix}{}", record.name).into();
            }
            Put::from(&record)
        });
        let offer = Arc::new(Offer { records: risen.collect() });
        let news = self.own.send_if_modified(|before| {
            let news = *before != offer;
            *before = offer.clone();
            news
        });
        if news {
            self.say(Body::Offer((*offer).clone())).await;
        }
    }
}

fn at(holding: Holding) -> Position {
    let Holding { epoch, revision, digest } = holding;
    Position { epoch, revision, digest }
}
