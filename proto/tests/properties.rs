//! Laws: what is encoded decodes to the same, and no decoder panics on any bytes.

#[path = "properties/samples.rs"]
mod samples;

use bytes::Bytes;
use edgemesh_proto::message::{Content, Message};
use edgemesh_proto::record::{Delta, Kind, Put, Record};
use edgemesh_proto::rule::{Endpoint, Rule, short_name};
use edgemesh_proto::{beehive, frame, pb};
use proptest::prelude::{any, prop};
use proptest::{prop_assert, prop_assert_eq, proptest};

proptest! {
    #[test]
    fn records_survive_their_bodies(record in samples::record()) {
        let body = record.encode_body();
        let again = Record::decode(record.kind(), &record.namespace, &record.name, &body).unwrap();
        prop_assert_eq!(&again, &record);
        prop_assert_eq!(again.encode_body(), body, "equal records, equal bytes");
        prop_assert_eq!(Record::try_from(pb::Record::from(&record)), Ok(record));
    }

    #[test]
    fn deltas_survive(
        records in prop::collection::vec(samples::record(), 0..4),
        epoch in any::<[u8; 16]>(),
        from in 0..u64::MAX / 2,
        steps in 0..u64::MAX / 2,
        reset in any::<bool>(),
    ) {
        let put = records.iter().map(Put::from).collect();
        let delete = records.iter().map(Record::key).collect();
        let delta =
            Delta { epoch, from, to: from + steps, put, delete, reset, ..Delta::default() };
        prop_assert_eq!(Delta::decode(delta.encode().into()), Ok((delta, vec![])));
    }

    #[test]
    fn messages_survive_protobuf(message in samples::message()) {
        let again = Message::decode(message.encode().into()).unwrap();
        prop_assert_eq!(again.content.payload(), message.content.payload());
        let content = again.content.clone();
        prop_assert_eq!(again.encode(), message.encode());
        prop_assert_eq!(again, Message { content, ..message });
    }

    #[test]
    fn messages_survive_beehive(message in samples::message()) {
        let text = beehive::encode(&message);
        prop_assert_eq!(text.find('\n'), Some(text.len() - 1), "one line");
        let again = beehive::decode(text.as_bytes()).unwrap();
        prop_assert_eq!(beehive::encode(&again), text);
        let mut want = message;
        // These have no place in the JSON form, and bytes become base64 text.
        want.header.deadline_ms = 0;
        want.header.trace.clear();
        if let (Content::Bytes(_), Content::Text(_)) = (&want.content, &again.content) {
            want.content = again.content.clone();
        }
        prop_assert_eq!(again, want);
    }

    #[test]
    fn frames_split_wherever_they_are_cut(
        bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut stream = Vec::new();
        bodies.iter().for_each(|body| frame::push(&mut stream, body).unwrap());
        let cut = cut.index(stream.len() + 1);
        let (mut seen, mut waiting) = (Vec::new(), Vec::new());
        for part in [&stream[..cut], &stream[cut..]] {
            waiting.extend_from_slice(part);
            while let Some((body, rest)) = frame::split(&waiting).unwrap() {
                seen.push(body.to_vec());
                waiting = rest.to_vec();
            }
        }
        prop_assert!(waiting.is_empty());
        prop_assert_eq!(seen, bodies);
    }

    /// The result is of no interest here, only that there is one.
    #[test]
    fn no_decoder_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        decode_all(&bytes);
    }

    /// As above, nearer to what is valid: encodings with a few bytes changed.
    #[test]
    fn no_decoder_panics_on_damage(
        record in samples::record(),
        message in samples::message(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let delta = Delta { put: vec![Put::from(&record)], ..Delta::default() };
        let json = beehive::encode(&message).into_bytes();
        for mut bytes in [record.encode_body(), delta.encode(), message.encode(), json] {
            for (place, byte) in &damage {
                if !bytes.is_empty() {
                    let place = place.index(bytes.len());
                    bytes[place] = *byte;
                }
            }
            decode_all(&bytes);
        }
    }

    #[test]
    fn short_names_fit(name in ".{1,120}") {
        let short = short_name(&name).unwrap();
        prop_assert!(short.as_str().len() <= 64);
        prop_assert_eq!(name.len() <= 64, short.as_str() == name);
    }
}

fn decode_all(bytes: &[u8]) {
    for kind in Kind::ALL {
        let _ = Record::decode(kind, "ns", "name", bytes);
    }
    let _ = Delta::decode(Bytes::copy_from_slice(bytes));
    let _ = Message::decode(Bytes::copy_from_slice(bytes));
    let _ = beehive::decode(bytes);
    let _ = frame::split(bytes);
    let _ = serde_json::from_slice::<Endpoint>(bytes);
    let _ = serde_json::from_slice::<Rule>(bytes);
    let _ = Content::from_json(&String::from_utf8_lossy(bytes));
}
