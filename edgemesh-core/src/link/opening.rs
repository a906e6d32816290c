//! The first Message of each side of an exchange: one length-delimited frame before all else.

use std::future::poll_fn;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use edgemesh_proto::beehive;
use edgemesh_proto::frame::{self, FrameError};
use edgemesh_proto::message::{Body, Message, Refused, fresh_id};

use crate::link::error::{Failure, LinkError};
use crate::link::received::Received;

/// Room behind a Message for a small body, which leaves with it.
const ROOM: usize = 256;

/// The Message as it leaves, with its length.
pub(super) fn encode(message: &Message, most: usize) -> Result<Vec<u8>, LinkError> {
    message.encode_framed(most, ROOM).map_err(too_long)
}

/// The same, of a Message that is encoded already.
pub(super) fn framed(bytes: &[u8], most: usize) -> Result<Vec<u8>, LinkError> {
    if bytes.len() > most {
        return Err(too_long(FrameError::TooLong { length: bytes.len() as u64, max: most }));
    }
    let mut out = Vec::with_capacity(bytes.len() + 5);
    frame::push(&mut out, bytes).map_err(too_long)?;
    Ok(out)
}

fn too_long(error: FrameError) -> LinkError {
    LinkError::new(Failure::Protocol, format!("a Message too long: {error}"))
}

/// Why there is no first Message.
#[derive(Debug)]
pub(super) enum NoMessage {
    /// The exchange broke.
    Broken(LinkError),
    /// It is longer than it may be.
    TooLong(String),
    /// It is no Message.
    Malformed(String),
}

impl NoMessage {
    /// As the failure of what we opened.
    pub(super) fn into_error(self) -> LinkError {
        let protocol = |what| LinkError::new(Failure::Protocol, what);
        match self {
            Self::Broken(error) => error,
            Self::TooLong(why) => protocol(format!("the first Message is too long: {why}")),
            Self::Malformed(why) => protocol(format!("no Message comes first: {why}")),
        }
    }
}

/// Reads the first Message of `body`; also what came behind it in the same piece.
pub(super) async fn read(body: &mut Received, most: usize) -> Result<(Message, Bytes), NoMessage> {
    let mut sofar = BytesMut::new();
    loop {
        let piece = match poll_fn(|cx| body.poll_frame(cx)).await {
            Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
            Some(Err(error)) => return Err(NoMessage::Broken(LinkError::of_http2(error, false))),
            None => {
                return Err(NoMessage::Malformed(format!("{} bytes, then the end", sofar.len())));
            }
        };
        let whole = if sofar.is_empty() { piece } else { join(&mut sofar, &piece) };
        match split(&whole, most)? {
            Some((message, rest)) => {
                let message = Message::decode(message);
                return Ok((
                    message.map_err(|error| NoMessage::Malformed(error.to_string()))?,
                    rest,
                ));
            }
            None => sofar = whole.into(),
        }
    }
}

fn join(sofar: &mut BytesMut, piece: &[u8]) -> Bytes {
    sofar.extend_from_slice(piece);
    std::mem::take(sofar).freeze()
}

/// The first frame in `bytes` and what follows it, as parts of the same allocation.
pub(super) fn split(bytes: &Bytes, most: usize) -> Result<Option<(Bytes, Bytes)>, NoMessage> {
    match frame::split_within(bytes, most) {
        Ok(Some((message, rest))) => Ok(Some((bytes.slice_ref(message), bytes.slice_ref(rest)))),
        Ok(None) => Ok(None),
        Err(error @ FrameError::TooLong { .. }) => Err(NoMessage::TooLong(error.to_string())),
        Err(error @ FrameError::BadLength) => Err(NoMessage::Malformed(error.to_string())),
    }
}

/// The answer of the Link itself, to what no handler gets to see.
pub(super) fn refusal(to: &Message, label: &str, text: &str) -> Message {
    let refused = Refused { label: label.into(), text: text.into(), retry_after_ms: 0 };
    to.answered(fresh_id(), now_ms(), &to.route.destination, Body::Refused(refused))
}

/// Milliseconds since 1970, for the eyes of people.
pub(super) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Shows an opening Message, or the answer to it, in the debug log as beehive JSON.
pub(super) fn show(which: &str, message: &Message) {
    if tracing::enabled!(target: "message", tracing::Level::DEBUG) {
        tracing::debug!(target: "message", json = %beehive::encode(message).trim_end(), "{which}");
    }
}
