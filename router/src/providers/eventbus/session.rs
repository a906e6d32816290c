//! The connection to the broker: made while something needs it, made again when it breaks, and told
//! what to subscribe to.
//!
//! Each connection has an event loop of its own: one that outlives its connection would publish again, on
//! the next, what its sender was told is lost.

use std::fs::File;
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
use crate::providers::eventbus::intake::{Flood, Intake};
use crate::providers::eventbus::shrink::{MOST_READ, Shrinking};
use crate::providers::eventbus::turn::turn;
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
/// Time for messages that are under way when everything ends: somewhat less than an agent takes to stop.
/// Those that take longer the broker sends again.
pub(super) const LAST_WITHIN: Duration = Duration::from_secs(25);
/// Time for the goodbye.
const GOODBYE_WITHIN: Duration = Duration::from_secs(1);

/// See the module.
pub(super) struct Session {
    shared: Arc<Shared>,
    intake: Arc<Intake>,
    held: Held,
    /// There was no connection yet.
    is_first: bool,
}

/// Why nothing more is listened to.
enum Deaf {
    /// The connection ended.
    Broken(Unreached),
    /// It brings more than there is room for.
    Flooded,
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
    pub(super) fn new(shared: Arc<Shared>, intake: Arc<Intake>) -> Self {
        Self { shared, intake, held: Held::default(), is_first: true }
    }

