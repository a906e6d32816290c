//! A connection for one large flow: one Message each way, then bytes, with nothing of HTTP/2 in
//! between.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use edgemesh_proto::message::Message;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};

use crate::io::{Prefixed, writes_to_inner};
use crate::link::error::{Failure, LinkError};
use crate::link::opening::{self, NoMessage};
use crate::link::server::check;
use crate::link::{Dialled, MAX_OPENING, OPENING_TIMEOUT, Operation, Peer, Secured, Serve};

/// Bytes both ways. A shutdown is a half-close; dropped without one, or cut, it is an error for
/// the other side (TLS tells the two apart).
#[derive(Debug)]
pub struct BulkStream {
    inner: Prefixed<Secured>,
    peer: Arc<Peer>,
}

impl BulkStream {
    /// Who is at the other end.
    pub const fn peer(&self) -> &Arc<Peer> {
        &self.peer
    }

    /// Says our first Message, before anything else is written.
    ///
    /// # Errors
    /// When the Message is too long, or the connection broke.
    pub async fn say(&mut self, message: &Message) -> Result<(), LinkError> {
        opening::show("answers a bulk flow", message);
        self.write(message, &[]).await
    }

    async fn write(&mut self, message: &Message, first: &[u8]) -> Result<(), LinkError> {
        let mut bytes = opening::encode(message, MAX_OPENING)?;
        bytes.extend_from_slice(first);
        self.inner.write_all(&bytes).await.map_err(broken)?;
        self.inner.flush().await.map_err(broken)
    }

    /// Reads their first Message; what came behind it is read next.
    async fn read(stream: Secured, peer: Arc<Peer>) -> Result<(Message, Self), NoMessage> {
        let (mut stream, mut sofar) = (stream, BytesMut::new());
        loop {
            match stream.read_buf(&mut sofar).await {
                Ok(0) => {
                    return Err(NoMessage::Malformed(format!(
                        "{} bytes, then the end",
                        sofar.len()
                    )));
                }
                Ok(_) => {}
                Err(error) => return Err(NoMessage::Broken(broken(error))),
            }
            let there: Bytes = sofar.freeze();
            if let Some((message, rest)) = opening::split(&there, MAX_OPENING)? {
                let message = Message::decode(message);
                let message = message.map_err(|error| NoMessage::Malformed(error.to_string()))?;
                return Ok((message, Self { inner: Prefixed::new(rest, stream), peer }));
            }
            sofar = there.into();
        }
    }
}

fn broken(error: io::Error) -> LinkError {
    LinkError::new(Failure::Broken, "the connection broke").because(error)
}

/// Opens a flow on a connection that was dialled for it: `opening` and the `first` bytes leave
/// together. Resolves with the first Message of the answer.
///
/// # Errors
/// When the connection broke, or the answer is no Message. An answer that refuses is no error.
pub async fn open_bulk(
    dialled: Dialled,
    opening: &Message,
    first: &[u8],
) -> Result<(Message, BulkStream), LinkError> {
    let Dialled { stream, peer, .. } = dialled;
    opening::show("opens a bulk flow", opening);
    let mut bulk = BulkStream { inner: Prefixed::new(Bytes::new(), stream), peer };
    bulk.write(opening, first).await?;
    let (_, stream) = bulk.inner.into_parts();
    BulkStream::read(stream, bulk.peer).await.map_err(NoMessage::into_error)
}

/// Answers a flow that the other side opens on `dialled`: reads its first Message and lets
/// `handler` go on.
///
/// # Errors
/// When there is no such Message; where there is somebody to tell, it was told.
pub async fn serve_bulk(dialled: Dialled, handler: Arc<dyn Serve>) -> Result<(), LinkError> {
    let Dialled { stream, peer, .. } = dialled;
    let slow = Duration::as_secs(&OPENING_TIMEOUT);
    let read = BulkStream::read(stream, peer.clone());
    let (opening, mut stream) = match tokio::time::timeout(OPENING_TIMEOUT, read).await {
        Ok(read) => read.map_err(NoMessage::into_error)?,
        Err(_) => {
            let what = format!("{peer} said no Message within {slow} s");
            return Err(LinkError::new(Failure::TimedOut, what));
        }
    };
    opening::show("opens a bulk flow", &opening);
    if let Err((label, why)) = check(&peer, Operation::Stream, &opening) {
        tracing::warn!(%peer, label, "a bulk flow was refused: {why}");
        stream.say(&opening::refusal(&opening, label, &why)).await?;
        return stream.shutdown().await.map_err(broken);
    }
    handler.bulk(opening, stream).await;
    Ok(())
}

impl AsyncRead for BulkStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

writes_to_inner!(BulkStream);
