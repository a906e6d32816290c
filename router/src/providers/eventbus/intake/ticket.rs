//! Messages that the broker keeps until they are acknowledged, which is when every Rule that takes one
//! has ended with it, whatever came of that.

use std::collections::HashMap;
use std::mem;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use rumqttc::{AsyncClient, ManualAck, PubAck, Publish};

/// Those that are not acknowledged yet.
#[derive(Debug, Default)]
pub(super) struct InHand(Mutex<Numbered>);

#[derive(Debug, Default)]
struct Numbered {
    /// By the number that the broker gave them.
    held: HashMap<u16, Held>,
    /// Numbers of those that every Rule is done with, but for which the event loop had no room.
    due: Vec<u16>,
}

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
    /// Notes a message that so many Rules take; acknowledges it at once if none does.
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
        let mut numbered = self.0.lock();
        numbered.held.insert(number, held);
        numbered.acknowledge(number);
        drop(numbered);
        Arc::new(Ticket { number, turn, in_hand: self.clone() })
    }

    /// Whether it is in hand already and the broker only sends it again, after the connection broke. If
    /// its delivery ended meanwhile, it is acknowledged now.
    pub(super) fn again(&self, publish: &Publish, client: &AsyncClient) -> bool {
        let mut numbered = self.0.lock();
        let same =
            |held: &&mut Held| held.topic == publish.topic && held.payload == publish.payload;
        let Some(held) = numbered.held.get_mut(&publish.pkid).filter(same) else { return false };
        held.client = client.clone();
        numbered.acknowledge(publish.pkid);
        true
    }

    /// Acknowledges what could not be when its delivery ended.
    pub(super) fn settle(&self) {
        let mut numbered = self.0.lock();
        for number in mem::take(&mut numbered.due) {
            numbered.acknowledge(number);
        }
    }

    /// There is another connection, by which the broker sends again what it wants acknowledged.
    pub(super) fn resume(&self) {
        self.0.lock().due.clear();
    }

    /// None of them will be acknowledged.
    pub(super) fn forget(&self) {
        *self.0.lock() = Numbered::default();
    }
}

impl Numbered {
    /// If every Rule is done with it. Never waits: whoever would make room may wait for us. Without
    /// room or connection it stays in hand.
    fn acknowledge(&mut self, number: u16) {
        let Some(held) = self.held.get(&number).filter(|held| held.left == 0) else { return };
        match held.client.try_manual_ack(ManualAck::PubAck(PubAck::new(number))) {
            Ok(()) => drop(self.held.remove(&number)),
            Err(_) => self.due.push(number),
        }
    }
}

impl Ticket {
    /// A Rule is done with it.
    pub(super) fn ended(&self) {
        let mut numbered = self.in_hand.0.lock();
        let ours = |held: &&mut Held| Arc::ptr_eq(&held.turn, &self.turn);
        let Some(held) = numbered.held.get_mut(&self.number).filter(ours) else { return };
        held.left = held.left.saturating_sub(1);
        numbered.acknowledge(self.number);
    }
}

#[cfg(test)]
mod tests {
    use rumqttc::{MqttOptions, QoS};

    use super::*;

    #[test]
    fn what_finds_no_room_is_acknowledged_later() {
        let options = MqttOptions::new("c", ("localhost", 1883));
        // Nobody polls, so that there is room for one, until it is cleaned.
        let (client, mut events) = AsyncClient::builder(options).capacity(1).build();
        let in_hand = Arc::new(InHand::default());
        let enter = |number| {
            let mut publish = Publish::new("t", QoS::AtLeastOnce, "x");
            publish.pkid = number;
            in_hand.enter(&publish, &client, 1)
        };
        let tickets = [1, 2, 3].map(enter);
        tickets.iter().for_each(|ticket| ticket.ended());
        for left in [2, 1, 0] {
            assert_eq!(in_hand.0.lock().held.len(), left);
            events.clean();
            in_hand.settle();
        }
    }
}
