//! The forms of a Message: beehive JSON by rows, viaduct protobuf by field number, answers.

use bytes::Bytes;
use edgemesh_proto::beehive;
use edgemesh_proto::frame::{self, FrameError};
use edgemesh_proto::message::{
    Body, Content, Header, MAX_FIELD, MAX_MESSAGE, MAX_RANGES, MAX_RESOURCE, Message, Offer,
    Ranges, Route,
};
use edgemesh_proto::record::{Delta, Key, Kind, Put};
use uuid::Uuid;

const ID: Uuid = Uuid::from_u128(0x8b8f7a2e_6c1c_4a55_9d2e_0c1f5a3b7d11);
const NOW: i64 = 1_700_000_000_000;

fn keepalive() -> Message {
    let route = Route {
        source: "websocket".into(),
        group: "resource".into(),
        operation: "keepalive".into(),
        resource: "node".into(),
        destination: String::new(),
    };
    Message::request(ID, NOW, route, Content::Text("ping".into()))
}

#[test]
fn a_framed_message_is_the_message_in_a_frame() {
    let message = keepalive();
    let mut want = Vec::new();
    frame::push(&mut want, &message.encode()).unwrap();
    let length = message.encode().len();
    assert_eq!(message.encode_framed(length, 7).unwrap(), want);
    let too_long = message.encode_framed(length - 1, 7).unwrap_err();
    assert_eq!(too_long, FrameError::TooLong { length: length as u64, max: length - 1 });
}

/// A newer node offers what this version does not know; the rest counts.
#[test]
fn an_offered_record_that_cannot_be_read_harms_only_itself() {
    let put = |name: &str| Put {
        key: Key { kind: Kind::Service, namespace: "default".into(), name: name.into() },
        body: Bytes::new(),
    };
    let records = vec![put("a"), put("b")];
    let message = Message::of_link(ID, NOW, ["edge-1", "cloud"], Body::Offer(Offer { records }));
    let mut bytes = message.encode();
    // The kind of `a`, the first field of the first key, becomes one that nobody knows.
    let at = bytes.windows(2).position(|two| two == [0x08, Kind::Service as u8 + 1]).unwrap() + 1;
    bytes[at] = 99;
    let body = Message::decode(bytes.into()).unwrap().body.map(|body| *body);
    assert_eq!(body, Some(Body::Offer(Offer { records: vec![put("b")] })));
}

/// A newer hub tells ranges that this version cannot read, or more than it keeps; the rest counts.
#[test]
fn a_told_range_that_cannot_be_read_harms_only_itself() {
    let told = |ranges: &[&str]| {
        let service_cidrs = ranges.iter().map(|range| range.parse().unwrap()).collect();
        Message::of_link(ID, NOW, ["cloud", "edge-1"], Body::Ranges(Ranges { service_cidrs }))
    };
    for ranges in [&[][..], &["10.96.0.0/12"], &["10.96.0.0/12", "fd00:10:96::/112"]] {
        assert_eq!(Message::decode(told(ranges).encode().into()), Ok(told(ranges)), "{ranges:?}");
    }
    let mut bytes = told(&["10.96.0.0/12", "10.97.0.0/16"]).encode();
    let at = bytes.windows(12).position(|text| text == b"10.96.0.0/12").unwrap();
    bytes[at..at + 2].copy_from_slice(b"?!");
    assert_eq!(Message::decode(bytes.into()), Ok(told(&["10.97.0.0/16"])));
    let many = vec!["10.96.0.0/12"; MAX_RANGES + 1];
    let kept = Message::decode(told(&many).encode().into());
    assert_eq!(kept, Ok(told(&many[1..])));
}

/// A Delta that is sent to many is encoded once.
#[test]
fn a_message_around_an_encoded_delta_is_the_same_message() {
    let key = Key { kind: Kind::Service, namespace: "default".into(), name: "a".into() };
    for bytes in [0, 1, 127, 128, 70_000] {
        let put = vec![Put { key: key.clone(), body: vec![7; bytes].into() }];
        let delta = Delta { epoch: [1; 16], to: 5, put, ..Delta::default() };
        let body = Body::Delta(delta.clone());
        let message = Message::of_link(ID, NOW, ["cloud", "edge-1"], body);
        let head = Message { body: None, ..message.clone() };
        let encoded = head.encode_with_delta(&delta.encode());
        assert_eq!(encoded, message.encode(), "{bytes}");
        assert_eq!(Message::decode(encoded.into()), Ok(message));
    }
}

