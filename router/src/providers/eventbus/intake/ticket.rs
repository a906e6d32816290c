//! Messages that the broker keeps until they are acknowledged, which is when every Rule that takes one
//! has ended with it, whatever came of that.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use rumqttc::{AsyncClient, ManualAck, PubAck, Publish, QoS};

/// Those that are not acknowledged yet, by the number that the broker gave them.
#[derive(Debug, Default)]
pub(super) struct InHand(Mutex<HashMap<u16, Held>>);

#[derive(Debug)]
struct Held {
    topic: Bytes,
    payload: Bytes,
    /// Rules that are not done with it.
    left: usize,
    /// Tells it from another one by the same number, in a session that the broker began anew.
    turn: Arc<()>,
    /// The connection by which it came last.
    client: AsyncClient,
}

/// One Rule's part in a message. Dropped without [`Ticket::ended`], the broker keeps the message.
#[derive(Debug)]
pub(super) struct Ticket {
    number: u16,
    turn: Arc<()>,
    in_hand: Arc<InHand>,
}

impl InHand {
    /// Notes a message that so many Rules take.
    pub(super) fn enter(
        self: &Arc<Self>,
        publish: &Publish,
        client: &AsyncClient,
        takers: usize,
    ) -> Arc<Ticket> {
        let Publish { topic, payload, pkid: number, .. } = publish.clone();
        let turn = Arc::new(());
        let held =
            Held { topic, payload, left: takers, turn: turn.clone(), client: client.clone() };
        self.0.lock().insert(number, held);
        Arc::new(Ticket { number, turn, in_hand: self.clone() })
    }

    /// Whether it is in hand already and the broker only sends it again, after the connection broke. If
    /// its delivery ended meanwhile, it is acknowledged now.
    pub(super) fn again(&self, publish: &Publish, client: &AsyncClient) -> bool {
        let mut in_hand = self.0.lock();
        let same =
            |held: &&mut Held| held.topic == publish.topic && held.payload == publish.payload;
        let Some(held) = in_hand.get_mut(&publish.pkid).filter(same) else { return false };
        held.client = client.clone();
        if held.left == 0 && send(client, publish.pkid) {
            in_hand.remove(&publish.pkid);
        }
        true
    }

    /// None of them will be acknowledged.
    pub(super) fn forget(&self) {
        self.0.lock().clear();
    }
}

impl Ticket {
    /// A Rule is done with it.
    pub(super) fn ended(&self) {
        let mut in_hand = self.in_hand.0.lock();
        let ours = |held: &&mut Held| Arc::ptr_eq(&held.turn, &self.turn);
        let Some(held) = in_hand.get_mut(&self.number).filter(ours) else { return };
        held.left = held.left.saturating_sub(1);
        // Without its connection it stays in hand: it will be sent again.
        if held.left == 0 && send(&held.client, self.number) {
            in_hand.remove(&self.number);
        }
    }
}

/// Acknowledges what nobody takes.
pub(in crate::providers::eventbus) fn acknowledge(client: &AsyncClient, publish: &Publish) {
    if publish.qos != QoS::AtMostOnce {
        send(client, publish.pkid);
    }
}

/// Whether it could be acknowledged. Never waits: whoever would make room may wait for us. What is not
/// acknowledged comes again.
fn send(client: &AsyncClient, number: u16) -> bool {
    client.try_manual_ack(ManualAck::PubAck(PubAck::new(number))).is_ok()
}
