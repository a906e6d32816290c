//! What must hold for any bytes from outside: one check a parser, for the fuzzer and for the corpus tests.

mod identities;
mod keys;
mod routes;
mod signups;

use std::net::IpAddr;
use std::path::Path;

use bytes::Bytes;
use edgemesh_core::dns::answer::{Domain, Outcome, answer};
use edgemesh_core::dns::reply::{TCP_MAX, Transport, UDP_MAX};
use edgemesh_core::dns::wire;
use edgemesh_core::manifests;
use edgemesh_core::sniff::{LONGEST_PREFIX, Verdict, client_hello, detect, is_http_greeting};
use edgemesh_proto::message::Message;
use edgemesh_proto::record::{Delta, Kind, Record};
use edgemesh_proto::{beehive, frame};

/// Panics when the bytes show a fault; tells whether they were what the parser reads.
pub type Check = fn(&[u8]) -> bool;

/// Every check by the name of its target.
pub const CHECKS: &[(&str, Check)] = &[
    ("sniff", sniff),
    ("client_hello", hello),
    ("beehive", beehive_json),
    ("frame", frames),
    ("record", records),
    ("dns", dns),
    ("manifests", manifest),
    ("routes", routes::check),
    ("keys", keys::check),
    ("check", signups::check),
    ("registration", signups::registration),
    ("certificate", identities::certificate),
    ("certificate_request", identities::request),
    ("join_token", identities::token),
];

/// Cuts that are tried of long inputs; more would make the fuzzer slow and find no more.
const CUTS: usize = 64;

/// Runs the check of that name.
///
/// # Panics
/// When there is none, or the bytes show a fault.
pub fn check(name: &str, bytes: &[u8]) -> bool {
    let (_, check) = CHECKS.iter().find(|row| row.0 == name).expect("a check of that name");
    check(bytes)
}

fn sniff(bytes: &[u8]) -> bool {
    let step = (bytes.len() / CUTS).max(1);
    let (mut decided, mut greets) = (Verdict::More, true);
    for cut in (0..bytes.len()).step_by(step).chain([bytes.len()]) {
        let verdict = detect(&bytes[..cut]);
        assert!(decided == Verdict::More || decided == verdict, "{decided:?}, then {verdict:?}");
        assert!(cut < LONGEST_PREFIX || verdict != Verdict::More, "undecided at {cut}");
        decided = verdict;
        let still = is_http_greeting(&bytes[..cut]);
        assert!(greets || !still, "a no became a yes at {cut}");
        greets = still;
    }
    decided != Verdict::More
}

fn hello(bytes: &[u8]) -> bool {
    let whole = client_hello(bytes);
    for cut in [bytes.len() / 3, bytes.len() / 2, bytes.len().saturating_sub(1)] {
        let early = client_hello(&bytes[..cut]);
        assert!(early == Ok(None) || early == whole, "{early:?}, then {whole:?}");
    }
    matches!(whole, Ok(Some(_)))
}

fn beehive_json(bytes: &[u8]) -> bool {
    let Ok(message) = beehive::decode(bytes) else { return false };
    let text = beehive::encode(&message);
    let again = beehive::decode(text.as_bytes()).expect("we read what we write");
    assert_eq!(beehive::encode(&again), text);
    true
}

fn frames(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    while let Ok(Some((body, after))) = frame::split(rest) {
        let mut again = Vec::new();
        frame::push(&mut again, body).expect("it was short enough to be split off");
        assert_eq!(frame::split(&again), Ok(Some((body, &b""[..]))));
        assert!(again.len() <= rest.len() - after.len(), "never longer than what came");
        rest = after;
    }
    rest.len() < bytes.len()
}

/// The first byte chooses the kind.
fn records(bytes: &[u8]) -> bool {
    let Some((first, body)) = bytes.split_first() else { return false };
    let kind = Kind::ALL[usize::from(*first) % Kind::ALL.len()];
    let record = Record::decode(kind, "ns", "name", body);
    if let Ok(record) = &record {
        survives(record);
    }
    if let Ok((delta, _)) = Delta::decode(Bytes::copy_from_slice(body)) {
        let again = Delta::decode(delta.encode().into()).expect("we read what we write");
        assert_eq!(again, (delta, Vec::new()));
    }
    if let Ok(message) = Message::decode(Bytes::copy_from_slice(body)) {
        let again = Message::decode(message.encode().into()).expect("we read what we write");
        assert_eq!(again.encode(), message.encode());
    }
    record.is_ok()
}

fn survives(record: &Record) {
    let body = record.encode_body();
    let again = Record::decode(record.kind(), &record.namespace, &record.name, &body);
    assert_eq!(again.as_ref(), Ok(record));
}

fn dns(bytes: &[u8]) -> bool {
    let query = wire::query(bytes);
    if let Ok(query) = &query {
        // Any bytes may claim to be an answer.
        let _ = wire::response(bytes, query.question());
    }
    let domain = Domain::new("cluster.local").expect("it is one");
    let names = |namespace: &str, name: &str| -> Option<Vec<IpAddr>> {
        let address = |last: u8| IpAddr::from([198, 18, 0, last]);
        (namespace == "default" && name != "none")
            .then(|| (0..name.len() as u8).map(address).collect())
    };
    for (transport, most) in [(Transport::Udp, UDP_MAX), (Transport::Tcp, TCP_MAX)] {
        match answer(bytes, transport, &names, &domain) {
            Outcome::Reply(reply) | Outcome::Refuse(reply) => {
                assert!(reply.len() <= most, "{} octets by {transport:?}", reply.len());
                assert_eq!(reply.get(..2), bytes.get(..2), "another id");
            }
            Outcome::Forward(_) | Outcome::Alias(..) | Outcome::Drop => {}
        }
    }
    query.is_ok()
}

/// A text that begins like JSON is read as JSON.
fn manifest(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let file = if text.starts_with(['{', '[']) { "x.json" } else { "x.yaml" };
    let documents = manifests::parse(Path::new(file), text).documents;
    documents.iter().flat_map(|document| &document.records).for_each(survives);
    let sides = documents.iter().filter_map(|document| document.sides.as_ref());
    sides.flat_map(|sides| &sides.embedded).for_each(survives);
    !documents.is_empty()
}
