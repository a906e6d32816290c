//! The conversation with the hub, for as long as Control stands.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use edgemesh_proto::message::{Body, DialBack};
use tokio::sync::mpsc;

use crate::identity::Expect;
use crate::io::now;
use crate::link::{self, ALPN_REVERSE, Limits, Messages};
use crate::peers::pulse::{Heard, PULSE_EVERY, Pulse};
use crate::peers::saying::Saying;
use crate::peers::uplink::{Control, Linked, Talk, Trouble, Uplink, UplinkState};
use crate::peers::while_served;

/// Messages that wait for the source, or for the hub, at once.
const QUEUE: usize = 16;

impl Uplink {
    /// Carries what both sides say until the Link ends.
    pub(super) async fn converse(&self, control: Control, talks: &mpsc::Sender<Talk>) -> Trouble {
        let Control { link, server, address, welcome, messages } = control;
        let (to_source, incoming) = mpsc::channel(QUEUE);
        let (outgoing, mut to_hub) = mpsc::channel(QUEUE);
        tracing::info!(server, %address, "linked to the cloud");
        *self.0.outgoing.lock() = Some(outgoing.clone());
        self.0.state.send_replace(UplinkState {
            linked: Some(Linked { server, address, since: SystemTime::now(), round_trip: None }),
            ..UplinkState::default()
        });
        if talks.send(Talk { welcome, incoming, outgoing }).await.is_err() {
            return Trouble::Ended; // the mesh stops
        }
        let mut beat = tokio::time::interval(PULSE_EVERY);
        let mut pulse = Pulse::default();
        let Messages { writer, mut reader } = messages;
        let mut saying = Saying::new(writer);
        // Heard, and not yet taken: whoever keeps the records may have to say something first.
        let mut heard = None;
        let trouble = loop {
            let say = tokio::select! {
                said = saying.done() => match said {
                    Ok(()) => continue,
                    Err(error) => break error.into(),
                },
                room = to_source.reserve(), if heard.is_some() => {
                    let (Ok(room), Some(body)) = (room, heard.take()) else {
                        break Trouble::Ended; // the mesh stops
                    };
                    room.send(body);
                    continue;
                }
                next = reader.next(), if heard.is_none() => {
                    let body = match next {
                        Ok(Some(message)) => message.body.map(|body| *body),
                        Ok(None) => break Trouble::Ended,
                        Err(error) => break error.into(),
                    };
                    match body {
                        Some(Body::Ping(ping)) => match pulse.heard(ping, now()) {
                            Heard::Answer(pong) => *pong,
                            Heard::Took(took) => {
                                self.measured(took);
                                continue;
                            }
                            Heard::Stale => continue,
                        },
                        Some(Body::DialBack(asked)) => {
                            self.dial_back(address, asked);
                            continue;
                        }
                        Some(Body::Refused(refused)) => break Trouble::Refused(refused),
                        body => {
                            heard = body;
                            continue;
                        }
                    }
                }
                Some(body) = to_hub.recv(), if saying.is_free() => body,
                _ = beat.tick(), if saying.is_free() => pulse.ask(now()),
            };
            saying.say(&self.message(say));
        };
        link.close();
        trouble
    }

    fn measured(&self, took: Duration) {
        self.0.state.send_if_modified(|state| {
            if let Some(linked) = &mut state.linked {
                linked.round_trip = Some(took);
            }
            false // nobody waits for that
        });
    }

    /// The hub, or through it a peer, wants to open exchanges.
    fn dial_back(&self, address: SocketAddr, asked: DialBack) {
        match asked.node {
            None => self.reverse(address),
            // Who is not heard asks again.
            Some(_) => drop(self.0.asked.try_send(asked)),
        }
    }

    /// Dials the hub once more, with the roles reversed.
    fn reverse(&self, address: SocketAddr) {
        let this = self.clone();
        let serving = self.0.stop.clone().run_until_cancelled_owned(async move {
            let inner = &this.0;
            match this.dialler().dial(address, Expect::Hub, ALPN_REVERSE).await {
                Ok(dialled) => {
                    let handler = inner.handler.clone();
                    let (limits, tasks) = (Limits::REQUESTS, &inner.tasks);
                    while_served(link::serve(dialled, handler, limits, tasks)).await;
                }
                Err(error) => tracing::warn!("the hub cannot be dialled back: {error}"),
            }
        });
        self.0.seats.spawn(&self.0.tasks, serving);
    }
}
