//! What becomes of queries, as rows; and that no bytes whatever break it.

mod world;

use std::net::Ipv4Addr;

use proptest::prelude::{any, prop, prop_assert, proptest};
use simple_dns::rdata::RData;
use simple_dns::{Packet, PacketFlag, ResourceRecord};

use super::{Domain, Outcome, QUERY_MAX, answer};
use crate::dns::reply::{TCP_MAX, TTL, Transport, UDP_MAX, UDP_PLAIN, limit};
use crate::dns::sample::{edns, query};
use crate::dns::wire;
use world::World;

const A: u16 = 1;
const AAAA: u16 = 28;
const CNAME: u16 = 5;
const PTR: u16 = 12;
const SRV: u16 = 33;

fn domain() -> Domain {
    Domain::new("Cluster.Local.").unwrap()
}

/// In one line: `forward`, `drop`, or code, answers, `soa` and its owner.
fn tell(bytes: &[u8], transport: Transport) -> String {
    let reply = match answer(bytes, transport, &World, &domain()) {
        Outcome::Forward(_) => return "forward".into(),
        Outcome::Alias(_, other) => return format!("alias {other}"),
        Outcome::Drop => return "drop".into(),
        Outcome::Reply(reply) | Outcome::Refuse(reply) => reply,
    };
    assert_eq!(reply[..2], bytes[..2], "the client's id");
    let packet = parse(&reply);
    assert!(packet.has_flags(PacketFlag::RESPONSE));
    let mut words = vec![format!("{:?}", packet.rcode())];
    if packet.has_flags(PacketFlag::TRUNCATION) {
        words.push("truncated".into());
    }
    words.extend(packet.answers.iter().map(show));
    words.extend(packet.name_servers.iter().map(show));
    let more = packet.additional_records.iter();
    words.extend(more.map(|record| format!("({} {})", record.name, show(record))));
    words.join(" ")
}

/// Reads with `simple-dns`, which refuses types that it does not know: those become TXT.
fn parse(reply: &[u8]) -> Packet<'static> {
    let mut bytes = reply.to_vec();
    if let Some(at) = bytes.windows(4).position(|four| four == [0xff, 0, 0, 1]) {
        bytes[at..at + 2].copy_from_slice(&[0, 16]);
    }
    Packet::parse(bytes.leak()).unwrap()
}

