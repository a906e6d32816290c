//! What carries messages of Rules to and from what is no Service of the mesh: URLs, the MQTT broker of a
//! node, and the applications that call a node's ServiceBus.
//!
//! [`Providers`] is the inbox to which core hands messages for such targets: one line a type. The two
//! sources that are no requests at an ingress, [`eventbus`] and [`servicebus`], read in the Snapshot which
//! Rules begin on their node, and hand messages of those to [`Deliver`].

pub mod connect;
pub mod eventbus;
mod plug;
pub mod rest;
pub mod servicebus;
mod whole;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use edgemesh_core::forward::inbox::{
    AnswerBody, AnswerError, Delivering, Delivery, Inbox, TOPIC, Undelivered,
};
use edgemesh_core::refusal::Refusal;
use edgemesh_core::snapshot::Snapshot;
use edgemesh_core::snapshot::rules::{RestTarget, Rule, Target, TopicTarget};
use edgemesh_proto::record::{NodeName, RuleName};
use http::{Request, Response};
use http_body::Body;
use http_body_util::{BodyExt as _, Full};
use tokio::sync::watch;

use crate::providers::eventbus::{EventBus, Publication};
use crate::providers::rest::Rest;
use crate::providers::whole::{Unread, whole};

pub use plug::{Edge, Plugged, plug_cloud, plug_edge};

/// What a publication is answered with: KubeEdge's words.
const PUBLISHED: &str = "message delivered";

/// Sends a message, as every call of the mesh is sent: decided, limited, counted on its Rule.
pub trait Deliver: fmt::Debug + Send + Sync + 'static {
    /// Sends a message of this Rule, which may be gone by then. Dropped, it is given up.
    fn send(&self, rule: RuleName, request: Request<Full<Bytes>>) -> Sending;
}

/// What comes of a message.
pub type Sending = Pin<Box<dyn Future<Output = Result<Response<AnswerBody>, Failure>> + Send>>;

/// Why a message has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The reason that code reads.
    pub refusal: Refusal,
    /// The reason that people read.
    pub reason: Box<str>,
}

/// What a source on this node goes by.
#[derive(Clone, Debug)]
pub struct Here {
    /// This node.
    pub node: NodeName,
    /// The Snapshot in force.
    pub live: Arc<ArcSwap<Snapshot>>,
    /// Ticks after another one came into force.
    pub changed: watch::Receiver<u64>,
    /// Where messages go.
    pub deliver: Arc<dyn Deliver>,
}

/// See the module. Clones are the same.
#[derive(Clone, Debug)]
pub struct Providers {
    rest: Rest,
    eventbus: Option<EventBus>,
}

impl Providers {
    /// Delivers to URLs, and to the broker of this node where it has one.
    pub const fn new(rest: Rest, eventbus: Option<EventBus>) -> Self {
        Self { rest, eventbus }
    }

    /// Delivers a message to the target of its Rule.
    ///
    /// # Errors
    /// It was not delivered, or had no answer.
    pub async fn send<B>(
        &self,
        rule: &Rule,
        request: Request<B>,
    ) -> Result<Response<AnswerBody>, Undelivered>
    where
        B: Body<Data = Bytes, Error: Into<AnswerError>> + Send + 'static,
    {
        match &rule.target {
            Some(Target::Rest(target)) => self.call(rule, target, request).await,
            Some(Target::EventBus(target)) => self.publish(rule, target, request).await,
            Some(Target::ServiceBus { .. } | Target::Service { .. }) => Err(refused(
                Refusal::Unsupported,
                "a Service of the mesh is not called by this way",
            )),
            None => Err(refused(Refusal::Unsupported, "the Rule has no target")),
        }
    }

    async fn call<B>(
        &self,
        rule: &Rule,
        target: &RestTarget,
        request: Request<B>,
    ) -> Result<Response<AnswerBody>, Undelivered>
    where
        B: Body<Data = Bytes, Error: Into<AnswerError>> + Send + 'static,
    {
        if !rule.could_make(request.uri().path(), request.uri().query()) {
            return Err(refused(Refusal::BadRequest, "the Rule makes no such path"));
        }
        self.rest.deliver(target, request).await
    }

    async fn publish<B>(
        &self,
        rule: &Rule,
        target: &TopicTarget,
        request: Request<B>,
    ) -> Result<Response<AnswerBody>, Undelivered>
    where
        B: Body<Data = Bytes, Error: Into<AnswerError>> + Send + 'static,
    {
        let Some(eventbus) = &self.eventbus else {
            return Err(refused(Refusal::Unsupported, "this node has no broker"));
        };
        let (head, body) = request.into_parts();
        let topic = head.headers.get(TOPIC).map(|topic| std::str::from_utf8(topic.as_bytes()));
        let Some(Ok(topic)) = topic else {
            return Err(refused(Refusal::BadRequest, "no topic is named, or not in UTF-8"));
        };
        if !rule.could_make(topic, None) {
            return Err(refused(Refusal::BadRequest, "the Rule makes no such topic"));
        }
        let payload = payload(body, rule.max_body).await?;
        let TopicTarget { confirmed, retain, .. } = *target;
        eventbus.publish(Publication { topic, payload, confirmed, retain }).await?;
        let said = Full::new(Bytes::from_static(PUBLISHED.as_bytes()));
        Ok(Response::new(said.map_err(|never| match never {}).boxed_unsync()))
    }
}

impl Inbox for Providers {
    fn deliver(&self, delivery: Delivery) -> Delivering {
        let providers = self.clone();
        let Delivery { rule, request } = delivery;
        Box::pin(async move { providers.send(&rule, request).await })
    }
}

async fn payload<B>(body: B, most: u64) -> Result<Bytes, Undelivered>
where
    B: Body<Data = Bytes, Error: Into<AnswerError>>,
{
    let read = whole(body, usize::try_from(most).unwrap_or(usize::MAX)).await;
    read.map_err(|unread| match unread {
        Unread::TooLarge => {
            refused(Refusal::BodyTooLarge, &format!("the body is larger than {most} bytes"))
        }
        Unread::Broken(error) => {
            refused(Refusal::BadRequest, &format!("it broke off before its end ({error})"))
        }
    })
}

fn refused(refusal: Refusal, reason: &str) -> Undelivered {
    Undelivered { refusal, sent: false, reason: reason.into() }
}
