//! Messages to and from protobuf, readable by KubeEdge's viaduct and reading it.

use bytes::Bytes;
use prost::Message as _;
use prost::encoding::WireType;

use crate::frame::FrameError;
use crate::message::{Content, Header, MAX_MESSAGE, Message, Route};
use crate::pb;
use crate::record::Invalid;

/// The field of a Delta in a Message.
const DELTA_TAG: u32 = 12;
/// Most bytes of a tag and a length.
const MAX_TAG: usize = 16;

impl Message {
    /// The protobuf. Whether the content was text, bytes or JSON is not in it.
    pub fn encode(&self) -> Vec<u8> {
        pb::Message::from(self).encode_to_vec()
    }

    /// The protobuf with its length before it, as it stands in a stream (see [`crate::frame`]), and
    /// room for as many bytes behind it.
    ///
    /// # Errors
    /// [`FrameError::TooLong`] past `most` bytes.
    pub fn encode_framed(&self, most: usize, room: usize) -> Result<Vec<u8>, FrameError> {
        let message = pb::Message::from(self);
        let length = message.encoded_len();
        if length > most {
            return Err(FrameError::TooLong { length: length as u64, max: most });
        }
        let mut bytes = Vec::with_capacity(MAX_TAG + length + room);
        prost::encoding::encode_varint(length as u64, &mut bytes);
        message.encode_raw(&mut bytes);
        Ok(bytes)
    }

    /// The protobuf of this Message with a Delta for its body that is encoded already, as it is sent
    /// to many. It must have no body of its own.
    pub fn encode_with_delta(&self, delta: &[u8]) -> Vec<u8> {
        let head = pb::Message::from(self);
        let room = head.encoded_len() + delta.len() + MAX_TAG;
        let mut bytes = Vec::with_capacity(room);
        head.encode_raw(&mut bytes);
        prost::encoding::encode_key(DELTA_TAG, WireType::LengthDelimited, &mut bytes);
        prost::encoding::encode_varint(delta.len() as u64, &mut bytes);
        bytes.extend_from_slice(delta);
        bytes
    }

    /// The Message in `bytes`; its content is [`Content::Bytes`], or [`Content::Null`] if empty.
    ///
    /// # Errors
    /// `message` when the bytes are no protobuf of a Message or more than [`MAX_MESSAGE`];
    /// otherwise as [`Message::check`].
    pub fn decode(bytes: Bytes) -> Result<Self, Invalid> {
        if bytes.len() > MAX_MESSAGE {
            let reason = format!("{} bytes: at most {MAX_MESSAGE}", bytes.len());
            return Err(Invalid::new("message", reason));
        }
        pb::Message::decode(bytes)
            .map_err(|error| Invalid::new("message", error.to_string()))?
            .try_into()
    }
}

impl From<&Message> for pb::Message {
    fn from(message: &Message) -> Self {
        // Both parts are written even when empty: viaduct's reader needs them.
        Self {
            header: Some((&message.header).into()),
            route: Some((&message.route).into()),
            content: message.content.payload(),
            body: message.body.as_deref().map(Into::into),
        }
    }
}

impl TryFrom<pb::Message> for Message {
    type Error = Invalid;

    fn try_from(message: pb::Message) -> Result<Self, Invalid> {
        let content = match message.content {
            empty if empty.is_empty() => Content::Null,
            bytes => Content::Bytes(bytes),
        };
        let header = message.header.map(Header::from).unwrap_or_default();
        let route = message.route.map(Route::from).unwrap_or_default();
        let body = message.body.map(crate::message::Body::try_from).transpose()?.map(Box::new);
        let message = Self { header, route, content, body };
        message.check()?;
        Ok(message)
    }
}

impl From<&Header> for pb::Header {
    fn from(header: &Header) -> Self {
        Self {
            id: header.id.clone(),
            parent_id: header.parent_id.clone(),
            timestamp: header.timestamp,
            sync: header.sync,
            message_type: header.message_type.clone(),
            resource_version: header.resource_version.clone(),
            deadline_ms: header.deadline_ms,
            trace: header.trace.clone(),
        }
    }
}

impl From<pb::Header> for Header {
    fn from(header: pb::Header) -> Self {
        Self {
            id: header.id,
            parent_id: header.parent_id,
            timestamp: header.timestamp,
            sync: header.sync,
            message_type: header.message_type,
            resource_version: header.resource_version,
            deadline_ms: header.deadline_ms,
            trace: header.trace,
        }
    }
}

impl From<&Route> for pb::Route {
    fn from(route: &Route) -> Self {
        Self {
            source: route.source.clone(),
            group: route.group.clone(),
            operation: route.operation.clone(),
            resource: route.resource.clone(),
            destination: route.destination.clone(),
        }
    }
}

impl From<pb::Route> for Route {
    fn from(route: pb::Route) -> Self {
        Self {
            source: route.source,
            group: route.group,
            operation: route.operation,
            resource: route.resource,
            destination: route.destination,
        }
    }
}