    /// Runs until everything ends.
    pub(super) async fn run(mut self) {
        let stop = self.shared.stop.clone();
        let turn = stop.run_until_cancelled(self.turn());
        let Some(_ours) = turn.await else { return };
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

    /// Waits until there may be connections.
    async fn turn(&self) -> Option<File> {
        let lock = match &self.shared.config.lock {
            Some(lock) => turn(lock).await,
            None => None,
        };
        self.shared.begin();
        lock
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
        self.resume(is_known);
        self.shared.connected(client.clone());
        let ending = self.until_it_ends(&client, &mut events, stop).await;
        match ending {
            Ok(ending) => {
                goodbye(&self.intake, &client, &mut events).await;
                ending
            }
            Err(why) => Ended::Lost(why),
        }
    }

    /// There is a connection, by which the broker knows this client or not.
    fn resume(&mut self, is_known: bool) {
        if is_known {
            let inherited = self.shared.inherited().filter(|_| self.is_first);
            self.held.inherit(inherited);
        } else {
            self.held.forget();
            self.intake.forget();
        }
        self.is_first = false;
        self.intake.resume(now());
        self.shared.holds(!self.held.is_empty());
    }

    /// Uses the connection.
    ///
    /// # Errors
    /// It broke. Else the broker can still be told that it ends.
    async fn until_it_ends(
        &mut self,
        client: &AsyncClient,
        events: &mut EventLoop,
        stop: &CancellationToken,
    ) -> Result<Ended, Unreached> {
        let (shared, intake) = (&self.shared, &self.intake);
        let last = async {
            stop.cancelled().await;
            shared.busy.close();
            timeout(LAST_WITHIN, shared.busy.wait()).await.ok();
        };
        tokio::select! {
            deaf = listen(shared, intake, events, client) => match deaf {
                Deaf::Broken(why) => Err(why),
                Deaf::Flooded => Ok(Ended::Lost(shared.broken("sends more than this node keeps"))),
            },
            why = subscribe(shared, intake, &mut self.held, client) => Ok(Ended::Lost(why)),
            () = shared.unneeded() => Ok(Ended::Unneeded),
            () = last => Ok(Ended::Stopped),
        }
    }
}

fn options(shared: &Shared) -> MqttOptions {
    let mut options =
        MqttOptions::new(&*shared.client_id, (&*shared.place.host, shared.place.port));
    // A restart of ours loses nothing: what is not acknowledged comes again.
    options.set_session_mode(SessionMode::Persistent).set_ack_mode(AckMode::Manual);
    options.set_keep_alive(u16::try_from(KEEP_ALIVE.as_secs()).unwrap_or(u16::MAX));
    options.set_max_packet_size(MOST_READ, MAX_PACKET).set_inflight(IN_FLIGHT);
    match (&shared.config.username, &shared.config.password) {
        (Some(name), Some(password)) => {
            options.set_credentials(&**name, password.as_bytes().to_vec());
        }
        (Some(name), None) => {
            options.set_username(&**name);
        }
        (None, _) => {}
    }
    let (connect, place, mark) = (shared.connect.clone(), shared.place.clone(), shared.mark);
    options.set_socket_connector(move |_, _| {
        let (connect, place) = (connect.clone(), place.clone());
        async move { Ok(Shrinking::new(connect.open(&place).await?, mark)) }
    });
    options
}

/// Takes what the broker sends, until the connection ends.
///
/// Nothing here may wait but for the event loop: with that, pings, confirmations and all Rules would.
async fn listen(
    shared: &Shared,
    intake: &Intake,
    events: &mut EventLoop,
    client: &AsyncClient,
) -> Deaf {
    loop {
        match events.poll().await {
            Ok(Event::Incoming(Packet::Publish(publish))) => match intake.take(publish, client) {
                Ok(()) => {}
                Err(Flood) => return Deaf::Flooded,
            },
            Ok(Event::Incoming(_) | Event::Outgoing(_)) => {}
            Err(error) => return Deaf::Broken(words::unreached(&error, &shared.place)),
        }
        intake.settle();
    }
}

/// Asks for what is wanted, again with each change; ends where the broker does not answer.
async fn subscribe(
    shared: &Shared,
    intake: &Intake,
    held: &mut Held,
    client: &AsyncClient,
) -> Unreached {
    let mut changes = shared.wanted.subscribe();
    loop {
        let wanted = changes.borrow_and_update().clone();
        let step = held.step(&wanted);
        shared.holds(!held.is_empty());
        intake.expect_retained(&step.newcomers, now());
        let asked = timeout(CONFIRMED_WITHIN, ask(client, &step)).await;
        let Some(refused) = asked.ok().flatten() else {
            return shared.broken("did not answer what it was asked to send");
        };
        held.done(&step, &wanted, &refused);
        shared.refused(held.refused());
        shared.holds(!held.is_empty());
        if changes.changed().await.is_err() {
            return shared.broken("is not needed any more");
        }
    }
}

/// What is new first: a message may come twice in between, but none is lost. Gives what the broker
/// refuses; `None` if it does not answer.
async fn ask(client: &AsyncClient, step: &Step) -> Option<Vec<Filter>> {
    let mut refused = Vec::new();
    for filters in step.subscribe.chunks(FILTERS_AT_ONCE) {
        let at_least_once =
            |filter: &Filter| SubscribeFilter::new(filter.as_str().to_owned(), QoS::AtLeastOnce);
        let asked = client.subscribe_many_tracked(filters.iter().map(at_least_once)).await;
        let answer = asked.ok()?.wait_async().await.ok()?;
        let is_refused = |code: &SubscribeReasonCode| *code == SubscribeReasonCode::Failure;
        let answers = filters.iter().zip(&answer.return_codes);
        refused
            .extend(answers.filter(|(_, code)| is_refused(code)).map(|(filter, _)| filter.clone()));
    }
    for filters in step.unsubscribe.chunks(FILTERS_AT_ONCE) {
        let texts = filters.iter().map(Filter::as_str);
        let asked = client.unsubscribe_many_tracked(texts).await;
        asked.ok()?.wait_async().await.ok()?;
    }
    Some(refused)
}

/// Takes leave, so that the broker need not find out; after all that is to be acknowledged.
async fn goodbye(intake: &Intake, client: &AsyncClient, events: &mut EventLoop) {
    let gone = async {
        let mut said = false;
        loop {
            // While there is no room for these, there is none for the goodbye.
            intake.settle();
            said = said || client.try_disconnect().is_ok();
            if events.poll().await.is_err() {
                return;
            }
        }
    };
    timeout(GOODBYE_WITHIN, gone).await.ok();
}
