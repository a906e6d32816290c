//! Checked Messages: header, route and content, and their protobuf form.

mod body;
mod content;
mod protobuf;

use uuid::Uuid;

pub(crate) use crate::message::body::exact;
pub use crate::message::body::{
    Accepted, Ack, Answer, BUCKETS, Body, Caller, Connect, Counts, DialBack, HeaderField, Held,
    Hello, Join, Joined, MAX_BACKED, MAX_COUNTS, MAX_FIELDS, MAX_RANGES, Offer, Ping, Ranges,
    Refused, Request, RuleCount, RuleTrouble, Selector, Target, Welcome,
};
pub use crate::message::content::{Content, Json};
use crate::record::Invalid;

/// Longest id, name or other short field of header and route, in bytes.
pub const MAX_FIELD: usize = 1024;

/// Longest resource, in bytes: it may hold a topic, or the path and query of a URL.
pub const MAX_RESOURCE: usize = 16 * 1024;

/// Largest Message in any form, in bytes: KubeEdge's own cap on a payload (32 MiB).
pub const MAX_MESSAGE: usize = 32 * 1024 * 1024;

/// The group of every Message of a Link.
pub const LINK: &str = "link";

/// The operation of an answer.
pub const RESPONSE: &str = "response";

/// The operation of an answer that says what went wrong.
pub const ERROR: &str = "error";

/// One Message. Decoders check the length of every field; what is built here is checked with
/// [`Message::check`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// Which message this is.
    pub header: Header,
    /// From whom, to whom, and what about.
    pub route: Route,
    /// What is said.
    pub content: Content,
    /// What is said on a Link; never part of the JSON.
    pub body: Option<Box<Body>>,
}

/// Which message this is. Empty text and 0 mean that a field is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// UUID v4 as text. KubeEdge sends an empty one when it stops.
    pub id: String,
    /// The id of the message that this one answers.
    pub parent_id: String,
    /// Milliseconds since 1970.
    pub timestamp: i64,
    /// The sender waits for the answer.
    pub sync: bool,
    /// The kind of channel (`header.type` in JSON).
    pub message_type: String,
    /// resourceVersion of the Kubernetes object in the content.
    pub resource_version: String,
    /// Milliseconds left for the answer when the message was sent; 0 = no bound. Not in JSON.
    pub deadline_ms: u64,
    /// W3C traceparent. Not in JSON.
    pub trace: String,
}

/// From whom, to whom, and what about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Route {
    /// The module that speaks.
    pub source: String,
    /// The modules that listen.
    pub group: String,
    /// What is asked for.
    pub operation: String,
    /// What it is asked of.
    pub resource: String,
    /// The module that the message is for; seldom used.
    pub destination: String,
}

/// A fresh id for a Message.
pub fn fresh_id() -> Uuid {
    Uuid::new_v4()
}

impl Message {
    /// A Message that answers nothing. `now` in milliseconds since 1970.
    pub fn request(id: Uuid, now: i64, route: Route, content: Content) -> Self {
        let header = Header { id: id.to_string(), timestamp: now, ..Header::default() };
        Self { header, route, content, body: None }
    }

    /// A Message of a Link: from whom, to whom, about what, with what is said.
    pub fn of_link(id: Uuid, now: i64, [source, destination]: [&str; 2], body: Body) -> Self {
        let route = Route {
            source: source.to_owned(),
            group: LINK.to_owned(),
            operation: body.operation().to_owned(),
            resource: body.resource(),
            destination: destination.to_owned(),
        };
        Self { body: Some(Box::new(body)), ..Self::request(id, now, route, Content::Null) }
    }

    /// What is said on a Link in answer to this Message.
    pub fn answered(&self, id: Uuid, now: i64, source: &str, body: Body) -> Self {
        let to = self.route.source.as_str();
        let mut answer = Self::of_link(id, now, [source, to], body);
        answer.header.parent_id.clone_from(&self.header.id);
        answer.header.trace.clone_from(&self.header.trace);
        answer
    }

    /// The answer to `request`: same source, group and resource, operation [`RESPONSE`]. The trace
    /// goes on.
    pub fn response_to(request: &Self, id: Uuid, now: i64, content: Content) -> Self {
        let header = Header {
            message_type: request.header.message_type.clone(),
            ..request.answer_header(id, now)
        };
        let route = Route {
            source: request.route.source.clone(),
            group: request.route.group.clone(),
            operation: RESPONSE.to_owned(),
            resource: request.route.resource.clone(),
            destination: String::new(),
        };
        Self { header, route, content, body: None }
    }

    /// What went wrong with `request`, in words: same resource, operation [`ERROR`], no source and
    /// no group, as KubeEdge from v1.18 on.
    pub fn error_to(request: &Self, id: Uuid, now: i64, what: &str) -> Self {
        let route = Route {
            operation: ERROR.to_owned(),
            resource: request.route.resource.clone(),
            ..Route::default()
        };
        Self {
            header: request.answer_header(id, now),
            route,
            content: Content::Text(what.to_owned()),
            body: None,
        }
    }

    fn answer_header(&self, id: Uuid, now: i64) -> Header {
        Header {
            id: id.to_string(),
            parent_id: self.header.id.clone(),
            timestamp: now,
            trace: self.header.trace.clone(),
            ..Header::default()
        }
    }

    /// Whether every field is within its bound.
    ///
    /// # Errors
    /// Names the first field that is not, as in `header.id`.
    pub fn check(&self) -> Result<(), Invalid> {
        let fields = [
            ("header.id", &self.header.id, MAX_FIELD),
            ("header.parent_id", &self.header.parent_id, MAX_FIELD),
            ("header.message_type", &self.header.message_type, MAX_FIELD),
            ("header.resource_version", &self.header.resource_version, MAX_FIELD),
            ("header.trace", &self.header.trace, MAX_FIELD),
            ("route.source", &self.route.source, MAX_FIELD),
            ("route.group", &self.route.group, MAX_FIELD),
            ("route.operation", &self.route.operation, MAX_FIELD),
            ("route.resource", &self.route.resource, MAX_RESOURCE),
            ("route.destination", &self.route.destination, MAX_FIELD),
        ];
        let too_long = fields.into_iter().find(|(_, text, most)| text.len() > *most);
        match too_long {
            Some((field, text, most)) => {
                Err(Invalid::new(field, format!("{} bytes: at most {most}", text.len())))
            }
            None => self.check_content(),
        }
    }

    fn check_content(&self) -> Result<(), Invalid> {
        let length = self.content.len();
        if length > MAX_MESSAGE {
            return Err(Invalid::new("content", format!("{length} bytes: at most {MAX_MESSAGE}")));
        }
        Ok(())
    }
}
