//! HTTP/2 frame by frame, in the manner of h2spec: what comes in, and what RFC 9113 wants back.

use std::io::Read;
use std::time::Duration;

use crate::agent::Agent;
use crate::backend::Backend;
use crate::common::namespace::in_namespace;
use crate::frames::{
    CONTINUATION, DATA, END_HEADERS, GOAWAY, HEADERS, LAST, PING, PREFACE, RST_STREAM, SETTINGS,
    WINDOW_UPDATE, frame,
};
use crate::raw::Raw;
use crate::world::{ONE, World};

const PRIORITY: u8 = 2;
const PUSH_PROMISE: u8 = 5;
const PADDED: u8 = 8;
const WITH_PRIORITY: u8 = 0x20;
/// Error codes of RFC 9113 §7. Where it wants FRAME_SIZE_ERROR, COMPRESSION_ERROR or
/// FLOW_CONTROL_ERROR for what cannot even be parsed, h2 says PROTOCOL_ERROR, and it ends the
/// connection where it may end the stream (§5.4.2 lets it): these rows have `LOOSELY`.
const PROTOCOL: u32 = 1;
const FLOW_CONTROL: u32 = 3;
const FRAME_SIZE: u32 = 6;
const CALM: u32 = 11;
/// Says that all before it was read.
const END: &[u8; 8] = b"the end.";

/// What comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Want {
    /// The connection ends with this code.
    Away(u32),
    /// Stream 1 ends with this code; the connection lives.
    Reset(u32),
    /// Stream 1 is answered with this status.
    Status(u16),
    /// Nothing but the answer to a PING at the end.
    Nothing,
}
use Want::{Away, Nothing, Reset, Status};

const LOOSELY: Want = Away(PROTOCOL);

type Row = (&'static str, Vec<u8>, Want);

/// A literal header field of HPACK, not indexed, not Huffman-coded.
fn field(name: &str, value: &str) -> Vec<u8> {
    let length = |text: &str| {
        let length = text.len();
        // RFC 7541 §5.1: a prefix of 7 bits, then 7 bits at a time.
        match length {
            0..127 => vec![length as u8],
            _ => vec![127, (length - 127) as u8 % 128 + 128, ((length - 127) / 128) as u8],
        }
    };
    [&[0][..], &length(name), name.as_bytes(), &length(value), value.as_bytes()].concat()
}

fn fields(all: &[(&str, &str)]) -> Vec<u8> {
    all.iter().flat_map(|(name, value)| field(name, value)).collect()
}

/// A good request's head, and `more`.
fn head(method: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let begin = [(":method", method), (":scheme", "http"), (":path", "/"), (":authority", "a")];
    [fields(&begin), fields(more)].concat()
}

fn request(more: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, LAST | END_HEADERS, 1, &head("GET", more))
}

/// A request whose whole head is this.
fn only(all: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, LAST | END_HEADERS, 1, &fields(all))
}

fn post(more: &[(&str, &str)], rest: &[Vec<u8>]) -> Vec<u8> {
    [frame(HEADERS, END_HEADERS, 1, &head("POST", more)), rest.concat()].concat()
}

fn setting(name: u16, value: u32) -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[&name.to_be_bytes()[..], &value.to_be_bytes()].concat())
}

