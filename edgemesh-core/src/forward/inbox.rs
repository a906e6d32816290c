//! The inbox: hands messages to the Router whose Rule's target is neither a Service nor an application
//! at a port of this node.
//!
//! What such a target does lives in `edgemesh-router`; an embedder without it has no inbox, and what
//! would go there is `unsupported`.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;

use crate::forward::http::Outgoing;
use crate::refusal::Refusal;
use crate::snapshot::rules::Rule;

pub use crate::snapshot::rules::{RETAINED, TOPIC};

/// Why the body of an answer breaks off.
pub type AnswerError = Box<dyn std::error::Error + Send + Sync>;

/// The body of an answer.
pub type AnswerBody = UnsyncBoxBody<Bytes, AnswerError>;

/// What comes of a message.
pub type Delivering =
    Pin<Box<dyn Future<Output = Result<Response<AnswerBody>, Undelivered>> + Send>>;

/// See the module.
pub trait Inbox: fmt::Debug + Send + Sync + 'static {
    /// Delivers a message once, and resolves with the head of the answer. Dropped, it is given up;
    /// whoever asks holds the time.
    fn deliver(&self, delivery: Delivery) -> Delivering;
}

/// A message for the target of a Rule.
#[derive(Debug)]
pub struct Delivery {
    /// The Rule.
    pub rule: Arc<Rule>,
    /// Method, fields, and the path and query as the target wants them; for a topic, [`TOPIC`] says it.
    pub request: Request<Outgoing>,
}

/// Why a message was not delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undelivered {
    /// The reason that code reads.
    pub refusal: Refusal,
    /// Something of it may have reached its target.
    pub sent: bool,
    /// The reason that people read, without the name of the target.
    pub reason: Box<str>,
}
