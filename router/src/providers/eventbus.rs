//! Endpoint type `eventbus`: the MQTT broker of this node, as a target and as a source.
//!
//! One client a node, connected while a Rule begins there or something was published lately. What is
//! published is delivered when the broker has confirmed it; while the broker is away that fails at once,
//! with the reason. As a source, the client subscribes to what Rules want, with QoS 1 and a session that
//! outlives it: a message is acknowledged when its delivery has ended, whatever came of it.

mod config;
mod filters;
mod intake;
mod session;
mod shared;
mod shrink;
mod turn;
mod words;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use edgemesh_core::forward::inbox::Undelivered;
use edgemesh_core::refusal::Refusal;
use edgemesh_core::snapshot::Snapshot;
use edgemesh_core::snapshot::rules::{Filter, Rule, Source, check_topic};
use edgemesh_proto::record::NodeName;
use rumqttc::{AsyncClient, ClientError, PublishOptions, QoS};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use config::{BadBroker, BrokerConfig};

use crate::providers::Here;
use crate::providers::connect::Connect;
use crate::providers::eventbus::intake::Intake;
use crate::providers::eventbus::session::Session;
use crate::providers::eventbus::shared::Shared;

/// How long the broker may take to confirm something.
const CONFIRMED_WITHIN: Duration = Duration::from_secs(30);
/// Largest packet: the protocol's own bound (MQTT 3.1.1 §2.2.3). What a Rule takes is bounded by it.
const MAX_PACKET: usize = 268_435_455;
/// What a packet holds beside topic and payload, at most.
const AROUND: usize = 9;

/// See the module. Clones are the same client.
#[derive(Clone, Debug)]
pub struct EventBus {
    shared: Arc<Shared>,
    tasks: TaskTracker,
}

/// Something to publish.
#[derive(Clone, Debug)]
pub struct Publication<'p> {
    /// On which topic.
    pub topic: &'p str,
    /// What.
    pub payload: Bytes,
    /// Whether the broker confirms it (QoS 1).
    pub confirmed: bool,
    /// Whether the broker keeps it for those who subscribe later.
    pub retain: bool,
}

/// How the broker is reached, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerState {
    /// Whether it is.
    pub connected: bool,
    /// Since when, in milliseconds since 1970.
    pub since: i64,
    /// Why it is not, or what it refuses; nothing while nothing needs it.
    pub reason: Option<Box<str>>,
}

impl EventBus {
    /// A client of `node`'s broker. It connects when there is a need, after [`EventBus::follow`].
    ///
    /// # Errors
    /// The broker's URL is none.
    pub fn new(
        node: &NodeName,
        config: BrokerConfig,
        connect: Connect,
        tasks: &TaskTracker,
        stop: CancellationToken,
    ) -> Result<Self, BadBroker> {
        let shared = Arc::new(Shared::new(node, config, connect, stop)?);
        Ok(Self { shared, tasks: tasks.clone() })
    }

    /// From now on messages of the broker go to the Rules that begin on this node, once no other process
    /// of the node takes them any more. To be called once.
    pub fn follow(&self, here: Here) {
        let Here { node, live, mut changed, deliver } = here;
        let (shared, stop) = (self.shared.clone(), self.shared.stop.clone());
        if shared.followed.swap(true, Relaxed) {
            tracing::error!("the broker's messages have somebody who takes them already");
            return;
        }
        let tasks = [self.tasks.clone(), shared.busy.clone()];
        let intake = Arc::new(Intake::new(deliver, tasks, shared.mark, stop.clone()));
        self.tasks.spawn(Session::new(shared.clone(), intake.clone()).run());
        self.tasks.spawn(stop.run_until_cancelled_owned(async move {
            loop {
                let rules = beginning_on(&node, &live.load());
                intake.serve(&rules);
                let wanted = rules.iter().map(|(rule, topic)| (rule.name.clone(), topic.clone()));
                shared.want(wanted.collect());
                if changed.changed().await.is_err() {
                    return;
                }
            }
        }));
    }

    /// How the broker is reached.
    pub fn state(&self) -> BrokerState {
        self.shared.state()
    }

    /// Publishes, and resolves when the broker has confirmed it; without confirmation, when it is
    /// sent.
    ///
    /// # Errors
    /// It was not, or nobody knows whether it was.
    pub async fn publish(&self, what: Publication<'_>) -> Result<(), Undelivered> {
        check(&what)?;
        let _under_way = self.shared.busy.token();
        let (client, ended) = self.shared.client().await?;
        let Publication { topic, payload, confirmed, retain } = what;
        let qos = if confirmed { QoS::AtLeastOnce } else { QoS::AtMostOnce };
        let options = PublishOptions::new(qos).retain(retain);
        let sending = send(&client, topic, payload, options);
        tokio::select! {
            biased;
            sent = timeout(CONFIRMED_WITHIN, sending) => match sent {
                Ok(Ok(())) => Ok(()),
                Ok(Err(Unsent)) => Err(self.shared.unsent()),
                Err(_) => Err(self.unconfirmed()),
            },
            () = ended.cancelled() => Err(self.shared.cut()),
        }
    }

    fn unconfirmed(&self) -> Undelivered {
        let (at, within) = (&self.shared.place, CONFIRMED_WITHIN.as_secs());
        let reason = format!("the broker at {at} did not confirm it within {within} s").into();
        Undelivered { refusal: Refusal::RequestTimeout, sent: true, reason }
    }
}

/// It never reached the event loop.
struct Unsent;

async fn send(
    client: &AsyncClient,
    topic: &str,
    payload: Bytes,
    options: PublishOptions,
) -> Result<(), Unsent> {
    let queued = client.publish_tracked(topic, payload, options).await;
    let queued = queued.map_err(|_: ClientError| Unsent)?;
    match queued.wait_completion_async().await {
        Ok(()) => Ok(()),
        // The connection is gone, which whoever waits for that says with its reason.
        Err(_) => std::future::pending().await,
    }
}

fn check(what: &Publication<'_>) -> Result<(), Undelivered> {
    let refused = |reason: String| Undelivered {
        refusal: Refusal::BadRequest,
        sent: false,
        reason: reason.into(),
    };
    check_topic(what.topic).map_err(|why| refused(format!("topic: {why}")))?;
    let size = what.payload.len().saturating_add(what.topic.len() + AROUND);
    if size > MAX_PACKET {
        return Err(refused(format!("{size} bytes are more than MQTT can carry: {MAX_PACKET}")));
    }
    Ok(())
}

/// Rules whose messages begin on the broker of `node`. Those that cannot be served have theirs refused,
/// which counts them.
fn beginning_on(node: &NodeName, snapshot: &Snapshot) -> Vec<(Arc<Rule>, Filter)> {
    let filter = |rule: &Arc<Rule>| match &rule.source {
        Some(Source::EventBus { topic, .. }) if rule.is_heard_on(node) => {
            Some((rule.clone(), topic.clone()))
        }
        Some(
            Source::EventBus { .. }
            | Source::ServiceBus { .. }
            | Source::Rest { .. }
            | Source::Service { .. },
        )
        | None => None,
    };
    snapshot.rules.all().filter_map(filter).collect()
}
