//! The first words of a connection: who speaks, and what.
//!
//! A client usually speaks first. One that stays silent for [`CLIENT_FIRST`] may be waiting for
//! its server (MySQL, SMTP, FTP), so a dial is raced against its silence: whoever speaks first
//! decides, and nobody waits for a time-out.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use crate::backends::PortLive;
use crate::forward::Shared;
use crate::forward::http::Version;
use crate::io::now;
use crate::plan::{Arrival, Destination, Hop, Outcome, Purpose, Target, plan};
use crate::proxy::{Spoken, http};
use crate::sniff::{
    LONGEST_HELLO, LONGEST_PREFIX, Protocol, Verdict, client_hello, detect, is_http_greeting,
};

/// How long a client may be silent before its server gets the chance to speak first.
const CLIENT_FIRST: Duration = Duration::from_millis(10);
/// A raced dial on which the server too stays silent is given up after this long.
const RACE_FOR: Duration = Duration::from_secs(30);
/// A connection on which nobody says anything is closed after this long.
const SILENT_FOR: Duration = Duration::from_secs(300);
/// Longest time from a client's first byte to a verdict.
const DECIDE_FOR: Duration = Duration::from_secs(5);
/// A ClientHello that is not whole by then is passed on as it is: its name is for the log only.
const HELLO_FOR: Duration = Duration::from_millis(500);
/// Read for a start; most requests and hellos fit.
const FIRST_READ: usize = 2 * 1024;
/// Read of a server that speaks first before it is decided.
const GREETING: usize = 1024;

/// What a connection turned out to be.
pub(super) enum Asked {
    /// HTTP, with the bytes that were read.
    Http(Version, Vec<u8>),
    /// Bytes, with all that was said so far. Boxed, since most flows never hold it for long.
    Bytes(Box<Spoken>),
    /// Nobody said anything, or the client is gone.
    Nothing,
}

/// Waits for a client that will speak HTTP (or will be told that it does not).
pub(super) async fn http_version(stream: &TcpStream) -> Asked {
    let mut prefix = Vec::new();
    match timeout(SILENT_FOR, verdict(stream, &mut prefix)).await {
        Ok(Some(protocol)) => decided(protocol, prefix),
        Ok(None) | Err(_) => Asked::Nothing,
    }
}

/// Waits for the ClientHello of a connection that is declared to be TLS.
pub(super) async fn tls_name(stream: &TcpStream) -> Asked {
    let mut up = Vec::new();
    let whole = async {
        while up.len() < LONGEST_HELLO && read_more(stream, &mut up).await {
            if !matches!(client_hello(&up), Ok(None)) {
                break;
            }
        }
    };
    // Even a silent client may have its connection: the port says that it is TLS.
    let _ = timeout(CLIENT_FIRST.max(HELLO_FOR), whole).await;
    Asked::Bytes(Box::new(Spoken::client(Protocol::Tls, up)))
}

/// Waits for whoever speaks first.
pub(super) async fn first_words(
    shared: &Arc<Shared>,
    stream: &TcpStream,
    to: SocketAddr,
    port: &PortLive,
) -> Asked {
    let mut prefix = Vec::new();
    if !port.is_server_first() {
        match timeout(CLIENT_FIRST, verdict(stream, &mut prefix)).await {
            Ok(Some(protocol)) => {
                port.spoke_first(false);
                return with_name(protocol, prefix, stream).await;
            }
            Ok(None) => return Asked::Nothing,
            Err(_) => {}
        }
    }
    race(shared, stream, to, port, prefix).await
}

