//! Bytes to [`Protocol`]: what a connection speaks, decided from its first bytes alone.
//!
//! Everything here is pure. A verdict never changes when more bytes arrive, so it cannot depend
//! on how the reads were cut; `tests/sniff_laws.rs` holds every detector to that.

use rustls::server::Acceptor;

/// What a connection speaks, as far as the mesh needs to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HTTP/1.0 or 1.1: balanced per request.
    Http1,
    /// HTTP/2 with prior knowledge, gRPC for the most part: balanced per request.
    Http2,
    /// TLS: read for its server name, never terminated.
    Tls,
    /// Anything else: balanced per connection.
    Opaque,
}

/// What the bytes so far say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not decided: read more.
    More,
    /// Decided, whatever follows.
    Yes(Protocol),
}

/// One detector's opinion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Opinion {
    /// Cannot become this protocol.
    No,
    /// Could still become it.
    Maybe,
    /// Certain.
    Yes,
}

/// Looks at the first bytes, never at more than [`LONGEST_PREFIX`].
type Detector = fn(&[u8]) -> Opinion;

/// All detectors. To add a protocol, add one line here and one function below.
const DETECTORS: &[(Protocol, Detector)] =
    &[(Protocol::Http2, http2), (Protocol::Tls, tls), (Protocol::Http1, http1)];

/// Longest prefix that [`detect`] wants to see: at this length it always decides.
pub const LONGEST_PREFIX: usize = 8 * 1024;

/// Classifies the first bytes that a client sent. Refused by every detector means
/// [`Protocol::Opaque`].
pub fn detect(prefix: &[u8]) -> Verdict {
    let mut undecided = false;
    for (protocol, detector) in DETECTORS {
        match detector(prefix) {
            Opinion::Yes => return Verdict::Yes(*protocol),
            Opinion::Maybe => undecided = true,
            Opinion::No => {}
        }
    }
    if undecided { Verdict::More } else { Verdict::Yes(Protocol::Opaque) }
}

/// RFC 9113 §3.4: the client connection preface.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

fn http2(prefix: &[u8]) -> Opinion {
    let n = prefix.len().min(PREFACE.len());
    match prefix[..n] == PREFACE[..n] {
        false => Opinion::No,
        true if n < PREFACE.len() => Opinion::Maybe,
        true => Opinion::Yes,
    }
}

/// RFC 8446 §5.1: a handshake record whose first message is a ClientHello.
fn tls(prefix: &[u8]) -> Opinion {
    // content type, major and minor version, two length bytes, handshake type
    let fits: [fn(u8) -> bool; 6] =
        [|b| b == 22, |b| b == 3, |b| b <= 4, |b| b <= 0x40, |_| true, |b| b == 1];
    match prefix.iter().zip(fits).all(|(byte, fits)| fits(*byte)) {
        false => Opinion::No,
        true if prefix.len() < fits.len() => Opinion::Maybe,
        true => Opinion::Yes,
    }
}

/// Methods are tokens of any name (RFC 9110 §9.1); no registered one is longer than 17.
const LONGEST_METHOD: usize = 32;
/// RFC 9112 §2.2: a server skips at least one empty line before the request line.
const EMPTY_LINES: usize = 4;

/// RFC 9112 §3: `method SP target SP "HTTP/1."`. A line that is still well-formed at
/// [`LONGEST_PREFIX`] counts as HTTP, so that the client hears of it as 414 or 431.
fn http1(prefix: &[u8]) -> Opinion {
    let prefix = &prefix[..prefix.len().min(LONGEST_PREFIX)];
    match request_line(prefix) {
        Opinion::Maybe if prefix.len() == LONGEST_PREFIX => Opinion::Yes,
        opinion => opinion,
    }
}

