//! Connections for a client of hyper, which names who is to be reached by a URI.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::Uri;
use http::uri::{Authority, Scheme};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use tower_service::Service;

use crate::providers::connect::{Connect, Place, Stream, Unreached};

/// The place that a URI means.
fn place(authority: &Authority, tls: bool) -> Place {
    let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    Place { host: host.into(), port, tls }
}

/// Opens connections for such a client.
#[derive(Clone, Debug)]
pub(crate) struct Opener {
    connect: Connect,
    /// TLS where the URI asks for it; else the client makes its own.
    tls: bool,
}

impl Opener {
    /// With TLS where the URI asks for it.
    pub(crate) const fn new(connect: Connect) -> Self {
        Self { connect, tls: true }
    }

    /// TCP only, for who makes TLS in a way of its own.
    #[cfg(feature = "cloud")]
    pub(crate) const fn plain(connect: Connect) -> Self {
        Self { connect, tls: false }
    }
}

impl Service<Uri> for Opener {
    type Response = Opened;
    type Error = Unreached;
    type Future = Pin<Box<dyn Future<Output = Result<Opened, Unreached>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Unreached>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let Self { connect, tls } = self.clone();
        let is_https = uri.scheme() == Some(&Scheme::HTTPS);
        let place = uri.authority().map(|authority| place(authority, is_https));
        Box::pin(async move {
            let place = place.ok_or_else(Unreached::nameless)?;
            let place = Place { tls: place.tls && tls, ..place };
            Ok(Opened(TokioIo::new(connect.open(&place).await?)))
        })
    }
}

/// A connection, as hyper wants it.
pub(crate) struct Opened(TokioIo<Stream>);

impl Connection for Opened {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for Opened {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl Write for Opened {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        for (authority, tls, want) in [
            ("a.example", false, "a.example:80"),
            ("a.example", true, "a.example:443"),
            ("[::1]:81", false, "[::1]:81"),
            ("127.0.0.1:9", true, "127.0.0.1:9"),
        ] {
            assert_eq!(place(&authority.parse().unwrap(), tls).to_string(), want);
        }
    }
}