fn framing() -> Vec<Row> {
    let get = || request(&[]);
    vec![
        ("a request", get(), Status(200)),
        ("an unknown frame", frame(0xfe, 0xff, 0, b"what"), Nothing),
        ("unknown flags", frame(PING, 0xfe, 0, &[1; 8]), Nothing),
        ("an unknown setting", setting(0xff, 1), Nothing),
        ("too long a frame", post(&[], &[frame(DATA, LAST, 1, &[0; 16385])]), Away(FRAME_SIZE)),
        ("SETTINGS of 5 octets", frame(SETTINGS, 0, 0, &[0; 5]), LOOSELY),
        ("SETTINGS of a stream", frame(SETTINGS, 0, 1, &[]), Away(PROTOCOL)),
        ("SETTINGS ACK with settings", frame(SETTINGS, LAST, 0, &[0; 6]), LOOSELY),
        ("ENABLE_PUSH of 2", setting(2, 2), Away(PROTOCOL)),
        ("a window beyond 31 bits", setting(4, 1 << 31), LOOSELY),
        ("too small a frame size", setting(5, 16383), Away(PROTOCOL)),
        ("too large a frame size", setting(5, 1 << 24), Away(PROTOCOL)),
        ("PING of a stream", frame(PING, 0, 1, &[0; 8]), Away(PROTOCOL)),
        ("PING of 7 octets", frame(PING, 0, 0, &[0; 7]), LOOSELY),
        ("PING that nobody asked for", frame(PING, LAST, 0, &[7; 8]), Nothing),
        ("GOAWAY of a stream", frame(GOAWAY, 0, 1, &[0; 8]), Away(PROTOCOL)),
        ("PUSH_PROMISE", frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2]), Away(PROTOCOL)),
        ("PRIORITY of no stream", frame(PRIORITY, 0, 0, &[0, 0, 0, 1, 1]), Away(PROTOCOL)),
        ("PRIORITY", [frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 1]), get()].concat(), Status(200)),
        ("CONTINUATION of nothing", frame(CONTINUATION, END_HEADERS, 1, &[]), Away(PROTOCOL)),
        (
            "CONTINUATION behind a whole head",
            [get(), frame(CONTINUATION, END_HEADERS, 1, &[])].concat(),
            Away(PROTOCOL),
        ),
        (
            "a head in two",
            [
                frame(HEADERS, LAST, 1, &head("GET", &[])),
                frame(CONTINUATION, END_HEADERS, 1, &field("x", "y")),
            ]
            .concat(),
            Status(200),
        ),
        (
            "another frame within a head",
            [frame(HEADERS, LAST, 1, &head("GET", &[])), frame(PING, 0, 0, &[0; 8])].concat(),
            Away(PROTOCOL),
        ),
        (
            "CONTINUATION of another stream",
            [frame(HEADERS, LAST, 1, &head("GET", &[])), frame(CONTINUATION, END_HEADERS, 3, &[])]
                .concat(),
            Away(PROTOCOL),
        ),
        ("DATA of no stream", frame(DATA, LAST, 0, b"x"), Away(PROTOCOL)),
        ("padding longer than DATA", post(&[], &[frame(DATA, PADDED, 1, &[9, 1])]), Away(PROTOCOL)),
        (
            "padded DATA",
            post(&[], &[frame(DATA, PADDED | LAST, 1, &[3, b'x', 0, 0, 0])]),
            Status(200),
        ),
        (
            "a head with a priority",
            frame(
                HEADERS,
                LAST | END_HEADERS | WITH_PRIORITY,
                1,
                &[&[0, 0, 0, 0, 1][..], &head("GET", &[])].concat(),
            ),
            Status(200),
        ),
        ("HEADERS of no stream", frame(HEADERS, 5, 0, &head("GET", &[])), Away(PROTOCOL)),
        ("an even stream", frame(HEADERS, 5, 2, &head("GET", &[])), Away(PROTOCOL)),
        ("an index of zero", frame(HEADERS, 5, 1, &[0x80]), LOOSELY),
        ("an index beyond the table", frame(HEADERS, 5, 1, &[0xff, 0x20]), LOOSELY),
        ("too large a table", frame(HEADERS, 5, 1, &[0x3f, 0xff, 0xff, 0x03]), LOOSELY),
    ]
}