/// Vectors 4 and 5 of the KubeEdge facts: one keepalive in both forms.
#[test]
fn keepalive_has_both_forms_of_kubeedge() {
    let json = concat!(
        r#"{"header":{"msg_id":"8b8f7a2e-6c1c-4a55-9d2e-0c1f5a3b7d11","timestamp":1700000000000},"#,
        r#""route":{"source":"websocket","group":"resource","operation":"keepalive","#,
        r#""resource":"node"},"content":"ping"}"#,
        "\n"
    );
    assert_eq!(beehive::encode(&keepalive()), json);
    assert_eq!(beehive::decode(json.as_bytes()), Ok(keepalive()));
    let hex = concat!(
        "0a2d0a2438623866376132652d366331632d346135352d396432652d3063316635613362376431311880a0ab",
        "fef96212260a09776562736f636b657412087265736f757263651a096b656570616c69766522046e6f64651a",
        "0470696e67"
    );
    let binary = keepalive().encode();
    assert_eq!(binary.iter().map(|b| format!("{b:02x}")).collect::<String>(), hex);
}

/// Every member, so that order and absence are seen; JSON in, JSON out.
#[test]
fn json_is_written_to_the_letter() {
    let rows = [
        (
            r#"{"header":{"msg_id":"","timestamp":0},"route":{},"content":null}"#,
            r#"{"header":{"msg_id":"","timestamp":0},"route":{},"content":null}"#,
        ),
        ("{}", r#"{"header":{"msg_id":"","timestamp":0},"route":{},"content":null}"#),
        (
            r#"{"header":null,"route":{"source":null},"content":null,"more":[1]}"#,
            r#"{"header":{"msg_id":"","timestamp":0},"route":{},"content":null}"#,
        ),
        (
            r#"{"content":{"b":1.50,"a":"<"},"route":{"resource":"r","operation":"o","group":"g",
                "destination":"d","source":"s"},"header":{"type":"channel","sync":true,
                "resourceversion":"7","timestamp":-5,"parent_msg_id":"p","msg_id":"i"}} trailing"#,
            concat!(
                r#"{"header":{"msg_id":"i","parent_msg_id":"p","timestamp":-5,"#,
                r#""resourceversion":"7","sync":true,"type":"channel"},"#,
                r#""route":{"source":"s","destination":"d","group":"g","operation":"o","#,
                r#""resource":"r"},"content":{"b":1.50,"a":"\u003c"}}"#
            ),
        ),
        (
            r#"{"header":{"msg_id":"a\u0026b","timestamp":1},"route":{},"content":"\u2028<\ud83e\udd80"}"#,
            r#"{"header":{"msg_id":"a\u0026b","timestamp":1},"route":{},"content":"\u2028\u003c🦀"}"#,
        ),
    ];
    for (json, want) in rows {
        let message = beehive::decode(json.as_bytes()).unwrap_or_else(|e| panic!("{json}: {e}"));
        assert_eq!(beehive::encode(&message), format!("{want}\n"), "{json}");
    }
    let content = Content::Bytes(Bytes::from_static(b"Hello World!"));
    let bytes = beehive::encode(&Message { content, ..Message::default() });
    assert!(bytes.ends_with("\"content\":\"SGVsbG8gV29ybGQh\"}\n"), "{bytes}");
    let content = Content::json(&[1, 2]).unwrap();
    let list = beehive::encode(&Message { content, ..Message::default() });
    assert!(list.ends_with("\"content\":[1,2]}\n"), "{list}");
}

