//! The connection to the broker: made while something needs it, made again when it breaks, and told
//! what to subscribe to.
//!
//! Each connection has an event loop of its own: one that outlives its connection would publish again, on
//! the next, what its sender was told is lost.

use std::sync::Arc;
use std::time::Duration;

use edgemesh_core::io::now;
use edgemesh_core::snapshot::rules::Filter;
use rumqttc::{
    AckMode, AsyncClient, Event, EventLoop, MqttOptions, NetworkOptions, Packet, QoS, SessionMode,
    SubscribeFilter, SubscribeReasonCode,
};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::providers::connect::{CONNECT_WITHIN, Unreached};
use crate::providers::eventbus::filters::{Held, Step};
use crate::providers::eventbus::{CONFIRMED_WITHIN, MAX_PACKET, Shared, words};

/// Requests and acknowledgements that wait for the event loop.
const REQUESTS: usize = 1024;
/// Publications that are not confirmed yet.
const IN_FLIGHT: u16 = 100;
/// Silence after which the broker is asked whether it is there.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// Filters in one SUBSCRIBE: some brokers take no more.
const FILTERS_AT_ONCE: usize = 8;
/// The first wait after a connection was lost, and the longest.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(30)];
/// A connection that lasted so long was a good one.
const GOOD_AFTER: Duration = Duration::from_secs(30);
/// Time for the goodbye.
const GOODBYE_WITHIN: Duration = Duration::from_secs(1);

/// See the module.
pub(super) struct Session {
    shared: Arc<Shared>,
    held: Held,
    /// There was no connection yet.
    is_first: bool,
}

/// How a connection ended.
enum Ended {
    /// By itself, or it was not made.
    Lost(Unreached),
    /// Nobody needs it.
    Unneeded,
    /// Everything ends.
    Stopped,
}

impl Session {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, held: Held::default(), is_first: true }
    }

    /// Runs until everything ends.
    pub(super) async fn run(mut self) {
        let stop = self.shared.stop.clone();
        let mut pause = PAUSES[0];
        while stop.run_until_cancelled(self.shared.needed()).await.is_some() {
            let begun = now();
            match self.connection(&stop).await {
                Ended::Stopped => break,
                Ended::Unneeded => self.shared.rest(),
                Ended::Lost(why) => {
                    if now().saturating_duration_since(begun) >= GOOD_AFTER {
                        pause = PAUSES[0];
                    }
                    self.shared.lost(why);
                    if stop.run_until_cancelled(self.shared.pause(PAUSES[0], pause)).await.is_none()
                    {
                        break;
                    }
                    pause = (pause * 2).min(PAUSES[1]);
                }
            }
        }
        self.shared.rest();
    }

    /// One connection, from its beginning to its end.
    async fn connection(&mut self, stop: &CancellationToken) -> Ended {
        let (client, mut events) =
            AsyncClient::builder(options(&self.shared)).capacity(REQUESTS).build();
        let mut network = NetworkOptions::new();
        // Somewhat later than we give up ourselves, with better words.
        network.set_connection_timeout(CONNECT_WITHIN.as_secs() + 1);
        events.set_network_options(network);
        let Some(begun) = stop.run_until_cancelled(events.poll()).await else {
            return Ended::Stopped;
        };
        let is_known = match begun {
            Ok(Event::Incoming(Packet::ConnAck(answer))) => answer.session_present,
            Ok(_) => return Ended::Lost(self.shared.broken("does not speak MQTT as expected")),
            Err(error) => return Ended::Lost(words::unreached(&error, &self.shared.place)),
        };
        if is_known {
            let inherited = self.shared.inherited().filter(|_| self.is_first);
            self.held.inherit(inherited);
        } else {
            self.held.forget();
            self.shared.forget();
        }
        self.is_first = false;
        self.shared.connected(client.clone());
        let shared = self.shared.clone();
        let ending = tokio::select! {
            why = listen(&shared, &mut events, &client) => return Ended::Lost(why),
            why = subscribe(&shared, &mut self.held, &client) => Ended::Lost(why),
            () = shared.unneeded() => Ended::Unneeded,
            () = stop.cancelled() => Ended::Stopped,
        };
        goodbye(&client, &mut events).await;
        ending
    }
}

