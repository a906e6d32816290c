//! The first words of a connection: who speaks, and what.
//!
//! A client usually speaks first. One that stays silent for [`CLIENT_FIRST`] may be waiting for
//! its server (MySQL, SMTP, FTP), so a dial is raced against its silence: whoever speaks first
//! decides, and nobody waits for a time-out.

use std::mem::take;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use uuid::Uuid;

use crate::backends::PortLive;
use crate::forward::Shared;
use crate::forward::across::{Calling, open_stream};
use crate::forward::bytes::Reached;
use crate::forward::http::Version;
use crate::io::{now, read_more};
use crate::plan::{Arrival, Destination, Hop, Outcome, Purpose, Target, plan};
use crate::proxy::{Raced, Spoken, http};
use crate::refusal::Refusal;
use crate::sniff::{
    LONGEST_HELLO, LONGEST_PREFIX, Protocol, Verdict, client_hello, detect, is_http_greeting,
};
use crate::tunnel::message_id;

/// How long a client may be silent before its server gets the chance to speak first.
const CLIENT_FIRST: Duration = Duration::from_millis(10);
/// A raced dial on which the server too stays silent is given up after this long.
const RACE_FOR: Duration = Duration::from_secs(30);
/// A connection on which nobody says anything is closed after this long.
const SILENT_FOR: Duration = Duration::from_secs(300);
/// How long a client may still begin to speak when no server is left that could.
const LAST_WORD: Duration = Duration::from_millis(250);
/// Longest time from a client's first byte to a verdict.
const DECIDE_FOR: Duration = Duration::from_secs(5);
/// A ClientHello that is not whole by then is passed on as it is: its name is for the log only.
const HELLO_FOR: Duration = Duration::from_millis(500);

/// What is known of a port before anybody spoke.
pub(super) enum Ask<'p> {
    /// It is HTTP.
    Http,
    /// It is TLS.
    Tls,
    /// Nothing; also who speaks first is not known.
    Anything {
        /// Where the client wants to go.
        to: SocketAddr,
        /// What earlier connections showed.
        port: &'p PortLive,
    },
}

/// What a connection turned out to be.
pub(super) enum Asked {
    /// HTTP, with the bytes that were read.
    Http(Version, Vec<u8>),
    /// Bytes, with all that was said so far. Boxed, since most flows never hold it for long.
    Bytes(Box<Spoken>),
    /// Its client waits for a server, and there is none; or the mesh stops.
    Refused(Refusal),
    /// Nobody said anything, or the client is gone.
    Nothing,
}

/// Finds out what a connection is. A stop ends a wait in which the client has said nothing.
pub(super) async fn ask(shared: &Arc<Shared>, stream: &TcpStream, wanted: Ask<'_>) -> Asked {
    let mut prefix = Vec::new();
    let asking = async {
        match wanted {
            Ask::Http => http_version(stream, &mut prefix).await,
            Ask::Tls => tls_name(stream, &mut prefix).await,
            Ask::Anything { to, port } => {
                First { shared, stream, to, port, prefix: &mut prefix }.words().await
            }
        }
    };
    tokio::select! {
        biased; // what has come is read before it is asked for
        asked = asking => return asked,
        () = shared.stop.cancelled() => {}
    }
    if prefix.is_empty() {
        return Asked::Refused(Refusal::Draining);
    }
    http_version(stream, &mut prefix).await
}

/// Waits for a client that will speak HTTP (or will be told that it does not).
async fn http_version(stream: &TcpStream, prefix: &mut Vec<u8>) -> Asked {
    match timeout(SILENT_FOR, verdict(stream, prefix)).await {
        Ok(Some(protocol)) => decided(protocol, take(prefix)),
        Ok(None) | Err(_) => Asked::Nothing,
    }
}

/// Waits for the ClientHello of a connection that is declared to be TLS.
async fn tls_name(stream: &TcpStream, up: &mut Vec<u8>) -> Asked {
    let whole = async {
        while up.len() < LONGEST_HELLO && read_more(stream, up).await {
            if !matches!(client_hello(up), Ok(None)) {
                break;
            }
        }
    };
    // Even a silent client may have its connection: the port says that it is TLS.
    let _ = timeout(CLIENT_FIRST.max(HELLO_FOR), whole).await;
    Asked::Bytes(Box::new(Spoken::client(Protocol::Tls, take(up))))
}

/// A connection of which nobody knows who speaks first.
struct First<'f> {
    shared: &'f Arc<Shared>,
    stream: &'f TcpStream,
    to: SocketAddr,
    port: &'f PortLive,
    prefix: &'f mut Vec<u8>,
}

