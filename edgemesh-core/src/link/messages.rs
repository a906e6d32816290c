//! A conversation of Messages over an exchange, as on Control.

use std::future::poll_fn;
use std::io;

use bytes::{Bytes, BytesMut};
use edgemesh_proto::message::Message;

use crate::link::error::{Failure, LinkError};
use crate::link::opening::{self, NoMessage};
use crate::link::{Inbound, Writer};

/// Largest Message of a conversation: a delta has up to 1 MiB of records.
pub const MAX_MESSAGE: usize = 4 * 1024 * 1024;

/// Both halves.
#[derive(Debug)]
pub struct Messages {
    /// What we say.
    pub writer: MessageWriter,
    /// What the other side says.
    pub reader: MessageReader,
}

impl Messages {
    /// Of the two directions of an exchange.
    pub fn new(writer: Writer, inbound: Inbound) -> Self {
        Self { writer: MessageWriter(writer), reader: MessageReader::new(inbound) }
    }

    /// See [`MessageReader::next`].
    ///
    /// # Errors
    /// As there.
    pub async fn next(&mut self) -> Result<Option<Message>, LinkError> {
        self.reader.next().await
    }

    /// See [`MessageWriter::send`].
    ///
    /// # Errors
    /// As there.
    pub async fn send(&self, message: &Message) -> Result<(), LinkError> {
        self.writer.send(message).await
    }
}

/// What we say.
#[derive(Debug)]
pub struct MessageWriter(Writer);

impl MessageWriter {
    /// Waits until the other side has room, and says it. Dropped while it waits, nothing was said.
    ///
    /// # Errors
    /// When the Message is too long, or nobody takes it any more.
    pub async fn send(&self, message: &Message) -> Result<(), LinkError> {
        self.send_encoded(&message.encode()).await
    }

    /// The same, of a Message that is encoded already.
    ///
    /// # Errors
    /// As [`MessageWriter::send`].
    pub async fn send_encoded(&self, message: &[u8]) -> Result<(), LinkError> {
        let bytes = opening::framed(message, MAX_MESSAGE)?;
        poll_fn(|cx| self.0.poll_room(cx)).await.map_err(|error: io::Error| {
            LinkError::new(Failure::Broken, "nobody listens any more").because(error)
        })?;
        self.0.send(bytes.into());
        Ok(())
    }

    /// That was all.
    pub fn finish(&self) {
        self.0.finish();
    }
}

/// What the other side says.
#[derive(Debug)]
pub struct MessageReader {
    inbound: Inbound,
    /// Begins with the next frame, as far as it came.
    sofar: Bytes,
}

impl MessageReader {
    const fn new(inbound: Inbound) -> Self {
        Self { inbound, sofar: Bytes::new() }
    }

    /// The next Message; `None` = the other side is done. Dropped while it waits, nothing is lost.
    ///
    /// # Errors
    /// When the other side breaks off, or says what is no Message; nothing comes after that.
    pub async fn next(&mut self) -> Result<Option<Message>, LinkError> {
        loop {
            if let Some(message) = self.take()? {
                return Ok(Some(message));
            }
            match poll_fn(|cx| self.inbound.poll_bytes(cx)).await {
                Some(Ok(bytes)) if self.sofar.is_empty() => self.sofar = bytes,
                Some(Ok(bytes)) => {
                    let mut joined = BytesMut::from(std::mem::take(&mut self.sofar));
                    joined.extend_from_slice(&bytes);
                    self.sofar = joined.freeze();
                }
                Some(Err(error)) => return Err(error),
                None if self.sofar.is_empty() => return Ok(None),
                None => return Err(malformed("the end in the middle of a Message")),
            }
        }
    }

    fn take(&mut self) -> Result<Option<Message>, LinkError> {
        match opening::split(&self.sofar, MAX_MESSAGE) {
            Ok(Some((message, rest))) => {
                self.sofar = rest;
                let message = Message::decode(message);
                Ok(Some(message.map_err(|error| malformed(&error.to_string()))?))
            }
            Ok(None) => Ok(None),
            Err(NoMessage::Broken(error)) => Err(error),
            Err(NoMessage::TooLong(why) | NoMessage::Malformed(why)) => Err(malformed(&why)),
        }
    }
}

fn malformed(why: &str) -> LinkError {
    LinkError::new(Failure::Protocol, format!("this is no Message: {why}"))
}