fn request_line(prefix: &[u8]) -> Opinion {
    let blank = prefix.iter().take(EMPTY_LINES).take_while(|b| matches!(b, b'\r' | b'\n')).count();
    let line = &prefix[blank..];
    let Some(method) = line.iter().position(|b| !is_token(*b)) else {
        return if line.len() <= LONGEST_METHOD { Opinion::Maybe } else { Opinion::No };
    };
    if line[method] != b' ' || method == 0 || method > LONGEST_METHOD {
        return Opinion::No;
    }
    let rest = &line[method + 1..];
    let Some(target) = rest.iter().position(|b| *b <= b' ' || *b == 0x7f) else {
        return Opinion::Maybe;
    };
    if rest[target] != b' ' || target == 0 {
        return Opinion::No;
    }
    let version = &rest[target + 1..];
    let n = version.len().min(b"HTTP/1.".len());
    match version[..n] == b"HTTP/1."[..n] {
        false => Opinion::No,
        true if n < b"HTTP/1.".len() => Opinion::Maybe,
        true => Opinion::Yes,
    }
}

/// RFC 9110 §5.6.2: tchar.
const fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        )
}

/// Whether bytes that a *server* sent first are what HTTP servers send unasked: an HTTP/2
/// SETTINGS frame, or an `HTTP/1.` status (a time-out notice). Such bytes decide nothing about
/// the connection. Also true for a prefix of either.
pub fn is_http_greeting(bytes: &[u8]) -> bool {
    let status = b"HTTP/1.";
    let n = bytes.len().min(status.len());
    // RFC 9113 §4.1: 24 bits of length, type 4, flags 0, stream 0; six bytes a setting
    let settings: [fn(u8) -> bool; 9] = [
        |b| b == 0,
        |b| b <= 1,
        |_| true,
        |b| b == 4,
        |b| b == 0,
        |b| b == 0,
        |b| b == 0,
        |b| b == 0,
        |b| b == 0,
    ];
    bytes[..n] == status[..n] || bytes.iter().zip(settings).all(|(byte, fits)| fits(*byte))
}

/// What a ClientHello says in the clear.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientHello {
    /// Server name (SNI), lower case.
    pub server_name: Option<Box<str>>,
    /// Offered application protocols, in the client's order.
    pub alpn: Vec<Box<str>>,
}

/// Longest ClientHello that is read for its name: post-quantum key shares stay well below.
pub const LONGEST_HELLO: usize = 16 * 1024;

/// Reads a ClientHello: `Ok(None)` = not whole yet, `Err(())` = not one that rustls understands.
/// For logs, hashing and the explicit proxy; where a connection goes is decided by its
/// destination.
pub fn client_hello(prefix: &[u8]) -> Result<Option<ClientHello>, NotAHello> {
    let mut acceptor = Acceptor::default();
    let mut rest = prefix;
    while !rest.is_empty() {
        acceptor.read_tls(&mut rest).map_err(|_| NotAHello)?;
    }
    match acceptor.accept() {
        Ok(None) if prefix.len() >= LONGEST_HELLO => Err(NotAHello),
        Ok(None) => Ok(None),
        Ok(Some(accepted)) => {
            let hello = accepted.client_hello();
            Ok(Some(ClientHello {
                server_name: hello.server_name().map(|name| name.to_ascii_lowercase().into()),
                alpn: hello
                    .alpn()
                    .into_iter()
                    .flatten()
                    .map(|name| String::from_utf8_lossy(name).into())
                    .collect(),
            }))
        }
        Err(_) => Err(NotAHello),
    }
}

/// The bytes began like TLS and are not a ClientHello.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a TLS ClientHello")]
pub struct NotAHello;

/// How a port's flows are treated before any byte arrives, from `appProtocol` or the port name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Declared {
    /// Nothing was said: sniff, and race a server that may speak first.
    #[default]
    Unknown,
    /// HTTP: the client speaks first; sniff only which version.
    Http,
    /// HTTP/2 or gRPC.
    Http2,
    /// TLS.
    Tls,
    /// Bytes, whatever they look like.
    Opaque,
}

/// `appProtocol` values and port-name prefixes that decide.
const DECLARED: &[(&str, Declared)] = &[
    ("http", Declared::Http),
    ("http1", Declared::Http),
    ("ws", Declared::Http),
    ("kubernetes.io/ws", Declared::Http),
    ("grpc", Declared::Http2),
    ("h2c", Declared::Http2),
    ("http2", Declared::Http2),
    ("kubernetes.io/h2c", Declared::Http2),
    ("https", Declared::Tls),
    ("tls", Declared::Tls),
    ("wss", Declared::Tls),
    ("kubernetes.io/wss", Declared::Tls),
    ("grpcs", Declared::Tls),
    ("tcp", Declared::Opaque),
    ("redis", Declared::Opaque),
    ("mysql", Declared::Opaque),
    ("mongo", Declared::Opaque),
];

