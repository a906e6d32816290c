//! Laws of sniffing: a verdict never changes when more bytes arrive, so no cut of the reads can matter.

use std::sync::Arc;

use edgemesh_core::sniff::{
    ClientHello, LONGEST_HELLO, LONGEST_PREFIX, Protocol, Verdict, client_hello, detect,
    is_http_greeting,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

/// First bytes of real clients and servers.
const SAMPLES: &[(&[u8], Protocol)] = &[
    (b"GET / HTTP/1.1\r\nHost: hello.default\r\nUser-Agent: curl/8.5.0\r\n\r\n", Protocol::Http1),
    (b"POST /a%20b?x=1&y=2 HTTP/1.0\r\nContent-Length: 2\r\n\r\nhi", Protocol::Http1),
    (b"\r\n\r\nOPTIONS * HTTP/1.1\r\n\r\n", Protocol::Http1),
    (b"CONNECT redis.default:6379 HTTP/1.1\r\n\r\n", Protocol::Http1),
    (b"VERSION-CONTROL /x HTTP/1.1\r\n\r\n", Protocol::Http1),
    (b"GET http://hello.default/ HTTP/1.1\r\n\r\n", Protocol::Http1),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x12\x04\0\0\0\0\0", Protocol::Http2),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", Protocol::Tls),
    (b"*1\r\n$4\r\nPING\r\n", Protocol::Opaque),
    (b"PING\r\n", Protocol::Opaque),
    (b"SSH-2.0-OpenSSH_9.6\r\n", Protocol::Opaque),
    (b"EHLO client.example\r\n", Protocol::Opaque),
    (b"\x10\x13\0\x04MQTT\x04\x02\0\x3c\0\x07abcdefg", Protocol::Opaque),
    (b"\0\0\0\x08\x04\xd2\x16\x2f", Protocol::Opaque),
    (b"\x3a\0\0\0\x01\0\0\0\0\0\0\0\xd4\x07\0\0", Protocol::Opaque),
    (b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n", Protocol::Opaque),
    (b"get key\r\n", Protocol::Opaque),
    (b"GET /only-a-line\r\n", Protocol::Opaque),
];

/// What servers send first.
const GREETINGS: &[&[u8]] = &[
    b"HTTP/1.1 408 Request Time-out\r\n\r\n",
    b"\0\0\x12\x04\0\0\0\0\0\0\x03\0\0\0\x64",
    b"220 mail.example ESMTP\r\n",
    b"J\0\0\0\x0a8.0.36\0",
    b"SSH-2.0-OpenSSH_9.6\r\n",
];

#[test]
fn invariant_6_real_bytes_at_every_cut() {
    for (bytes, want) in SAMPLES {
        assert_eq!(detect(bytes), Verdict::Yes(*want), "{:?}", String::from_utf8_lossy(bytes));
        holds(bytes).unwrap();
    }
}

#[test]
fn invariant_6_real_client_hellos_at_every_cut() {
    for (name, alpn) in [
        ("hello.default", &[][..]),
        ("HELLO.default.svc.cluster.local", &["h2", "http/1.1"]),
        ("a-rather-long-name.in-a-namespace.svc.cluster.local", &["edgemesh-reverse/1"]),
    ] {
        let hello = real_hello(name, alpn);
        holds(&hello).unwrap();
        assert_eq!(detect(&hello[..6]), Verdict::Yes(Protocol::Tls));
        let want = ClientHello {
            server_name: Some(name.to_ascii_lowercase().into()),
            alpn: alpn.iter().map(|name| (*name).into()).collect(),
        };
        for cut in 0..hello.len() {
            assert_eq!(client_hello(&hello[..cut]), Ok(None), "{name}: {cut} of {}", hello.len());
        }
        assert_eq!(client_hello(&hello), Ok(Some(want)));
    }
}

#[test]
fn nothing_stays_undecided_for_ever() {
    let long = |start: &[u8], byte| [start, &vec![byte; LONGEST_PREFIX - start.len()]].concat();
    for bytes in [
        long(b"", b'G'),
        long(b"", b'\n'),
        long(b"", 0),
        long(b"GET /", b'x'),
        long(b"G /", 0xff),
        long(b"\r\n\r\nGET /", b'x'),
        long(b"\x16\x03\x01", 0),
        long(b"PRI * HTTP/2.0\r\n", b'S'),
    ] {
        assert_ne!(detect(&bytes), Verdict::More, "{:?}", &bytes[..20]);
    }
    let endless = [&b"\x16\x03\x01\x40\x00\x01\x00\xff\xff"[..], &vec![0; LONGEST_HELLO]].concat();
    assert!(client_hello(&endless).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn invariant_6_any_bytes_at_every_cut(bytes in bytes()) {
        holds(&bytes)?;
    }

    /// The long targets that decide at the very end of what is read.
    #[test]
    fn invariant_6_long_lines_at_any_cut(
        start in select(vec!["GET /", "\r\n\nGET /", "X ", "GET"]),
        fill in select(vec![b'a', b'/', 0x80]),
        length in LONGEST_PREFIX - 40..LONGEST_PREFIX + 40,
        end in select(vec!["", " HTTP/1.1\r\n", " FTP/1.1\r\n", "\r\n", " HTTP/1"]),
        cuts in vec(any::<Index>(), 8),
    ) {
        let length = length.saturating_sub(start.len() + end.len());
        let bytes = [start.as_bytes(), &vec![fill; length], end.as_bytes()].concat();
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.extend([LONGEST_PREFIX - 1, LONGEST_PREFIX, LONGEST_PREFIX + 1, bytes.len()]);
        cuts.retain(|cut| *cut <= bytes.len());
        cuts.sort_unstable();
        let verdicts: Vec<_> = cuts.iter().map(|cut| detect(&bytes[..*cut])).collect();
        one_verdict(&verdicts)?;
        for (cut, verdict) in cuts.iter().zip(&verdicts) {
            prop_assert!(*cut < LONGEST_PREFIX || *verdict != Verdict::More, "undecided at {}", cut);
        }
    }

    /// A hello that was whole stays the same, whatever follows; damage is an error, never a panic.
    #[test]
    fn hellos_with_damage_and_company(
        damage in vec((any::<Index>(), any::<u8>()), 0..4),
        more in vec(any::<u8>(), 0..64),
        cut in any::<Index>(),
    ) {
        let mut hello = real_hello("hello.default", &["h2"]);
        for (place, byte) in damage {
            let place = place.index(hello.len());
            hello[place] = byte;
        }
        let whole = client_hello(&hello);
        let early = client_hello(&hello[..cut.index(hello.len())]);
        prop_assert!(early == whole || early == Ok(None), "{:?}, then {:?}", early, whole);
        hello.extend_from_slice(&more);
        if let Ok(Some(_)) = whole {
            prop_assert_eq!(client_hello(&hello), whole);
        }
    }
}

/// Samples, cut and damaged, and bytes of chance.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let all: Vec<_> = SAMPLES.iter().map(|row| row.0).chain(GREETINGS.iter().copied()).collect();
    let damaged =
        (select(all.clone()), any::<Index>(), any::<u8>()).prop_map(|(sample, at, byte)| {
            let mut bytes = sample.to_vec();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            bytes
        });
    let joined = (select(all.clone()), any::<Index>(), select(all))
        .prop_map(|(a, cut, b)| [&a[..cut.index(a.len() + 1)], b].concat());
    let near_http = "[\r\n]{0,5}[A-Z!a-z]{0,35} ?[!-~]{0,12} ?(HTTP/1\\.)?[ -~]{0,4}";
    prop_oneof![
        4 => damaged,
        3 => joined,
        2 => near_http.prop_map(String::into_bytes),
        1 => vec(any::<u8>(), 0..80),
        1 => vec(select(b"\r\n GETHP/1.\x16\x03\x01\0\x04".to_vec()), 0..40),
    ]
}

/// The law, at every cut.
fn holds(bytes: &[u8]) -> Result<(), TestCaseError> {
    let verdicts: Vec<_> = (0..=bytes.len()).map(|cut| detect(&bytes[..cut])).collect();
    one_verdict(&verdicts)?;
    prop_assert_eq!(verdicts[0], Verdict::More, "nothing says nothing");
    let greetings: Vec<_> = (0..=bytes.len()).map(|cut| is_http_greeting(&bytes[..cut])).collect();
    prop_assert!(greetings[0], "nothing could become a greeting");
    let first_no = greetings.iter().position(|yes| !yes).unwrap_or(greetings.len());
    prop_assert!(greetings[first_no..].iter().all(|yes| !yes), "a no stays a no: {:?}", greetings);
    Ok(())
}

/// Of growing prefixes: first undecided, then one protocol for good.
fn one_verdict(verdicts: &[Verdict]) -> Result<(), TestCaseError> {
    let decided = verdicts.iter().position(|v| *v != Verdict::More).unwrap_or(verdicts.len());
    let mut rest = verdicts[decided..].iter();
    let first = rest.next();
    prop_assert!(rest.all(|v| Some(v) == first), "changed its mind: {:?}", verdicts);
    Ok(())
}

/// What rustls's client sends first.
fn real_hello(name: &str, alpn: &[&str]) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring does TLS 1.2 and 1.3")
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let name = ServerName::try_from(name.to_owned()).expect("a DNS name");
    let mut client = ClientConnection::new(Arc::new(config), name).expect("a client");
    let mut hello = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut hello).expect("a Vec takes all");
    }
    hello
}