/// JSON in, beginning of the error out.
#[test]
fn json_faults_name_their_field() {
    let long = |n: usize| "x".repeat(n);
    let id = |n| format!(r#"{{"header":{{"msg_id":"{}"}}}}"#, long(n));
    let resource = |n| format!(r#"{{"route":{{"resource":"{}"}}}}"#, long(n));
    let rows = [
        (String::new(), "message: EOF"),
        ("[]".into(), "message: invalid"),
        ("\"text\"".into(), "message: invalid type"),
        (r#"{"content":[1,}"#.into(), "message: "),
        (r#"{"header":7}"#.into(), "header: invalid type"),
        (r#"{"header":{"msg_id":7}}"#.into(), "header.msg_id: invalid type"),
        (r#"{"header":{"timestamp":1.5}}"#.into(), "header.timestamp: invalid type"),
        (r#"{"header":{"timestamp":9223372036854775808}}"#.into(), "header.timestamp: invalid"),
        (r#"{"header":{"sync":"yes"}}"#.into(), "header.sync: invalid type"),
        (r#"{"route":{"group":{}}}"#.into(), "route.group: invalid type"),
        (r#"{"content":"\ud800"}"#.into(), "content: "),
        (id(MAX_FIELD), ""),
        (id(MAX_FIELD + 1), "header.id: 1025 bytes: at most 1024"),
        (resource(MAX_RESOURCE), ""),
        (resource(MAX_RESOURCE + 1), "route.resource: 16385 bytes"),
        (" ".repeat(MAX_MESSAGE + 1), "message: 33554433 bytes: at most 33554432"),
    ];
    for (json, want) in rows {
        let got = beehive::decode(json.as_bytes()).err().map(|e| e.to_string()).unwrap_or_default();
        let fits = if want.is_empty() { got.is_empty() } else { got.starts_with(want) };
        assert!(fits, "{:.60}: got {got:?}, want {want:?}", json);
    }
    let error = beehive::decode(b"{\"content\":\"\xff\"}").unwrap_err();
    assert_eq!(error.field, "message");
}

/// A field of wire type 2, by number.
fn field(number: u8, value: &[u8]) -> Vec<u8> {
    let length = u8::try_from(value.len()).expect("short values here");
    assert!(length < 0x80);
    [&[number << 3 | 2, length], value].concat()
}

/// Every number that viaduct knows, written by hand; and one that nobody knows.
#[test]
fn viaduct_messages_are_read_by_number() {
    let header = [
        field(1, b"id"),
        field(2, b"parent"),
        vec![3 << 3, 0x03], // zig-zag: -2
        vec![4 << 3, 0x01],
        field(5, b"channel"),
    ];
    let route = [field(1, b"source"), field(2, b"group"), field(3, b"op"), field(4, b"res")];
    let whole = [
        field(1, &header.concat()),
        field(2, &route.concat()),
        field(3, b"\x00\xff"),
        field(9, b"?"),
    ];
    let want = Message {
        header: Header {
            id: "id".into(),
            parent_id: "parent".into(),
            timestamp: -2,
            sync: true,
            message_type: "channel".into(),
            ..Header::default()
        },
        route: Route {
            source: "source".into(),
            group: "group".into(),
            operation: "op".into(),
            resource: "res".into(),
            destination: String::new(),
        },
        content: Content::Bytes(Bytes::from_static(b"\x00\xff")),
        body: None,
    };
    assert_eq!(Message::decode(whole.concat().into()), Ok(want.clone()));
    assert_eq!(want.encode(), whole[..3].concat(), "viaduct reads what we write");
}

/// Our own fields, by number: header 6 to 8 and route 5.
#[test]
fn our_fields_have_their_numbers() {
    let message = Message {
        header: Header {
            resource_version: "7".into(),
            deadline_ms: 9,
            trace: "t".into(),
            ..Header::default()
        },
        route: Route { destination: "d".into(), ..Route::default() },
        ..Message::default()
    };
    let header = [field(6, b"7"), vec![7 << 3, 9], field(8, b"t")].concat();
    let want = [field(1, &header), field(2, &field(5, b"d"))].concat();
    assert_eq!(message.encode(), want);
    assert_eq!(Message::decode(want.into()), Ok(message));
    assert_eq!(Message::default().encode(), b"\x0a\x00\x12\x00", "both parts, though empty");
    assert_eq!(Message::decode(Bytes::new()), Ok(Message::default()));
}

#[test]
fn protobuf_faults_name_their_field() {
    let long = Message {
        header: Header { trace: "x".repeat(MAX_FIELD + 1), ..Header::default() },
        ..Message::default()
    };
    let rows = [
        (vec![0xff], "message"),
        (field(1, &field(1, b"\xff")), "message"),
        (long.encode(), "header.trace"),
        (vec![0; MAX_MESSAGE + 1], "message"),
    ];
    for (bytes, want) in rows {
        let error = Message::decode(bytes.into()).unwrap_err();
        assert_eq!(error.field, want, "{error}");
    }
}

#[test]
fn answers_copy_what_kubeedge_copies() {
    let mut request = keepalive();
    request.header.message_type = "channel".into();
    request.header.resource_version = "7".into();
    request.header.trace = "00-1-2-01".into();
    request.header.sync = true;
    request.header.parent_id = "earlier".into();
    request.route.destination = "somewhere".into();
    let (id, later) = (Uuid::from_u128(1), NOW + 5);

    let answer = Message::response_to(&request, id, later, Content::Null);
    let header = Header {
        id: id.to_string(),
        parent_id: ID.to_string(),
        timestamp: later,
        message_type: "channel".into(),
        trace: "00-1-2-01".into(),
        ..Header::default()
    };
    let route =
        Route { operation: "response".into(), destination: String::new(), ..request.route.clone() };
    assert_eq!(answer, Message { header: header.clone(), route, ..Message::default() });

    let error = Message::error_to(&request, id, later, "no such thing");
    let route = Route { operation: "error".into(), resource: "node".into(), ..Route::default() };
    let header = Header { message_type: String::new(), ..header };
    assert_eq!(
        error,
        Message { header, route, content: Content::Text("no such thing".into()), body: None }
    );
}
