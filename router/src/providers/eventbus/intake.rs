//! Messages of the broker on their way to Rules: one queue a Rule, and an acknowledgement when the
//! last of those who take a message has ended with it.

mod lane;
mod retained;
mod ticket;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use edgemesh_core::io::now;
use edgemesh_core::snapshot::rules::{Filter, Rule};
use edgemesh_core::tunnel::now_ms;
use edgemesh_proto::record::RuleName;
use parking_lot::Mutex;
use rumqttc::{AsyncClient, Publish, QoS};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::providers::Deliver;
use crate::providers::eventbus::intake::lane::{Job, Lane};
use crate::providers::eventbus::intake::retained::Retained;
use crate::providers::eventbus::intake::ticket::{InHand, Ticket};

pub(super) use ticket::acknowledge;

/// Kilobytes of messages that wait or are under way, of all Rules.
const ROOM_KB: u32 = 64 * 1024;

/// See the module.
#[derive(Debug)]
pub(super) struct Intake {
    deliver: Arc<dyn Deliver>,
    tasks: TaskTracker,
    stop: CancellationToken,
    lanes: Mutex<BTreeMap<RuleName, (Lane, Retained)>>,
    in_hand: Arc<InHand>,
    room: Arc<Semaphore>,
}

/// A message, and its place in the room.
#[derive(Clone, Debug)]
struct Arrived {
    topic: Bytes,
    payload: Bytes,
    retained: bool,
    _room: Arc<OwnedSemaphorePermit>,
}

impl Intake {
    pub(super) fn new(
        deliver: Arc<dyn Deliver>,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        let room = Arc::new(Semaphore::new(ROOM_KB as usize));
        Self { deliver, tasks, stop, lanes: Mutex::default(), in_hand: Arc::default(), room }
    }

    /// From now on these Rules take messages, and no others.
    pub(super) fn serve(&self, rules: &[(Arc<Rule>, Filter)]) {
        let mut lanes = self.lanes.lock();
        lanes.retain(|name, _| rules.iter().any(|(rule, _)| rule.name == *name));
        for (rule, filter) in rules {
            match lanes.get_mut(&rule.name) {
                Some((lane, _)) => lane.follow(rule, filter),
                None => {
                    let (lane, work) = Lane::new(rule, filter, self.deliver.clone());
                    self.tasks.spawn(self.stop.clone().run_until_cancelled_owned(work));
                    lanes.insert(rule.name.clone(), (lane, Retained::default()));
                }
            }
        }
    }

    /// What is retained is about to come, from its beginning for these Rules.
    pub(super) fn expect_retained(&self, newcomers: &[RuleName], now: Instant) {
        let mut lanes = self.lanes.lock();
        for rule in newcomers {
            if let Some((_, retained)) = lanes.get_mut(rule) {
                retained.begin(now);
            }
        }
    }

    /// There is a connection again; the broker sends what it still has for this client.
    pub(super) fn resume(&self, now: Instant) {
        self.lanes.lock().values_mut().for_each(|(_, retained)| retained.resume(now));
    }

    /// The broker has forgotten this client: what is in hand will never be acknowledged.
    pub(super) fn forget(&self) {
        self.in_hand.forget();
    }

    /// Takes a message. Waits, and with it the broker, where there is no room for one that is to be
    /// acknowledged; another one is dropped then.
    pub(super) async fn take(&self, publish: Publish, client: &AsyncClient) {
        let is_lasting = publish.qos != QoS::AtMostOnce;
        if is_lasting && publish.dup && self.in_hand.again(&publish, client) {
            return;
        }
        let takers = self.takers(&publish, now());
        if takers.is_empty() {
            // It is of a Rule that is gone, or what a filter covers too much.
            acknowledge(client, &publish);
            return;
        }
        let size = u32::try_from(publish.payload.len() / 1024).unwrap_or(u32::MAX);
        let Some(room) = self.room(size.clamp(1, ROOM_KB), is_lasting).await else {
            takers.iter().for_each(|lane| lane.drop_one());
            return;
        };
        let ticket = is_lasting.then(|| self.in_hand.enter(&publish, client, takers.len()));
        let Publish { topic, payload, retain, .. } = publish;
        let message = Arrived { topic, payload, retained: retain, _room: Arc::new(room) };
        for lane in takers {
            lane.give(Job { message: message.clone(), ticket: ticket.clone() }).await;
        }
    }

    /// Those who want it.
    fn takers(&self, publish: &Publish, now: Instant) -> Vec<Lane> {
        let Ok(topic) = std::str::from_utf8(&publish.topic) else { return Vec::new() };
        let mut lanes = self.lanes.lock();
        let wants = |(lane, _): &&mut (Lane, Retained)| lane.filter.matches(topic);
        let mut takers = Vec::new();
        for (lane, retained) in lanes.values_mut().filter(wants) {
            if !publish.retain || retained.is_new(topic, now) {
                takers.push(lane.clone());
            }
        }
        takers
    }

    async fn room(&self, size: u32, waits: bool) -> Option<OwnedSemaphorePermit> {
        let room = self.room.clone();
        match waits {
            true => room.acquire_many_owned(size).await.ok(),
            false => room.try_acquire_many_owned(size).ok(),
        }
    }
}

/// A message that was lost here, counted on its Rule.
fn lost(rule: &Rule, why: &str) {
    tracing::debug!(rule = %rule.name, why, "a message of the broker was dropped");
    rule.live.failed(why, now_ms());
}

type Tickets = Option<Arc<Ticket>>;