impl First<'_> {
    /// Waits for whoever speaks first.
    async fn words(mut self) -> Asked {
        if !self.port.is_server_first() {
            match timeout(CLIENT_FIRST, verdict(self.stream, self.prefix)).await {
                Ok(Some(protocol)) => {
                    self.port.spoke_first(false);
                    return with_name(protocol, take(self.prefix), self.stream).await;
                }
                Ok(None) => return Asked::Nothing,
                Err(_) => {}
            }
        }
        self.race().await
    }

    fn caller(&self) -> Option<IpAddr> {
        self.stream.peer_addr().ok().map(|peer| self.shared.caller(peer))
    }

    /// Races one Backend after the other, until one takes the connection.
    async fn race(&mut self) -> Asked {
        let shared = self.shared;
        let (mut tried, mut failed) = (Vec::new(), None);
        loop {
            let purpose = Purpose::Race(&tried);
            let to = Target::Address(self.to);
            let destination = Destination {
                caller: self.caller(),
                ..Destination::new(to, Arrival::Captured, purpose)
            };
            let planned = plan(&shared.live.load(), &destination, now());
            let hop = match planned {
                Ok(hop) if shared.is_own(hop.address()) => return self.alone(Refusal::Loop).await,
                Ok(hop) => hop,
                // A Rule leads to what takes requests only: no server could speak first.
                Err(Refusal::Unsupported) => return self.client_only().await,
                Err(refusal) => return self.alone(failed.unwrap_or(refusal)).await,
            };
            let live = hop.backend().live.clone();
            let Some(_place) = live.race() else { return self.client_only().await };
            shared.metrics.raced.fetch_add(1, Relaxed);
            if failed.is_some() {
                // Only now is it known that a Backend is left to try.
                shared.metrics.retries.fetch_add(1, Relaxed);
            }
            let message = (!hop.backend().is_dialled()).then(message_id);
            let raced = Race { shared, hop: &hop, caller: self.caller(), message };
            let Unreached { refusal, bad } = match contest(raced, self.stream, self.prefix).await {
                Spoke::NoBackend(unreached) => unreached,
                Spoke::Client(protocol, greeted) => {
                    self.port.spoke_first(false);
                    // Tokens are taken for what it turned out to be; a raced connection that
                    // was not needed is closed.
                    return match (http(protocol), greeted) {
                        (None, Some((backend, down))) => {
                            let raced = Raced { hop, backend, message };
                            greeted_by(protocol, take(self.prefix), raced, down)
                        }
                        (_, _) => decided(protocol, take(self.prefix)),
                    };
                }
                Spoke::Server((backend, down)) => {
                    self.port.spoke_first(true);
                    let raced = Raced { hop, backend, message };
                    return greeted_by(Protocol::Opaque, take(self.prefix), raced, down);
                }
                Spoke::Nobody => {
                    drop(hop);
                    return self.client_only().await;
                }
                Spoke::Gone => return Asked::Nothing,
            };
            let retries = hop.service().policy.retries;
            tried.push(hop.spot());
            hop.finish(if bad { Outcome::Bad } else { Outcome::Neutral }, now());
            if !retries.on_connect || tried.len() > usize::from(retries.attempts) {
                return self.alone(refusal).await;
            }
            failed = Some(refusal);
        }
    }

    /// There is no server that could speak first. A client that has begun to speak is served as
    /// any other; one that waits for a greeting is told at once that none will come.
    async fn alone(&mut self, refusal: Refusal) -> Asked {
        if self.prefix.is_empty() && !self.port.is_server_first() {
            match timeout(LAST_WORD, verdict(self.stream, self.prefix)).await {
                Ok(Some(protocol)) => return decided(protocol, take(self.prefix)),
                Ok(None) => return Asked::Nothing,
                Err(_) => {}
            }
        }
        match refusal {
            _ if !self.prefix.is_empty() => self.client_only().await,
            // A race takes no probe; a call does, or Backends that speak first would stay ejected.
            Refusal::Unhealthy { .. } => Asked::Bytes(Box::default()),
            refusal => Asked::Refused(refusal),
        }
    }

    async fn client_only(&mut self) -> Asked {
        match timeout(SILENT_FOR, verdict(self.stream, self.prefix)).await {
            Ok(Some(protocol)) => {
                self.port.spoke_first(false);
                decided(protocol, take(self.prefix))
            }
            Ok(None) | Err(_) => Asked::Nothing,
        }
    }
}

/// A Backend's connection and what it said.
type Greeted = (Reached, Bytes);

/// A dial of the Backend of a Hop.
#[derive(Clone, Copy)]
struct Race<'a> {
    shared: &'a Shared,
    hop: &'a Hop,
    caller: Option<IpAddr>,
    /// Asks another node for it, where that is its to make.
    message: Option<Uuid>,
}

