//! Requests on whose framing or name two readers may disagree: what arrives is what was meant,
//! framed once, or nothing.

use crate::agent::Agent;
use crate::common::namespace::in_namespace;
use crate::raw::Raw;
use crate::record::Recorder;
use crate::world::{ONE, World};

/// Behind each row: arrives, and ends the connection, where the row's own end was understood.
const END: &str = "GET /end HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

/// Method and path, and the body, of each request.
type Arrives = &'static [(&'static str, &'static str)];

/// Refused, with its end understood.
const ONLY_END: Arrives = &[("GET /end", "")];

/// What is said, and what arrives whole: method, path and body of each. Nothing = refused with 400;
/// where it streams, its beginning may have arrived, broken off.
const SAID: &[(&str, &str, Arrives)] = &[
    ("plain", "GET /p HTTP/1.1\r\nHost: a\r\n\r\n", &[("GET /p", ""), ("GET /end", "")]),
    (
        "a length, then chunks that are longer",
        "POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        &[("POST /p", "hello")],
    ),
    (
        "a length, then chunks that are shorter",
        "POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 60\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        &[("POST /p", "hello")],
    ),
    (
        "chunks, then a length",
        "POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        &[("POST /p", "hello")],
    ),
    (
        "two lengths",
        "POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 5\r\n\r\nhello",
        &[],
    ),
    (
        "one length twice",
        "POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
        &[("POST /p", "hello"), ("GET /end", "")],
    ),
    ("a list of lengths", "POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\nhello", &[]),
    ("a signed length", "POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello", &[]),
    ("a hex length", "POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\nhello", &[]),
    (
        "odd casing",
        "POST /p HTTP/1.1\r\nHost: a\r\ntRANSFER-eNCODING: ChUnKeD\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        &[("POST /p", "hello"), ("GET /end", "")],
    ),
    (
        "whitespace around",
        "POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \t chunked \t\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        &[("POST /p", "hello"), ("GET /end", "")],
    ),
    (
        "a vertical tab",
        "POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        &[],
    ),
    (
        "a space before the colon",
        "POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        &[],
    ),
    (
        "an unknown coding last",
        "POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        &[],
    ),
    (
        "an unknown coding alone",
        "POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\nContent-Length: 5\r\n\r\nhello",
        &[],
    ),
    (
        "chunked, and then not",
        "POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        &[],
    ),
    (
        "chunks in HTTP/1.0",
        "POST /p HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        &[],
    ),
    (
        "a folded coding",
        "POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        &[],
    ),
    ("a folded header", "GET /p HTTP/1.1\r\nHost: a\r\nX: 1\r\n Content-Length: 5\r\n\r\n", &[]),
    ("bare LF", "GET /p HTTP/1.1\nHost: a\nX: 1\n\n", &[("GET /p", ""), ("GET /end", "")]),
    ("a bare CR", "GET /p HTTP/1.1\r\nHost: a\r\nX: 1\rContent-Length: 5\r\n\r\n", &[]),
    (
        "chunk extensions",
        "POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b;c=\"d\"\r\nhello\r\n0;e\r\n\r\n",
        &[("POST /p", "hello"), ("GET /end", "")],
    ),
    (
        "a bare LF in a chunk extension",
        "POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;a\nhello\r\n0\r\n\r\n",
        &[],
    ),
    (
        "a bare LF behind a chunk size",
        "POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n",
        &[],
    ),
    (
        "a chunk size beyond 64 bits",
        "POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000005\r\nhello\r\n0\r\n\r\n",
        &[],
    ),
    (
        "a signed chunk size",
        "POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n+5\r\nhello\r\n0\r\n\r\n",
        &[],
    ),
    (
        "a hex prefix",
        "POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n",
        &[],
    ),
    (
        "framing in trailers",
        "POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: content-length\r\n\r\n5\r\nhello\r\n0\r\nContent-Length: 9\r\n\r\n",
        &[("POST /p", "hello"), ("GET /end", "")],
    ),
    ("no Host", "GET /p HTTP/1.1\r\nX: 1\r\n\r\n", ONLY_END),
    ("two Hosts", "GET /p HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", ONLY_END),
    ("two Hosts apart", "GET /p HTTP/1.1\r\nHost: a\r\nX: 1\r\nhost: a\r\n\r\n", ONLY_END),
    (
        "absolute form with another Host",
        "GET http://b/p HTTP/1.1\r\nHost: a\r\n\r\n",
        &[("GET /p", ""), ("GET /end", "")],
    ),
    (
        "absolute form with a secret",
        "GET http://me:secret@b/p HTTP/1.1\r\nHost: a\r\n\r\n",
        &[("GET /p", ""), ("GET /end", "")],
    ),
    (
        "Connection names Host",
        "GET /p HTTP/1.1\r\nHost: a\r\nConnection: host\r\n\r\n",
        &[("GET /p", ""), ("GET /end", "")],
    ),
    (
        "Connection names the length",
        "POST /p HTTP/1.1\r\nHost: a\r\nConnection: content-length\r\nContent-Length: 5\r\n\r\nhello",
        &[("POST /p", "hello"), ("GET /end", "")],
    ),
    (
        "Connection names the coding",
        "POST /p HTTP/1.1\r\nHost: a\r\nConnection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        &[("POST /p", "hello"), ("GET /end", "")],
    ),
    (
        "GET with a body that is a request",
        "GET /p HTTP/1.1\r\nHost: a\r\nContent-Length: 31\r\n\r\nGET /evil HTTP/1.1\r\nHost: a\r\n\r\n",
        &[("GET /p", "GET /evil HTTP/1.1\r\nHost: a\r\n\r\n"), ("GET /end", "")],
    ),
    (
        "GET with a length and no body",
        "GET /p HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
        &[("GET /p", ""), ("GET /end", "")],
    ),
    (
        "DELETE with a body",
        "DELETE /p HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
        &[("DELETE /p", "hello"), ("GET /end", "")],
    ),
    (
        "h2c with a body",
        "POST /p HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\nContent-Length: 5\r\n\r\nhello",
        &[("POST /p", "hello"), ("GET /end", "")],
    ),
    (
        "a NUL in a value",
        "POST /p HTTP/1.1\r\nHost: a\r\nX: b\0c\r\nContent-Length: 5\r\n\r\nhello",
        &[],
    ),
    ("a NUL in a name", "GET /p HTTP/1.1\r\nHost: a\r\nX\0Y: b\r\n\r\n", &[]),
    ("a NUL in the target", "GET /p\0q HTTP/1.1\r\nHost: a\r\n\r\n", &[]),
    ("an empty name", "GET /p HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", &[]),
    ("no colon", "GET /p HTTP/1.1\r\nHost: a\r\nContent-Length 5\r\n\r\n", &[]),
    ("a space before the first header", "GET /p HTTP/1.1\r\n Host: a\r\n\r\n", &[]),
    ("a tab before the colon", "GET /p HTTP/1.1\r\nHost\t: a\r\n\r\n", &[]),
    (
        "an empty line before",
        "\r\nGET /p HTTP/1.1\r\nHost: a\r\n\r\n",
        &[("GET /p", ""), ("GET /end", "")],
    ),
    ("a length of nothing", "POST /p HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\nhello", &[]),
    ("a negative length", "POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\nhello", &[]),
    (
        "a length with a space",
        "POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 5 5\r\n\r\nhello",
        &[],
    ),
    (
        "a length beyond 64 bits",
        "POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551621\r\n\r\nhello",
        &[],
    ),
    (
        "chunked twice",
        "POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        ONLY_END,
    ),
    (
        "chunked behind gzip",
        "POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        ONLY_END,
    ),
    (
        "chunked in quotes",
        "POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        &[],
    ),
    (
        "an empty coding",
        "POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\nContent-Length: 5\r\n\r\nhello",
        &[],
    ),
    (
        "chunked with an extension",
        "POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked;q=1\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        &[],
    ),
    (
        "an underscore",
        "POST /p HTTP/1.1\r\nHost: a\r\nTransfer_Encoding: chunked\r\nContent-Length: 5\r\n\r\nhello",
        &[("POST /p", "hello"), ("GET /end", "")],
    ),
    (
        "a chunk longer than it says",
        "POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhello\r\n0\r\n\r\n",
        &[],
    ),
    (
        "a chunk size of nothing",
        "POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\r\nhello\r\n0\r\n\r\n",
        &[],
    ),
    (
        "a space before a chunk size",
        "POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n 5\r\nhello\r\n0\r\n\r\n",
        &[],
    ),
    (
        "a chunk size with an underscore",
        "POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0_5\r\nhello\r\n0\r\n\r\n",
        &[],
    ),
    (
        "a bare CR in a chunk extension",
        "POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;a\rb\r\nhello\r\n0\r\n\r\n",
        &[],
    ),
    (
        "bare LF behind a chunk",
        "POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\n0\r\n\r\n",
        &[],
    ),
    (
        "bare LF behind the last chunk",
        "POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\n\n",
        &[],
    ),
    ("two spaces", "GET  /p HTTP/1.1\r\nHost: a\r\n\r\n", &[]),
    ("words behind the version", "GET /p HTTP/1.1 x\r\nHost: a\r\n\r\n", &[]),
    ("a version of 1.2", "GET /p HTTP/1.2\r\nHost: a\r\n\r\n", &[]),
    ("a version of 2.0", "GET /p HTTP/2.0\r\nHost: a\r\n\r\n", &[]),
    ("a fragment", "GET /p#q HTTP/1.1\r\nHost: a\r\n\r\n", &[("GET /p", ""), ("GET /end", "")]),
    ("an authority alone", "GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n", ONLY_END),
    ("a password in Host", "GET /p HTTP/1.1\r\nHost: me:x@a\r\n\r\n", ONLY_END),
    ("two names in Host", "GET /p HTTP/1.1\r\nHost: a, b\r\n\r\n", ONLY_END),
    ("a path in Host", "GET /p HTTP/1.1\r\nHost: a/b\r\n\r\n", ONLY_END),
    (
        "a method of small letters",
        "get /p HTTP/1.1\r\nHost: a\r\n\r\n",
        &[("get /p", ""), ("GET /end", "")],
    ),
    (
        "PROPFIND",
        "PROPFIND /p HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
        &[("PROPFIND /p", "hello"), ("GET /end", "")],
    ),
    ("M-SEARCH", "M-SEARCH * HTTP/1.1\r\nHost: a\r\n\r\n", &[("M-SEARCH *", ""), ("GET /end", "")]),
    (
        "an unknown method",
        "B!a~|z /p HTTP/1.1\r\nHost: a\r\n\r\n",
        &[("B!a~|z /p", ""), ("GET /end", "")],
    ),
    ("OPTIONS *", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", &[("OPTIONS *", ""), ("GET /end", "")]),
    ("TRACE", "TRACE /p HTTP/1.1\r\nHost: a\r\n\r\n", &[("TRACE /p", ""), ("GET /end", "")]),
    ("a method with a slash", "G/T /p HTTP/1.1\r\nHost: a\r\n\r\n", &[]),
    (
        "obs-text",
        "GET /p HTTP/1.1\r\nHost: a\r\nX: \u{e9}\r\n\r\n",
        &[("GET /p", ""), ("GET /end", "")],
    ),
];

#[test]
fn one_framing_leaves() {
    in_namespace("smuggling::one_framing_leaves", || {
        let world = World::new();
        let recorder = Recorder::start("10.4.0.1:8080");
        world.service("one", &["10.96.0.80"], &["http:80:8080"], &[ONE]);
        let agent = Agent::start(&world);
        let mut bad = Vec::new();
        for (what, said, want) in SAID {
            let mut raw = Raw::connect("", "10.96.0.80:80");
            raw.send(said.as_bytes());
            raw.send(END.as_bytes());
            raw.stream().set_read_timeout(Some(std::time::Duration::from_secs(2))).unwrap();
            let (answer, end) = raw.rest();
            let mut seen = recorder.take();
            seen.retain(|seen| seen.body != "?");
            let arrived: Vec<(String, &str)> =
                seen.iter().map(|seen| (seen.asked(), &*seen.body)).collect();
            let fault = seen.iter().find_map(|seen| seen.fault());
            let arrived: Vec<(&str, &str)> = arrived.iter().map(|(a, b)| (&**a, *b)).collect();
            let refused = answer.contains("HTTP/1.1 400")
                || answer.contains("HTTP/1.0 400")
                || answer.is_empty();
            let secret = seen.iter().any(|seen| seen.head.contains("secret"));
            if arrived != *want
                || fault.is_some()
                || secret
                || (!refused && want.iter().all(|(asked, _)| *asked == "GET /end"))
            {
                let heads: Vec<_> = seen.iter().map(|seen| &seen.head).collect();
                bad.push(format!(
                    "{what}: {arrived:?} {fault:?} {heads:?}\n   answer {answer:?} {end:?}"
                ));
            }
        }
        assert!(bad.is_empty(), "\n{}", bad.join("\n"));
        drop(agent);
    });
}
