//! The JSON form of a Message that KubeEdge's beehive writes and reads, to the letter.
//!
//! What Go's encoder does is part of the form: the order of members, which of them stay away when
//! empty, which characters are escaped, and the newline at the end.

pub(crate) mod text;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::beehive::text::push_string;
use crate::message::{Content, Header, MAX_MESSAGE, Message, Route};
use crate::record::Invalid;

/// The JSON text of `message`, newline included. `deadline_ms` and `trace` have no place in it.
pub fn encode(message: &Message) -> String {
    let mut out = String::with_capacity(512 + message.content.len());
    out.push_str("{\"header\":{\"msg_id\":");
    push_string(&mut out, &message.header.id);
    push_header(&mut out, &message.header);
    out.push_str("},\"route\":{");
    push_route(&mut out, &message.route);
    out.push_str("},\"content\":");
    match &message.content {
        Content::Null => out.push_str("null"),
        Content::Text(text) => push_string(&mut out, text),
        Content::Bytes(bytes) => push_string(&mut out, &STANDARD.encode(bytes)),
        Content::Json(json) => out.push_str(json.get()),
    }
    out.push_str("}\n");
    out
}

/// Everything in the header after the id, which is always there.
fn push_header(out: &mut String, header: &Header) {
    push_member(out, "parent_msg_id", &header.parent_id);
    out.push_str(",\"timestamp\":");
    out.push_str(&header.timestamp.to_string());
    push_member(out, "resourceversion", &header.resource_version);
    if header.sync {
        out.push_str(",\"sync\":true");
    }
    push_member(out, "type", &header.message_type);
}

fn push_route(out: &mut String, route: &Route) {
    push_member(out, "source", &route.source);
    push_member(out, "destination", &route.destination);
    push_member(out, "group", &route.group);
    push_member(out, "operation", &route.operation);
    push_member(out, "resource", &route.resource);
}

/// A member of an object, unless it is empty.
fn push_member(out: &mut String, name: &str, value: &str) {
    if value.is_empty() {
        return;
    }
    if !out.ends_with('{') {
        out.push(',');
    }
    push_string(out, name);
    out.push(':');
    push_string(out, value);
}

/// Members that are absent or `null` are empty, unknown ones are skipped, and so is all that
/// follows the first JSON value, as KubeEdge's reader does.
///
/// A string is always [`Content::Text`]: that it may be base64 only the receiver knows.
///
/// # Errors
/// Names the field that does not fit by its place in the JSON (`header.timestamp`); `message` when
/// the bytes are no JSON object or more than [`MAX_MESSAGE`]; otherwise as [`Message::check`].
pub fn decode(bytes: &[u8]) -> Result<Message, Invalid> {
    if bytes.len() > MAX_MESSAGE {
        let reason = format!("{} bytes: at most {MAX_MESSAGE}", bytes.len());
        return Err(Invalid::new("message", reason));
    }
    let text = std::str::from_utf8(bytes).map_err(|e| Invalid::new("message", e.to_string()))?;
    let mut first_value = serde_json::Deserializer::from_str(text);
    let whole = Outer::deserialize(&mut first_value)
        .map_err(|error| Invalid::new("message", error.to_string()))?;
    let message = Message {
        header: header(whole.header)?,
        route: route(whole.route)?,
        content: whole.content.map_or(Ok(Content::Null), |raw| Content::from_json(raw.get()))?,
        body: None,
    };
    message.check()?;
    Ok(message)
}

fn header(raw: Option<&RawValue>) -> Result<Header, Invalid> {
    let Some(members) = value::<HeaderMembers<'_>>("header", raw)? else {
        return Ok(Header::default());
    };
    Ok(Header {
        id: owned("header.msg_id", members.msg_id)?,
        parent_id: owned("header.parent_msg_id", members.parent_msg_id)?,
        timestamp: owned("header.timestamp", members.timestamp)?,
        sync: owned("header.sync", members.sync)?,
        message_type: owned("header.type", members.message_type)?,
        resource_version: owned("header.resourceversion", members.resourceversion)?,
        deadline_ms: 0,
        trace: String::new(),
    })
}

fn route(raw: Option<&RawValue>) -> Result<Route, Invalid> {
    let Some(members) = value::<RouteMembers<'_>>("route", raw)? else {
        return Ok(Route::default());
    };
    Ok(Route {
        source: owned("route.source", members.source)?,
        group: owned("route.group", members.group)?,
        operation: owned("route.operation", members.operation)?,
        resource: owned("route.resource", members.resource)?,
        destination: owned("route.destination", members.destination)?,
    })
}

/// The value, or its default where it is absent or null.
fn owned<T>(field: &str, raw: Option<&RawValue>) -> Result<T, Invalid>
where
    T: DeserializeOwned + Default,
{
    Ok(value(field, raw)?.unwrap_or_default())
}

fn value<'a, T>(field: &str, raw: Option<&'a RawValue>) -> Result<Option<T>, Invalid>
where
    T: Deserialize<'a>,
{
    let parsed = raw.map(|raw| serde_json::from_str(raw.get())).transpose();
    parsed.map_err(|error| Invalid::new(field, error.to_string()))
}

/// The parts of a message, each parsed on its own so that an error can name it.
#[derive(Deserialize)]
struct Outer<'a> {
    #[serde(borrow)]
    header: Option<&'a RawValue>,
    #[serde(borrow)]
    route: Option<&'a RawValue>,
    #[serde(borrow)]
    content: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct HeaderMembers<'a> {
    #[serde(borrow)]
    msg_id: Option<&'a RawValue>,
    #[serde(borrow)]
    parent_msg_id: Option<&'a RawValue>,
    #[serde(borrow)]
    timestamp: Option<&'a RawValue>,
    #[serde(borrow)]
    resourceversion: Option<&'a RawValue>,
    #[serde(borrow)]
    sync: Option<&'a RawValue>,
    #[serde(borrow, rename = "type")]
    message_type: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct RouteMembers<'a> {
    #[serde(borrow)]
    source: Option<&'a RawValue>,
    #[serde(borrow)]
    destination: Option<&'a RawValue>,
    #[serde(borrow)]
    group: Option<&'a RawValue>,
    #[serde(borrow)]
    operation: Option<&'a RawValue>,
    #[serde(borrow)]
    resource: Option<&'a RawValue>,
}