/// How a race ended.
enum Spoke {
    /// The client spoke; the server may have said something that decides nothing.
    Client(Protocol, Option<Greeted>),
    Server(Greeted),
    NoBackend(Unreached),
    Nobody,
    /// The client left.
    Gone,
}

/// Why a raced Backend said nothing.
struct Unreached {
    refusal: Refusal,
    /// Whether the Backend is to blame.
    bad: bool,
}

/// Waits for both at once.
async fn contest(race: Race<'_>, stream: &TcpStream, prefix: &mut Vec<u8>) -> Spoke {
    let until = Instant::from_std(now()) + RACE_FOR;
    let (client, server) = (verdict(stream, prefix), race.greeting());
    tokio::pin!(client, server);
    let mut greeted = None;
    loop {
        tokio::select! {
            protocol = &mut client => return match protocol {
                Some(protocol) => Spoke::Client(protocol, greeted),
                None => Spoke::Gone,
            },
            spoke = &mut server, if greeted.is_none() => match spoke {
                Ok(backend) if is_http_greeting(&backend.1) => greeted = Some(backend),
                Ok(backend) => return Spoke::Server(backend),
                Err(unreached) => return Spoke::NoBackend(unreached),
            },
            () = sleep_until(until) => return Spoke::Nobody,
        }
    }
}

fn greeted_by(protocol: Protocol, prefix: Vec<u8>, raced: Raced, down: Bytes) -> Asked {
    let mut spoken = Spoken::client(protocol, prefix);
    spoken.early.down = down.into();
    spoken.raced = Some(raced);
    Asked::Bytes(Box::new(spoken))
}

impl Race<'_> {
    /// Dials, and waits for the server's first bytes. One that closes without a word gives none:
    /// the client shall see that too, as a close.
    async fn greeting(self) -> Result<Greeted, Unreached> {
        let mut backend = self.dial().await?;
        self.hop.connected(now());
        let words = backend.first_words().await;
        let reset = |_| Unreached { refusal: Refusal::BackendReset, bad: true };
        words.map_err(reset).map(|words| (backend, words))
    }

    async fn dial(self) -> Result<Reached, Unreached> {
        let Self { shared, hop, caller, message } = self;
        let timeout = hop.service().policy.connect_timeout;
        if let Some(message) = message {
            let calling = Calling { shared, hop, caller, message };
            let link = Box::pin(open_stream(calling, &[], timeout)).await;
            return link.map(|link| Reached::Link(Box::new(link))).map_err(|unopened| Unreached {
                refusal: unopened.refusal,
                bad: unopened.backends_fault,
            });
        }
        let connected = shared.connect(hop.address(), timeout).await;
        connected
            .map(Reached::Socket)
            .map_err(|error| Unreached { refusal: error.refusal(), bad: error.blames_backend() })
    }
}

fn decided(protocol: Protocol, prefix: Vec<u8>) -> Asked {
    match http(protocol) {
        Some(version) => Asked::Http(version, prefix),
        None => Asked::Bytes(Box::new(Spoken::client(protocol, prefix))),
    }
}

/// As [`decided`], but lets a ClientHello become whole, for its name.
async fn with_name(protocol: Protocol, mut prefix: Vec<u8>, stream: &TcpStream) -> Asked {
    if protocol == Protocol::Tls {
        let whole = async {
            while prefix.len() < LONGEST_HELLO
                && matches!(client_hello(&prefix), Ok(None))
                && read_more(stream, &mut prefix).await
            {}
        };
        let _ = timeout(HELLO_FOR, whole).await;
    }
    decided(protocol, prefix)
}

/// Reads until the protocol is certain; `None` = the client closed before that without a word.
/// A client that stops in the middle of what could become HTTP may be waiting for its server:
/// after [`DECIDE_FOR`] what it said is passed on as bytes.
async fn verdict(stream: &TcpStream, prefix: &mut Vec<u8>) -> Option<Protocol> {
    let deadline = || Instant::from_std(now()) + DECIDE_FOR;
    let mut until = (!prefix.is_empty()).then(deadline);
    loop {
        if let Verdict::Yes(protocol) = detect(prefix) {
            return Some(protocol);
        }
        let more = match until {
            None => read_more(stream, prefix).await,
            Some(until) => timeout_at(until, read_more(stream, prefix)).await.unwrap_or(false),
        };
        if prefix.len() >= LONGEST_PREFIX || !more {
            return (!prefix.is_empty()).then_some(Protocol::Opaque);
        }
        until.get_or_insert_with(deadline);
    }
}
