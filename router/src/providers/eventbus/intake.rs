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
use crate::providers::eventbus::shrink::{MOST_READ, Mark};

/// Messages that the broker keeps until they are acknowledged, and that wait or are under way, of all
/// Rules. Brokers send 10 to 100 before the first is acknowledged, unless they are told otherwise.
const MOST_KEPT: usize = 4096;
/// Kilobytes of those.
const KEPT_KB: u32 = 64 * 1024;
/// What one of those counts as, at least, so that both bounds are one.
const LEAST_KB: u32 = KEPT_KB / 4096;
/// Kilobytes of messages that nobody keeps, beside those.
const LOOSE_KB: u32 = 32 * 1024;

/// See the module.
#[derive(Debug)]
pub(super) struct Intake {
    deliver: Arc<dyn Deliver>,
    tasks: TaskTracker,
    /// Those who are to end before everything does.
    busy: TaskTracker,
    mark: Mark,
    stop: CancellationToken,
    lanes: Mutex<BTreeMap<RuleName, (Lane, Retained)>>,
    in_hand: Arc<InHand>,
    kept: Arc<Semaphore>,
    loose: Arc<Semaphore>,
}

/// The broker sent more than there is room for.
#[derive(Debug)]
pub(super) struct Flood;

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
        [tasks, busy]: [TaskTracker; 2],
        mark: Mark,
        stop: CancellationToken,
    ) -> Self {
        let room = |kilobytes: u32| Arc::new(Semaphore::new(kilobytes as usize));
        let (kept, loose) = (room(KEPT_KB), room(LOOSE_KB));
        let (lanes, in_hand) = (Mutex::default(), Arc::default());
        Self { deliver, tasks, busy, mark, stop, lanes, in_hand, kept, loose }
    }

    /// From now on these Rules take messages, and no others.
    pub(super) fn serve(&self, rules: &[(Arc<Rule>, Filter)]) {
        let mut lanes = self.lanes.lock();
        lanes.retain(|name, _| rules.iter().any(|(rule, _)| rule.name == *name));
        for (rule, filter) in rules {
            match lanes.get_mut(&rule.name) {
                Some((lane, _)) => lane.follow(rule, filter),
                None => {
                    let (deliver, stop) = (self.deliver.clone(), self.stop.clone());
                    let (lane, work) = Lane::new(rule, filter, deliver, stop);
                    self.tasks.spawn(self.busy.track_future(work));
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
        self.in_hand.resume();
        self.lanes.lock().values_mut().for_each(|(_, retained)| retained.resume(now));
    }

    /// The broker has forgotten this client: what is in hand will never be acknowledged.
    pub(super) fn forget(&self) {
        self.in_hand.forget();
    }

    /// Acknowledges what there was no room to acknowledge before.
    pub(super) fn settle(&self) {
        self.in_hand.settle();
    }

    /// Takes a message. Never waits, since with it the connection would. Where there is no room, one of
    /// QoS 0 is dropped.
    ///
    /// # Errors
    /// There is no room for one that is to be acknowledged: the broker is to send it again.
    pub(super) fn take(&self, publish: Publish, client: &AsyncClient) -> Result<(), Flood> {
        // Whoever comes after us takes it.
        if self.stop.is_cancelled() {
            return Ok(());
        }
        if let Some(size) = self.mark.size(&publish.payload) {
            self.pass_over(&publish, client, size);
            return Ok(());
        }
        match publish.qos {
            QoS::AtMostOnce => {
                self.take_loose(publish);
                Ok(())
            }
            QoS::AtLeastOnce | QoS::ExactlyOnce => self.take_kept(publish, client),
        }
    }

    fn take_kept(&self, publish: Publish, client: &AsyncClient) -> Result<(), Flood> {
        if publish.dup && self.in_hand.again(&publish, client) {
            return Ok(());
        }
        let size = kilobytes(&publish).clamp(LEAST_KB, KEPT_KB);
        let room = self.kept.clone().try_acquire_many_owned(size).map_err(|_| Flood)?;
        // Without takers it is of a Rule that is gone, or what a filter covers too much.
        let takers = self.takers(&publish, now());
        let ticket = self.in_hand.enter(&publish, client, takers.len());
        give(&takers, publish, room, &Some(ticket));
        Ok(())
    }

    /// Takes one of which only the size was read: it would come again, for ever.
    fn pass_over(&self, publish: &Publish, client: &AsyncClient, size: u64) {
        let why = format!("dropped: a packet of {size} bytes, and {MOST_READ} are read");
        self.takers(publish, now()).iter().for_each(|lane| lane.lose(&why));
        if publish.qos != QoS::AtMostOnce {
            self.in_hand.enter(publish, client, 0);
        }
    }

    fn take_loose(&self, publish: Publish) {
        let takers = self.takers(&publish, now());
        let size = kilobytes(&publish).clamp(1, LOOSE_KB);
        match self.loose.clone().try_acquire_many_owned(size) {
            Ok(room) => give(&takers, publish, room, &None),
            Err(_) => takers.iter().for_each(|lane| lane.lose(lane::TOO_MANY)),
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
}

fn kilobytes(publish: &Publish) -> u32 {
    u32::try_from(publish.payload.len() / 1024).unwrap_or(u32::MAX)
}

fn give(takers: &[Lane], publish: Publish, room: OwnedSemaphorePermit, ticket: &Tickets) {
    let Publish { topic, payload, retain, .. } = publish;
    let message = Arrived { topic, payload, retained: retain, _room: Arc::new(room) };
    for lane in takers {
        lane.give(Job { message: message.clone(), ticket: ticket.clone() });
    }
}

/// A message that was lost here, counted on its Rule.
fn lost(rule: &Rule, why: &str) {
    tracing::debug!(rule = %rule.name, why, "a message of the broker was dropped");
    rule.live.failed(why, now_ms());
}

type Tickets = Option<Arc<Ticket>>;