/// Reads `appProtocol`, else the port name up to its first dash (`http-web`, `tcp`).
pub fn declared(app_protocol: Option<&str>, port_name: &str) -> Declared {
    let look_up = |word: &str| {
        DECLARED.iter().find(|(name, _)| name.eq_ignore_ascii_case(word)).map(|(_, d)| *d)
    };
    app_protocol
        .and_then(look_up)
        .or_else(|| look_up(port_name.split('-').next().unwrap_or(port_name)))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts() {
        let long_target = [b"GET /".to_vec(), vec![b'a'; LONGEST_PREFIX]].concat();
        let cases: &[(&[u8], Verdict)] = &[
            (b"", Verdict::More),
            (b"GET / HTTP/1.1\r\n\r\n", Verdict::Yes(Protocol::Http1)),
            (b"GET / HTTP/1", Verdict::More),
            (b"\r\nPUT /x HTTP/1.0\r\n", Verdict::Yes(Protocol::Http1)),
            (b"M-SEARCH * HTTP/1.1\r\n", Verdict::Yes(Protocol::Http1)),
            (b"CONNECT a:1 HTTP/1.1\r\n", Verdict::Yes(Protocol::Http1)),
            (&long_target, Verdict::Yes(Protocol::Http1)),
            (PREFACE, Verdict::Yes(Protocol::Http2)),
            (&PREFACE[..20], Verdict::More),
            (b"PRINT 10\n", Verdict::Yes(Protocol::Opaque)),
            (b"PRI * HTTP/2.0\r\n\r\nXX", Verdict::Yes(Protocol::Opaque)),
            (b"\x16\x03\x01\x02\x00\x01", Verdict::Yes(Protocol::Tls)),
            (b"\x16\x03\x01", Verdict::More),
            (b"\x16\x03\x01\xff\xff\x01", Verdict::Yes(Protocol::Opaque)),
            (b"SSH-2.0-OpenSSH_9\r\n", Verdict::Yes(Protocol::Opaque)),
            (b"PING\r\n", Verdict::Yes(Protocol::Opaque)),
            (b"get key\r\n", Verdict::Yes(Protocol::Opaque)),
            (b"*1\r\n$4\r\nPING\r\n", Verdict::Yes(Protocol::Opaque)),
            (b"HELO mail\r\n", Verdict::Yes(Protocol::Opaque)),
            (b"GET /\r\n", Verdict::Yes(Protocol::Opaque)),
            (b"\0\0\0\x08", Verdict::Yes(Protocol::Opaque)),
        ];
        for (bytes, want) in cases {
            assert_eq!(detect(bytes), *want, "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn greetings_that_decide_nothing() {
        for (bytes, want) in [
            (&b"HTTP/1.1 408 Request Time-out\r\n"[..], true),
            (b"HTT", true),
            (b"\0\0\x12\x04\0\0\0\0\0\0\x03", true),
            (b"\0\0\0\x04\0\0\0\0\0", true),
            (b"\0\0\x12\x05\0\0\0\0\0", false),
            (b"\0\x02\0\x04\0\0\0\0\0", false),
            (b"SSH-2.0", false),
            (b"220 mail ready", false),
            (b"J\0\0\0\x0a8.0", false),
        ] {
            assert_eq!(is_http_greeting(bytes), want, "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn names_that_decide() {
        for (app, port, want) in [
            (None, "", Declared::Unknown),
            (None, "http-web", Declared::Http),
            (None, "grpc", Declared::Http2),
            (None, "tcp-redis", Declared::Opaque),
            (None, "metrics", Declared::Unknown),
            (Some("kubernetes.io/h2c"), "http", Declared::Http2),
            (Some("example.com/own"), "tls-x", Declared::Tls),
        ] {
            assert_eq!(declared(app, port), want, "{app:?} {port}");
        }
    }
}