fn streams() -> Vec<Row> {
    let get = || request(&[]);
    let open = |stream| frame(HEADERS, 5, stream, &head("GET", &[]));
    let window = |stream, by: u32| frame(WINDOW_UPDATE, 0, stream, &by.to_be_bytes());
    vec![
        ("DATA of an idle stream", frame(DATA, LAST, 1, b"x"), Away(PROTOCOL)),
        ("RST_STREAM of an idle stream", frame(RST_STREAM, 0, 1, &[0; 4]), Away(PROTOCOL)),
        ("WINDOW_UPDATE of an idle stream", window(1, 1), Away(PROTOCOL)),
        ("RST_STREAM of no stream", frame(RST_STREAM, 0, 0, &[0; 4]), Away(PROTOCOL)),
        ("RST_STREAM of 3 octets", [get(), frame(RST_STREAM, 0, 1, &[0; 3])].concat(), LOOSELY),
        ("a stream below the last", [open(5), open(3)].concat(), Away(PROTOCOL)),
        ("DATA behind the end", [get(), frame(DATA, LAST, 1, b"x")].concat(), LOOSELY),
        ("a window of nothing", window(0, 0), Away(PROTOCOL)),
        ("a stream's window of nothing", post(&[], &[window(1, 0)]), LOOSELY),
        ("WINDOW_UPDATE of 3 octets", frame(WINDOW_UPDATE, 0, 0, &[0; 3]), LOOSELY),
        ("a window too wide", window(0, (1 << 31) - 1), Away(FLOW_CONTROL)),
        ("a stream's window too wide", post(&[], &[window(1, (1 << 31) - 1)]), Reset(FLOW_CONTROL)),
        (
            "trailers that do not end",
            post(&[], &[frame(HEADERS, END_HEADERS, 1, &field("x", "y"))]),
            Reset(PROTOCOL),
        ),
        (
            "trailers with a pseudo-header",
            post(&[], &[frame(HEADERS, LAST | END_HEADERS, 1, &field(":path", "/"))]),
            Status(200), // malformed; h2 leaves it out
        ),
        (
            "trailers",
            post(&[], &[frame(HEADERS, LAST | END_HEADERS, 1, &field("x", "y"))]),
            Status(200),
        ),
        (
            "a body shorter than its length",
            post(&[("content-length", "5")], &[frame(DATA, LAST, 1, b"abc")]),
            Reset(PROTOCOL),
        ),
        (
            "a body longer than its length",
            post(&[("content-length", "2")], &[frame(DATA, LAST, 1, b"abc")]),
            Reset(PROTOCOL),
        ),
        ("a length and no body", request(&[("content-length", "5")]), Reset(PROTOCOL)),
        (
            "two lengths",
            post(
                &[("content-length", "3"), ("content-length", "4")],
                &[frame(DATA, LAST, 1, b"abc")],
            ),
            Reset(PROTOCOL),
        ),
    ]
}