fn options(shared: &Shared) -> MqttOptions {
    let mut options =
        MqttOptions::new(&*shared.client_id, (&*shared.place.host, shared.place.port));
    // A restart of ours loses nothing: what is not acknowledged comes again.
    options.set_session_mode(SessionMode::Persistent).set_ack_mode(AckMode::Manual);
    options.set_keep_alive(u16::try_from(KEEP_ALIVE.as_secs()).unwrap_or(u16::MAX));
    options.set_max_packet_size(MAX_PACKET, MAX_PACKET).set_inflight(IN_FLIGHT);
    match (&shared.config.username, &shared.config.password) {
        (Some(name), Some(password)) => {
            options.set_credentials(&**name, password.as_bytes().to_vec());
        }
        (Some(name), None) => {
            options.set_username(&**name);
        }
        (None, _) => {}
    }
    let (connect, place) = (shared.connect.clone(), shared.place.clone());
    options.set_socket_connector(move |_, _| {
        let (connect, place) = (connect.clone(), place.clone());
        async move { Ok(connect.open(&place).await?) }
    });
    options
}

/// Takes what the broker sends, until the connection ends.
async fn listen(shared: &Shared, events: &mut EventLoop, client: &AsyncClient) -> Unreached {
    loop {
        match events.poll().await {
            Ok(Event::Incoming(Packet::Publish(publish))) => shared.take(publish, client).await,
            Ok(Event::Incoming(_) | Event::Outgoing(_)) => {}
            Err(error) => return words::unreached(&error, &shared.place),
        }
    }
}

/// Asks for what is wanted, again with each change; ends where the broker does not answer.
async fn subscribe(shared: &Shared, held: &mut Held, client: &AsyncClient) -> Unreached {
    let mut changes = shared.wanted.subscribe();
    loop {
        let wanted = changes.borrow_and_update().clone();
        let step = held.step(&wanted);
        let asked = timeout(CONFIRMED_WITHIN, ask(shared, client, &step)).await;
        if !asked.unwrap_or(false) {
            return shared.broken("did not answer what it was asked to send");
        }
        held.done(&step, &wanted);
        if changes.changed().await.is_err() {
            return shared.broken("is not needed any more");
        }
    }
}

/// What is new first: a message may come twice in between, but none is lost.
async fn ask(shared: &Shared, client: &AsyncClient, step: &Step) -> bool {
    shared.expect_retained(&step.newcomers, now());
    let mut refused = Vec::new();
    for filters in step.subscribe.chunks(FILTERS_AT_ONCE) {
        let at_least_once =
            |filter: &Filter| SubscribeFilter::new(filter.as_str().to_owned(), QoS::AtLeastOnce);
        let asked = client.subscribe_many_tracked(filters.iter().map(at_least_once)).await;
        let Ok(asked) = asked else { return false };
        let Ok(answer) = asked.wait_async().await else { return false };
        let is_refused = |code: &SubscribeReasonCode| *code == SubscribeReasonCode::Failure;
        let answers = filters.iter().zip(&answer.return_codes);
        refused.extend(answers.filter(|(_, code)| is_refused(code)).map(|(filter, _)| filter));
    }
    for filters in step.unsubscribe.chunks(FILTERS_AT_ONCE) {
        let texts = filters.iter().map(Filter::as_str);
        let Ok(asked) = client.unsubscribe_many_tracked(texts).await else { return false };
        if asked.wait_async().await.is_err() {
            return false;
        }
    }
    shared.subscribed(&refused);
    true
}

/// Takes leave, so that the broker need not find out.
async fn goodbye(client: &AsyncClient, events: &mut EventLoop) {
    if client.try_disconnect_now().is_ok() {
        let gone = async { while events.poll().await.is_ok() {} };
        timeout(GOODBYE_WITHIN, gone).await.ok();
    }
}
