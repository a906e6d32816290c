//! Identities at both ends of real handshakes over a pipe, on disk, and in the hands of others.

mod certificates;
mod clocks;
mod files;
mod handshakes;
mod joins;

use std::io;
use std::sync::Arc;

use edgemesh_proto::record::NodeName;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::authority::LIFETIME;
use super::*;

const DAY: i64 = 86_400;
/// A day in 2026.
const TODAY: i64 = 1_790_000_000;
const ALPN: &[u8] = b"h2";

fn node(name: &str) -> NodeName {
    NodeName(name.into())
}

fn clock_at(seconds: i64) -> Arc<Clock> {
    Arc::new(Clock::with(None, move || seconds))
}

/// A node that got its certificate at `issued` and whose system clock says `clock`.
fn tls(authority: &Authority, name: &str, issued: i64, clock: i64) -> Tls {
    let identity = authority.node(&node(name), issued, LIFETIME).unwrap();
    Tls::new(identity, clock_at(clock), OFFLINE_GRACE)
}

fn hub(authority: &Authority, issued: i64, clock: i64) -> Tls {
    let identity = authority.hub(&["cloud.example".into()], issued, LIFETIME).unwrap();
    Tls::new(identity, clock_at(clock), OFFLINE_GRACE)
}

/// What one end has of a handshake: the other's certificates, or why not.
type End = Result<Vec<CertificateDer<'static>>, String>;

fn end(result: io::Result<Vec<CertificateDer<'static>>>) -> End {
    result.map_err(|error| explain(&error))
}

/// Who is at the other end.
fn who(end: &End) -> String {
    let chain = end.as_ref().unwrap();
    proved(chain).map_or_else(|error| error.to_string(), |proved| proved.node.to_string())
}

/// Dials, asks a byte and reads the answer: in TLS 1.3 a client hears only then that it was
/// refused.
async fn connect(
    client: Arc<ClientConfig>,
    name: ServerName<'static>,
    pipe: impl AsyncRead + AsyncWrite + Unpin,
) -> End {
    let dialling = async {
        let mut stream = TlsConnector::from(client).connect(name, pipe).await?;
        stream.write_all(b"?").await?;
        let mut answer = [0];
        stream.read_exact(&mut answer).await?;
        Ok(stream.get_ref().1.peer_certificates().unwrap_or_default().to_vec())
    };
    end(dialling.await)
}

async fn accept(server: Arc<ServerConfig>, pipe: impl AsyncRead + AsyncWrite + Unpin) -> End {
    let answering = async {
        let mut stream = TlsAcceptor::from(server).accept(pipe).await?;
        let mut question = [0];
        stream.read_exact(&mut question).await?;
        stream.write_all(b"!").await?;
        stream.shutdown().await?;
        Ok(stream.get_ref().1.peer_certificates().unwrap_or_default().to_vec())
    };
    end(answering.await)
}

async fn shake(
    client: Arc<ClientConfig>,
    name: ServerName<'static>,
    server: Arc<ServerConfig>,
) -> (End, End) {
    let (near, far) = tokio::io::duplex(1 << 16);
    tokio::join!(connect(client, name, near), accept(server, far))
}

async fn dial(client: &Tls, expect: Expect<'_>, server: &Tls, role: Role) -> (End, End) {
    let server = server.server(role, &[ALPN]);
    shake(client.client(expect, ALPN), expect.server_name(), server).await
}

/// Both ends of a handshake that has to fail say what they have to.
fn failed(case: &str, (near, far): (End, End), [near_says, far_says]: [&str; 2]) {
    for (which, end, says) in [("dialler", near, near_says), ("listener", far, far_says)] {
        let text = end.expect_err(case);
        assert!(text.contains(says), "{case}, {which}: {text}");
    }
}
