//! The first words of a connection to the ingress: a handshake where TLS is spoken, then HTTP/1 or
//! HTTP/2.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use edgemesh_core::forward::Shared;
use edgemesh_core::forward::http::Version;
use edgemesh_core::metrics::Ended;
use edgemesh_core::refusal::Refusal;
use edgemesh_core::sniff::{LONGEST_PREFIX, Protocol, Verdict, detect};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// A connection on which nobody says anything is closed after this long.
const SILENT_FOR: Duration = Duration::from_secs(75);
/// Longest time from a client's first byte to a verdict, and for a handshake.
const DECIDE_FOR: Duration = Duration::from_secs(10);
/// How long a client is listened to that was sent an alert, and for how many bytes.
const PART_WITHIN: Duration = Duration::from_secs(1);
const MOST_UNREAD: u64 = 64 * 1024;
/// Read for a start; most heads fit.
const FIRST_READ: usize = 2 * 1024;
/// The first byte of a TLS connection (RFC 8446 §5.1: a handshake record).
const HANDSHAKE: u8 = 22;

/// What came of a handshake.
pub(super) enum Shaken {
    /// Boxed: it is large.
    Secured(Box<TlsStream<TcpStream>>),
    /// The client speaks something else, perhaps HTTP.
    InTheClear(TcpStream),
    /// There is no connection.
    Ended(Ended),
}

/// What a connection turned out to be.
pub(super) enum First {
    /// HTTP, or something that will be told that it is none; with the bytes that were read.
    Http(Version, Vec<u8>),
    /// TLS, where it is not spoken.
    Tls,
    /// The mesh stops before anything was said.
    Stopped,
    /// Nobody said anything, or the client is gone.
    Nothing,
}

/// Shakes hands with a client.
pub(super) async fn shake(shared: &Shared, stream: TcpStream, tls: Arc<ServerConfig>) -> Shaken {
    let mut byte = [0];
    let spoke = tokio::select! {
        spoke = timeout(SILENT_FOR, stream.peek(&mut byte)) => spoke,
        () = shared.stop.cancelled() => return Shaken::Ended(Ended::Refused(Refusal::Draining)),
    };
    match spoke {
        Ok(Ok(1)) if byte[0] == HANDSHAKE => {}
        Ok(Ok(1)) => return Shaken::InTheClear(stream),
        Ok(Ok(_) | Err(_)) | Err(_) => return Shaken::Ended(Ended::Cancelled),
    }
    match timeout(DECIDE_FOR, TlsAcceptor::from(tls).accept(stream).into_fallible()).await {
        Ok(Ok(stream)) => Shaken::Secured(Box::new(stream)),
        Ok(Err((error, stream))) => {
            tracing::debug!(error = &error as &dyn std::error::Error, "a handshake failed");
            part(stream).await;
            Shaken::Ended(unshaken(&error))
        }
        Err(_) => Shaken::Ended(Ended::Refused(Refusal::IdleTimeout)),
    }
}

/// Closes a connection whose client was sent an alert, and may have sent more than was read: a reset
/// would take the alert away from it.
async fn part(mut stream: TcpStream) {
    let listening = async {
        stream.shutdown().await?;
        tokio::io::copy(&mut stream.take(MOST_UNREAD), &mut tokio::io::sink()).await
    };
    // Its client is gone, or has had its time.
    let _ = timeout(PART_WITHIN, listening).await;
}

/// How a connection ended whose handshake failed.
fn unshaken(error: &io::Error) -> Ended {
    let tls = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
    match tls {
        Some(rustls::Error::NoCertificatesPresented | rustls::Error::InvalidCertificate(_)) => {
            Ended::Refused(Refusal::Unauthenticated)
        }
        // It does not like what it was shown.
        Some(rustls::Error::AlertReceived(_)) | None => Ended::Cancelled,
        Some(_) => Ended::Refused(Refusal::BadRequest),
    }
}

/// Waits for what tells HTTP/1 from HTTP/2.
pub(super) async fn first<S>(shared: &Shared, stream: &mut S) -> First
where
    S: AsyncRead + Unpin,
{
    let mut prefix = Vec::new();
    tokio::select! {
        biased; // what has come is read before it is asked for
        spoke = timeout(SILENT_FOR, read_more(stream, &mut prefix)) => match spoke {
            Ok(true) => {}
            Ok(false) | Err(_) => return First::Nothing,
        },
        () = shared.stop.cancelled() => return First::Stopped,
    }
    let decided = async {
        loop {
            if let Verdict::Yes(protocol) = detect(&prefix) {
                return protocol;
            }
            if prefix.len() >= LONGEST_PREFIX || !read_more(stream, &mut prefix).await {
                return Protocol::Opaque;
            }
        }
    };
    match timeout(DECIDE_FOR, decided).await.unwrap_or(Protocol::Opaque) {
        Protocol::Http2 => First::Http(Version::Http2, prefix),
        Protocol::Tls => First::Tls,
        // What is no HTTP is told so by who reads it.
        Protocol::Http1 | Protocol::Opaque => First::Http(Version::Http1, prefix),
    }
}

/// Appends what the client says next; false when there is nothing more.
async fn read_more<S: AsyncRead + Unpin>(stream: &mut S, into: &mut Vec<u8>) -> bool {
    into.reserve(FIRST_READ);
    matches!(stream.read_buf(into).await, Ok(1..))
}