fn show(record: &ResourceRecord<'_>) -> String {
    assert_eq!(record.ttl, TTL);
    match &record.rdata {
        RData::A(a) => Ipv4Addr::from(a.address).to_string(),
        RData::AAAA(a) => std::net::Ipv6Addr::from(a.address).to_string(),
        RData::CNAME(other) => format!("is {}", other.0),
        RData::PTR(owner) => owner.0.to_string(),
        RData::SRV(srv) => {
            assert_eq!((srv.priority, srv.weight), (0, 100));
            format!("{}:{}", srv.target, srv.port)
        }
        RData::SOA(soa) => {
            assert_eq!(soa.minimum, TTL);
            format!("soa {}", record.name)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn names_and_their_answers() {
    let rows: &[(&str, u16, &str)] = &[
        ("web.default.svc.cluster.local", A, "NoError 198.18.0.7"),
        ("web.default.svc.cluster.local.", A, "NoError 198.18.0.7"),
        ("WEB.Default.SVC.cluster.LOCAL", A, "NoError 198.18.0.7"),
        ("web.default.svc", A, "NoError 198.18.0.7"),
        ("web.default", A, "NoError 198.18.0.7"),
        // A missing family, or a type that we do not have, is no data. Never NXDOMAIN.
        ("web.default.svc.cluster.local", AAAA, "NoError soa cluster.local"),
        ("web.default.svc", AAAA, "NoError soa svc"),
        ("web.default", AAAA, "NoError soa web.default"),
        ("six.default.svc.cluster.local", A, "NoError soa cluster.local"),
        ("six.default.svc.cluster.local", AAAA, "NoError fd96::6"),
        ("both.shop", A, "NoError 198.18.0.8 198.18.0.9"),
        ("both.shop", AAAA, "NoError fd96::8"),
        ("both.shop", 255, "NoError 198.18.0.8 198.18.0.9 fd96::8"),
        ("both.shop", 33, "NoError soa both.shop"),
        ("both.shop", 65280, "NoError soa both.shop"),
        ("none.default", A, "NoError soa none.default"),
        // Unknown below domain or svc: ours to deny.
        ("nope.default.svc.cluster.local", A, "NameError soa cluster.local"),
        ("example.com.default.svc.cluster.local", A, "NameError soa cluster.local"),
        ("example.com.svc.cluster.local", A, "NameError soa cluster.local"),
        ("example.com.cluster.local", A, "NameError soa cluster.local"),
        ("web.default.pod.cluster.local", A, "NameError soa cluster.local"),
        ("web.default.cluster.local", A, "NameError soa cluster.local"),
        ("a.web.default.svc.cluster.local", A, "NameError soa cluster.local"),
        ("default.svc.cluster.local", A, "NameError soa cluster.local"),
        ("nope.default.svc", A, "NameError soa svc"),
        ("web.svc", A, "NameError soa svc"),
        ("odd.svc", A, "NameError soa svc"),
        ("odd.svc.svc", A, "NoError 198.18.0.10"),
        ("svc.cluster.local", A, "NoError soa cluster.local"),
        ("cluster.local", A, "NoError soa cluster.local"),
        // Hosts of a Service.
        ("db-0.db.default.svc.cluster.local", A, "NoError 198.18.1.1"),
        ("DB-0.db.default.svc", AAAA, "NoError fd96::1:1"),
        ("db-1.db.default", A, "NoError 198.18.1.2"),
        ("db-1.db.default", AAAA, "NoError soa db-1.db.default"),
        ("db-2.db.default.svc.cluster.local", A, "NameError soa cluster.local"),
        ("db-2.db.default", A, "forward"),
        ("x.db-0.db.default.svc.cluster.local", A, "NameError soa cluster.local"),
        // Named ports.
        (
            "_http._tcp.web.default.svc.cluster.local",
            SRV,
            "NoError web.default.svc.cluster.local:8080 (web.default.svc.cluster.local 198.18.0.7)",
        ),
        (
            "_SQL._tcp.db.default",
            SRV,
            "NoError db-0.db.default.svc.cluster.local:8080 db-1.db.default.svc.cluster.local:8080 \
             (db-0.db.default.svc.cluster.local 198.18.1.1) \
             (db-0.db.default.svc.cluster.local fd96::1:1) \
             (db-1.db.default.svc.cluster.local 198.18.1.2)",
        ),
        ("_http._tcp.web.default.svc.cluster.local", A, "NoError soa cluster.local"),
        ("_tcp.web.default.svc.cluster.local", SRV, "NoError soa cluster.local"),
        ("_http._udp.web.default.svc.cluster.local", SRV, "NameError soa cluster.local"),
        ("_https._tcp.web.default.svc.cluster.local", SRV, "NameError soa cluster.local"),
        ("http._tcp.web.default.svc.cluster.local", SRV, "NameError soa cluster.local"),
        ("_http.tcp.web.default.svc.cluster.local", SRV, "NameError soa cluster.local"),
        ("_tcp.nope.default.svc.cluster.local", SRV, "NameError soa cluster.local"),
        ("_http._tcp.nope.default", SRV, "forward"),
        ("_ldap._tcp.example.com", SRV, "forward"),
        // Addresses.
        ("7.0.18.198.in-addr.arpa", PTR, "NoError web.default.svc.cluster.local"),
        (
            "9.0.1.10.in-addr.arpa",
            PTR,
            "NoError db-0.db.default.svc.cluster.local h.x.shop.svc.cluster.local",
        ),
        (
            "1.0.0.0.1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.6.9.d.f.ip6.arpa",
            PTR,
            "NoError db-0.db.default.svc.cluster.local",
        ),
        ("7.0.18.198.in-addr.arpa", A, "NoError soa 7.0.18.198.in-addr.arpa"),
        ("8.0.18.198.in-addr.arpa", PTR, "forward"),
        ("0.18.198.in-addr.arpa", PTR, "forward"),
        ("web.default", PTR, "NoError soa web.default"),
        // Names for other names.
        ("outside.default.svc.cluster.local", A, "alias www.example.com"),
        ("outside.default", AAAA, "alias www.example.com"),
        ("outside.default", CNAME, "NoError is www.example.com"),
        ("outside.default", SRV, "NoError is www.example.com"),
        ("outside.default", 255, "NoError is www.example.com"),
        ("inside.default", A, "NoError is both.shop.svc.cluster.local 198.18.0.8 198.18.0.9"),
        ("inside.default", AAAA, "NoError is both.shop.svc.cluster.local fd96::8"),
        ("bare.default", AAAA, "NoError is both.shop fd96::8"),
        ("twice.default", AAAA, "NoError is both.shop.svc.cluster.local fd96::8"),
        ("lost.default", A, "NameError is nobody.shop.svc.cluster.local"),
        ("circle.default", A, "NameError is circle.default.svc.cluster.local"),
        ("x.outside.default.svc.cluster.local", A, "NameError soa cluster.local"),
        // Zone transfers are nobody's.
        ("cluster.local", 252, "Refused"),
        ("example.com", 251, "Refused"),
        // The rest is for the upstreams.
        ("nope.default", A, "forward"),
        ("web", A, "forward"),
        ("web.default.example", A, "forward"),
        ("notcluster.local", A, "forward"),
        ("xcluster.local", A, "forward"),
        ("example.com", 65280, "forward"),
        ("", 2, "forward"),
    ];
    for (name, qtype, want) in rows {
        for transport in [Transport::Udp, Transport::Tcp] {
            assert_eq!(tell(&query(7, name, *qtype), transport), *want, "{name} {qtype}");
            let with = edns(query(7, name, *qtype), 4096, 0, true);
            assert_eq!(tell(&with, transport), *want, "{name} {qtype} with EDNS");
        }
    }
}

#[test]
fn odd_messages() {
    let base = query(7, "web.default", A);
    let change = |at: usize, value: u8| {
        let mut bytes = base.clone();
        bytes[at] = value;
        bytes
    };
    let dotted = [&base[..12], b"\x0bweb.default\x03svc\0\0\x01\0\x01"].concat();
    let pointer = [&base[..12], b"\xc0\x0c\0\x01\0\x01"].concat();
    let endless = [&base[..12], &[1, b'a'].repeat(127)[..], b"\x01a\0\0\x01\0\x01"].concat();
    let longest = [&base[..12], &[1, b'a'].repeat(127)[..], b"\0\0\x01\0\x01"].concat();
    let twice = edns(edns(base.clone(), 512, 0, false), 512, 0, false);
    let rows: &[(&str, Vec<u8>, &str)] = &[
        ("nothing", vec![], "drop"),
        ("half an id", vec![7], "drop"),
        ("an id", vec![0, 7], "FormatError"),
        ("half a header", base[..7].to_vec(), "FormatError"),
        ("a response", change(2, 0x81), "drop"),
        ("the start of a response", change(2, 0x81)[..3].to_vec(), "drop"),
        ("STATUS", change(2, 0x11), "NotImplemented"),
        ("UPDATE, cut short", change(2, 0x28)[..12].to_vec(), "NotImplemented"),
        ("no question", change(5, 0), "FormatError"),
        ("two questions", change(5, 2), "FormatError"),
        ("a record too many", change(11, 1), "FormatError"),
        ("65280 records", change(10, 255), "FormatError"),
        ("cut in the question", base[..base.len() - 1].to_vec(), "FormatError"),
        ("more than a message", [&base[..], &[0]].concat(), "FormatError"),
        ("a pointer for a name", pointer, "FormatError"),
        ("a name of 257 octets", endless, "FormatError"),
        ("a name of 255 octets", longest, "forward"),
        ("a dot in a label", dotted, "NameError soa svc"),
        ("two OPT records", twice, "FormatError"),
        ("class CH", change(base.len() - 1, 3), "forward"),
        ("the Z bit", change(3, 0x40), "NoError 198.18.0.7"),
        ("too long", [&base[..], &[0; QUERY_MAX]].concat(), "FormatError"),
    ];
    for (what, bytes, want) in rows {
        assert_eq!(tell(bytes, Transport::Udp), *want, "{what}");
    }
    let mut chaos = query(7, "web.default.svc", A);
    *chaos.last_mut().unwrap() = 3;
    assert_eq!(tell(&chaos, Transport::Udp), "Refused", "class CH below svc");
}

/// (EDNS size, transport) → truncated?, and at most this long.
#[test]
fn replies_fit_the_client() {
    let rows = [
        (None, Transport::Udp, true, UDP_PLAIN),
        (Some(100), Transport::Udp, true, UDP_PLAIN),
        (Some(65_535), Transport::Udp, true, UDP_MAX),
        (None, Transport::Tcp, false, TCP_MAX),
        (Some(512), Transport::Tcp, false, TCP_MAX),
    ];
    for (size, transport, truncated, most) in rows {
        let mut bytes = query(7, "many.default", A);
        if let Some(size) = size {
            bytes = edns(bytes, size, 0, false);
        }
        let Outcome::Reply(reply) = answer(&bytes, transport, &World, &domain()) else { panic!() };
        let packet = Packet::parse(&reply).unwrap();
        assert_eq!(packet.has_flags(PacketFlag::TRUNCATION), truncated, "{size:?} {transport:?}");
        assert_eq!(packet.answers.is_empty(), truncated, "{size:?} {transport:?}");
        assert!(reply.len() <= most, "{size:?} {transport:?}: {}", reply.len());
    }
}

/// (size, version, DO) of the query → the 11 octets of the reply's OPT record.
#[test]
fn edns_is_answered_with_edns() {
    let rows: &[(u16, u8, bool, [u8; 11])] = &[
        (1232, 0, false, [0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]),
        (4096, 0, true, [0, 0, 41, 4, 208, 0, 0, 0x80, 0, 0, 0]),
        // BADVERS is 16: its high part stands here.
        (4096, 1, false, [0, 0, 41, 4, 208, 1, 0, 0, 0, 0, 0]),
    ];
    for (size, version, dnssec, want) in rows {
        let bytes = edns(query(7, "web.default", A), *size, *version, *dnssec);
        let outcome = answer(&bytes, Transport::Udp, &World, &domain());
        let (Outcome::Reply(reply) | Outcome::Refuse(reply)) = outcome else { panic!() };
        assert_eq!(reply[reply.len() - 11..], *want);
        assert_eq!(reply[10..12], [0, 1]);
        assert_eq!(reply[3] & 0x0f, 0);
    }
}

#[test]
fn domains() {
    let long = "a.".repeat(101);
    for (text, fine) in [
        ("cluster.local", true),
        ("EDGE", true),
        ("a-b_c.local.", true),
        ("", false),
        (".", false),
        ("a..b", false),
        ("ü.local", false),
        (&long, false),
        (&"a".repeat(64), false),
    ] {
        assert_eq!(Domain::new(text).is_ok(), fine, "{text}");
    }
    assert_eq!(domain().to_string(), "cluster.local");
}

fn holds(bytes: &[u8]) -> Result<(), proptest::test_runner::TestCaseError> {
    for transport in [Transport::Udp, Transport::Tcp] {
        let outcome = answer(bytes, transport, &World, &domain());
        let (Outcome::Reply(reply) | Outcome::Refuse(reply)) = outcome else { continue };
        let most = wire::query(bytes).map_or(UDP_PLAIN, |query| limit(&query, transport));
        prop_assert!(reply.len() <= most);
        prop_assert!(reply[2] & 0x80 != 0 && reply[..2] == bytes[..2]);
    }
    Ok(())
}

proptest! {
    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        holds(&bytes)?;
    }

    /// Near misses: a good query with some octets changed and its end cut off or grown.
    #[test]
    fn damaged_queries_are_survived(
        name in "(web|many|x{1,63})\\.(default|shop)(\\.svc)?(\\.cluster\\.local)?",
        qtype in any::<u16>(),
        size in any::<u16>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        keep in 0..120usize,
    ) {
        let mut bytes = edns(query(7, &name, qtype), size, 0, true);
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        holds(&bytes)?;
        bytes.resize(keep, 0);
        holds(&bytes)?;
    }
}