async fn race(
    shared: &Arc<Shared>,
    stream: &TcpStream,
    to: SocketAddr,
    port: &PortLive,
    mut prefix: Vec<u8>,
) -> Asked {
    let destination =
        Destination { to: Target::Address(to), arrival: Arrival::Captured, purpose: Purpose::Race };
    let hop = plan(&shared.live.load(), &destination, now()).ok();
    let Some(hop) = hop.filter(|hop| !shared.is_own(hop.address())) else {
        return client_only(stream, port, prefix).await;
    };
    let live = hop.backend().live.clone();
    let Some(_place) = live.race() else { return client_only(stream, port, prefix).await };
    shared.metrics.raced.fetch_add(1, Relaxed);
    match contest(shared, stream, &hop, &mut prefix).await {
        Spoke::Client(protocol, greeted) => {
            port.spoke_first(false);
            // Tokens are taken for what it turned out to be; a raced connection that was not
            // needed is closed.
            match (http(protocol), greeted) {
                (None, Some(backend)) => raced(protocol, prefix, hop, backend),
                (_, _) => decided(protocol, prefix),
            }
        }
        Spoke::Server(backend) => {
            port.spoke_first(true);
            raced(Protocol::Opaque, prefix, hop, backend)
        }
        Spoke::NoBackend { bad } => {
            hop.finish(if bad { Outcome::Bad } else { Outcome::Neutral }, now());
            client_only(stream, port, prefix).await
        }
        Spoke::Nobody => {
            drop(hop);
            client_only(stream, port, prefix).await
        }
        Spoke::Gone => Asked::Nothing,
    }
}

/// A Backend's connection and what it said.
type Greeted = (TcpStream, Vec<u8>);

/// How a race ended.
enum Spoke {
    /// The client spoke; the server may have said something that decides nothing.
    Client(Protocol, Option<Greeted>),
    Server(Greeted),
    NoBackend {
        bad: bool,
    },
    Nobody,
    /// The client left.
    Gone,
}

/// Waits for both at once.
async fn contest(shared: &Shared, stream: &TcpStream, hop: &Hop, prefix: &mut Vec<u8>) -> Spoke {
    let until = Instant::from_std(now()) + RACE_FOR;
    let (client, server) = (verdict(stream, prefix), greeting(shared, hop));
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
                Err(bad) => return Spoke::NoBackend { bad },
            },
            () = sleep_until(until) => return Spoke::Nobody,
        }
    }
}

fn raced(protocol: Protocol, prefix: Vec<u8>, hop: Hop, (backend, down): Greeted) -> Asked {
    let mut spoken = Spoken::client(protocol, prefix);
    spoken.early.down = down;
    spoken.raced = Some((hop, backend));
    Asked::Bytes(Box::new(spoken))
}

async fn client_only(stream: &TcpStream, port: &PortLive, mut prefix: Vec<u8>) -> Asked {
    match timeout(SILENT_FOR, verdict(stream, &mut prefix)).await {
        Ok(Some(protocol)) => {
            port.spoke_first(false);
            decided(protocol, prefix)
        }
        Ok(None) | Err(_) => Asked::Nothing,
    }
}

/// Dials, and waits for the server's first bytes. `Err(true)` = the Backend did not take the
/// connection.
async fn greeting(shared: &Shared, hop: &Hop) -> Result<(TcpStream, Vec<u8>), bool> {
    let timeout = hop.service().policy.connect_timeout;
    let backend =
        shared.connect(hop.address(), timeout).await.map_err(|error| error.blames_backend())?;
    let mut down = Vec::new();
    loop {
        // The client may speak at any time; until then this waits without a buffer.
        if backend.readable().await.is_err() {
            return Err(false);
        }
        down.reserve(GREETING);
        match backend.try_read_buf(&mut down) {
            // It closed without a word: the client shall see that too, as a close.
            Ok(_) => return Ok((backend, down)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return Err(true),
        }
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
    let mut until = None;
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
        until.get_or_insert_with(|| Instant::from_std(now()) + DECIDE_FOR);
    }
}

/// Appends what the client says next; false when there is nothing more.
async fn read_more(stream: &TcpStream, into: &mut Vec<u8>) -> bool {
    loop {
        if stream.readable().await.is_err() {
            return false;
        }
        into.reserve(FIRST_READ);
        match stream.try_read_buf(into) {
            Ok(n) => return n > 0,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return false,
        }
    }
}