fn heads() -> Vec<Row> {
    const METHOD: (&str, &str) = (":method", "GET");
    const SCHEME: (&str, &str) = (":scheme", "http");
    const PATH: (&str, &str) = (":path", "/");
    const NAME: (&str, &str) = (":authority", "a");
    let bad = |what, row: Vec<u8>| (what, row, Reset(PROTOCOL));
    let lost = |what, row: Vec<u8>| (what, row, LOOSELY);
    vec![
        lost("an upper-case name", request(&[("X-A", "b")])),
        lost("an empty name", request(&[("", "b")])),
        lost("a space in a name", request(&[("x a", "b")])),
        lost("a colon in a name", request(&[("x:a", "b")])),
        lost("CR LF in a name", request(&[("x\r\ny", "b")])),
        lost("CR LF in a value", request(&[("x", "b\r\nevil: 1")])),
        lost("LF in a value", request(&[("x", "b\nevil: 1")])),
        lost("NUL in a value", request(&[("x", "b\0c")])),
        bad("connection", request(&[("connection", "close")])),
        bad("transfer-encoding", request(&[("transfer-encoding", "chunked")])),
        bad("keep-alive", request(&[("keep-alive", "5")])),
        bad("proxy-connection", request(&[("proxy-connection", "close")])),
        bad("upgrade", request(&[("upgrade", "h2c")])),
        bad("te: gzip", request(&[("te", "gzip")])),
        lost("an unknown pseudo-header", request(&[(":x", "y")])),
        bad("a pseudo-header behind", only(&[METHOD, SCHEME, ("x", "y"), PATH, NAME])),
        bad("a status", request(&[(":status", "200")])),
        bad("two methods", only(&[METHOD, METHOD, SCHEME, PATH, NAME])),
        bad("two paths", only(&[METHOD, SCHEME, PATH, PATH, NAME])),
        bad("two authorities", only(&[METHOD, SCHEME, PATH, NAME, NAME])),
        bad("no method", only(&[SCHEME, PATH, NAME])),
        bad("no scheme", only(&[METHOD, PATH, NAME])),
        bad("no path", only(&[METHOD, SCHEME, NAME])),
        bad("an empty path", only(&[METHOD, SCHEME, (":path", ""), NAME])),
        lost("a space in a method", only(&[(":method", "GET /x"), SCHEME, PATH, NAME])),
        lost(
            "a line in a method",
            only(&[(":method", "GET / HTTP/1.1\r\nx: y"), SCHEME, PATH, NAME]),
        ),
        bad("a line in a path", only(&[METHOD, SCHEME, (":path", "/ HTTP/1.1\r\nx: y"), NAME])),
        bad("a space in a path", only(&[METHOD, SCHEME, (":path", "/a b"), NAME])),
        bad("a line in an authority", only(&[METHOD, SCHEME, PATH, (":authority", "a\r\nx: y")])),
        bad("a slash in an authority", only(&[METHOD, SCHEME, PATH, (":authority", "a/b")])),
        bad(
            "an extended CONNECT",
            only(&[(":method", "CONNECT"), (":protocol", "websocket"), SCHEME, PATH, NAME]),
        ),
        bad("CONNECT with a path", only(&[(":method", "CONNECT"), PATH, NAME])),
        ("te: trailers", request(&[("te", "trailers")]), Status(200)),
        ("a Host alone", only(&[METHOD, SCHEME, PATH, ("host", "a")]), Status(200)),
        ("the same Host", request(&[("host", "a")]), Status(200)),
        ("another Host", request(&[("host", "b")]), Status(400)),
        ("a password", only(&[METHOD, SCHEME, PATH, (":authority", "me:x@a")]), Status(400)),
        ("an odd method", only(&[(":method", "M-SEARCH"), SCHEME, PATH, NAME]), Status(200)),
    ]
}

fn floods() -> Vec<Row> {
    let odd = || (0..20_000).map(|n| 2 * n + 1);
    let open = |stream| frame(HEADERS, LAST | END_HEADERS, stream, &head("GET", &[]));
    let long = "y".repeat(8000);
    let large = |count| head("GET", &vec![("x", &*long); count]);
    let split = |block: Vec<u8>| {
        let mut frames = frame(HEADERS, LAST, 1, &[]);
        let pieces: Vec<&[u8]> = block.chunks(16_000).collect();
        for (number, piece) in pieces.iter().enumerate() {
            let flags = if number + 1 == pieces.len() { END_HEADERS } else { 0 };
            frames.extend(frame(CONTINUATION, flags, 1, piece));
        }
        frames
    };
    vec![
        (
            "rapid resets",
            odd()
                .flat_map(|s| [open(s), frame(RST_STREAM, 0, s, &[0, 0, 0, 8])].concat())
                .collect(),
            Away(CALM),
        ),
        ("a head of 48 KiB", split(large(6)), Status(200)),
        ("a head of 80 KiB", split(large(10)), Status(431)),
        ("a head of 1 MiB", split(large(130)), Away(CALM)),
        (
            "CONTINUATION without end",
            [
                frame(HEADERS, LAST, 1, &head("GET", &[])),
                frame(CONTINUATION, 0, 1, &[]).repeat(10_000),
            ]
            .concat(),
            Away(CALM),
        ),
        (
            "a long path",
            only(&[
                (":method", "GET"),
                (":scheme", "http"),
                (":path", &format!("/{}", "x".repeat(16_000))),
                (":authority", "a"),
            ]),
            Status(200),
        ),
        ("10,000 PINGs", frame(PING, 0, 0, &[1; 8]).repeat(10_000), Nothing),
        ("10,000 SETTINGS", setting(4, 65535).repeat(10_000), Nothing),
        ("empty DATA", post(&[], &[frame(DATA, 0, 1, &[]).repeat(20_000)]), Away(CALM)),
    ]
}

