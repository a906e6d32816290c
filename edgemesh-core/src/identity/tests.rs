//! Identities at both ends of real handshakes, over a pipe.

use std::io;
use std::sync::Arc;

use edgemesh_proto::record::NodeName;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::authority::LIFETIME;
use super::*;

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

/// What each end has of a handshake: the other's certificate, or why not.
type End = Result<Option<Proved>, String>;

/// Shakes hands and says a byte each way: in TLS 1.3 a client hears only then that it was refused.
async fn shake(
    client: Arc<ClientConfig>,
    name: ServerName<'static>,
    server: Arc<ServerConfig>,
) -> (End, End) {
    let (near, far) = tokio::io::duplex(1 << 16);
    let dialling = async {
        let mut stream = TlsConnector::from(client).connect(name, near).await?;
        stream.write_all(b"?").await?;
        let mut answer = [0];
        stream.read_exact(&mut answer).await?;
        let chain = stream.get_ref().1.peer_certificates().map(<[_]>::to_vec);
        io::Result::Ok(chain)
    };
    let answering = async {
        let mut stream = TlsAcceptor::from(server).accept(far).await?;
        let mut question = [0];
        stream.read_exact(&mut question).await?;
        stream.write_all(b"!").await?;
        let chain = stream.get_ref().1.peer_certificates().map(<[_]>::to_vec);
        io::Result::Ok(chain)
    };
    let (dialled, answered) = tokio::join!(dialling, answering);
    let end = |result: io::Result<Option<Vec<_>>>| match result {
        Ok(chain) => Ok(chain.map(|chain| proved(&chain).unwrap())),
        Err(error) => Err(explain(&error)),
    };
    (end(dialled), end(answered))
}

async fn dial(client: &Tls, expect: Expect<'_>, server: &Tls, role: Role) -> (End, End) {
    let server = server.server(role, &[ALPN]);
    shake(client.client(expect, ALPN), expect.server_name(), server).await
}

#[tokio::test]
async fn both_ends_know_each_other() {
    let cloud = Authority::new(TODAY).unwrap();
    let (a, b) = (tls(&cloud, "edge-1", TODAY, TODAY), tls(&cloud, "edge-2", TODAY, TODAY));
    let (at_a, at_b) = dial(&a, Expect::Node(&node("edge-2")), &b, Role::Peer).await;
    let (at_a, at_b) = (at_a.unwrap().unwrap(), at_b.unwrap().unwrap());
    assert_eq!((&*at_a.node.0, at_a.is_hub, at_a.issued), ("edge-2", false, TODAY));
    assert_eq!((&*at_b.node.0, at_b.is_hub, at_b.issued), ("edge-1", false, TODAY));

    let hub = hub(&cloud, TODAY, TODAY);
    let (at_a, at_hub) = dial(&a, Expect::Hub, &hub, Role::Hub).await;
    let (at_a, at_hub) = (at_a.unwrap().unwrap(), at_hub.unwrap().unwrap());
    assert_eq!((&*at_a.node.0, at_a.is_hub), (CLOUD, true));
    assert_eq!((&*at_hub.node.0, at_hub.is_hub), ("edge-1", false));
}