/// What came back, in order; ends with the answer to the last PING, or with the connection.
fn talk(said: &[u8], want: Want) -> Vec<Want> {
    let mut raw = Raw::connect("", "10.96.0.80:80");
    raw.stream().set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut out = raw.stream().try_clone().unwrap();
    let said = [PREFACE, said, &frame(PING, 0, 0, END)].concat();
    let writer = std::thread::spawn(move || std::io::Write::write_all(&mut out, &said).ok());
    let (mut seen, mut read) = (Vec::new(), false);
    // An answer may come after that of the PING.
    while !(read && (want == Nothing || seen.contains(&want))) {
        let mut begin = [0; 9];
        if raw.reader.read_exact(&mut begin).is_err() {
            break;
        }
        let length = u32::from_be_bytes([0, begin[0], begin[1], begin[2]]) as usize;
        let mut payload = vec![0; length];
        if raw.reader.read_exact(&mut payload).is_err() {
            break;
        }
        let code = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
        match (begin[3], begin[4], begin[8]) {
            (PING, LAST, _) if payload == END => read = true,
            (GOAWAY, _, _) => seen.push(Away(code(4))),
            (RST_STREAM, _, 1) => seen.push(Reset(code(0))),
            (HEADERS, _, 1) => seen.push(Status(status(&payload))),
            _ => {}
        }
    }
    raw.stream().shutdown(std::net::Shutdown::Both).ok();
    writer.join().unwrap();
    seen
}

/// The status of an answer, which is its first field: of RFC 7541's table, or Huffman-coded.
fn status(block: &[u8]) -> u16 {
    match block {
        [0x88, ..] => 200,
        [0x8c, ..] => 400,
        [0x48, 0x83, 0x69, 0x90, ..] => 431,
        _ => 0,
    }
}

#[test]
fn frames_are_answered_as_the_rfc_wants() {
    in_namespace("h2::frames_are_answered_as_the_rfc_wants", || {
        let world = World::new();
        let one = Backend::start("", "one", ONE, 8080);
        world.service("one", &["10.96.0.80"], &["http:80:8080"], &[ONE]);
        let agent = Agent::start(&world);
        let mut well = Raw::connect("pod", "10.96.0.80:80");
        assert_eq!(well.get("/").body, "one");
        let before = agent.resident();
        let mut bad = Vec::new();
        for (what, said, want) in [framing(), streams(), heads(), floods()].concat() {
            let asked = one.counts().1;
            let seen = talk(&said, want);
            let right = if want == Nothing { seen.is_empty() } else { seen.last() == Some(&want) };
            // What is malformed never reaches the backend.
            let through = one.counts().1 > asked && matches!(want, Status(400..));
            if !right || through || one.last_head().contains("evil") {
                bad.push(format!("{what}: {seen:?}, not {want:?}"));
            }
            assert_eq!(well.get("/").body, "one", "after {what}");
        }
        assert!(bad.is_empty(), "\n{}", bad.join("\n"));
        let grown = agent.resident().saturating_sub(before);
        assert!(grown < 24 * 1024, "{grown} KiB");
    });
}
