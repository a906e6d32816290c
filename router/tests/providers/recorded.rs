//! KubeEdge's recordings of its broker: what went in, and what came out where KubeEdge lost nothing.

use std::path::Path;

use bytes::Bytes;
use edgemesh_core::forward::inbox::TOPIC;
use edgemesh_router::providers::Providers;
use http::{Request, Uri};
use http_body_util::Full;
use serde_json::Value;

use crate::broker::Broker;
use crate::world::World;

/// What was recorded under this name.
pub(crate) fn recorded(case: &str) -> Value {
    let file = format!("tests/vectors/router/case-{case}.json");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// The case, and the Rule that takes its message. KubeEdge lost those without a payload and those of a
/// wildcard, and damaged what is not UTF-8.
#[tokio::test]
async fn published_messages_land() {
    let world = World::with(
        "
        up: eventbus topic=up -> rest resource=http://h/
        wild: eventbus topic=wild/+ -> rest resource=http://h/
        ",
    );
    let broker = Broker::start().await;
    broker.listened(&world).await;
    let mut landed = 0;
    for (case, taken_by) in [
        ("eventbus-rest", Some("up")),
        ("eventbus-rest-json", Some("up")),
        ("eventbus-rest-binary", Some("up")),
        ("eventbus-rest-no-namespace", None),
        ("eventbus-rest-100KB", Some("up")),
        ("eventbus-upload-topic", None),
        ("eventbus-rest-empty", Some("up")),
        ("eventbus-user-topic", None),
        ("eventbus-rest-wildcard", Some("wild")),
        ("eventbus-rest-retained", Some("up")),
    ] {
        let published = &recorded(case)["mqtt_publish"];
        let topic = published["topic"].as_str().unwrap().replace("default/", "n/");
        let payload = bytes(&published["payload_hex"], &published["payload_len"]);
        let options = published["options"].as_array().unwrap().iter().map(|o| o.as_str().unwrap());
        broker
            .publish(&topic, &payload, &[&["-q", "1"], &Vec::from_iter(options)[..]].concat())
            .await;
        let Some(rule) = taken_by else { continue };
        landed += 1;
        let message = world.messages.wait_for(landed).await.pop().unwrap();
        assert_eq!((&*message.rule, &message.topic), (rule, &topic), "{case}");
        assert!(message.body == payload && !message.retained, "{case}");
    }
    assert_eq!(world.messages.all().len(), landed);
}

/// The topic that a request led to, and its payload.
#[tokio::test]
async fn requests_are_published() {
    let world = World::with("r: rest path=/a -> eventbus topic=test/a");
    let broker = Broker::start().await;
    let eventbus = broker.client(&world);
    eventbus.follow(world.here());
    let providers = Providers::new(world.call(), Some(eventbus));
    let mut subscriber = broker.subscribe("#").await;
    for case in ["post", "get", "suffix-query", "binary", "1MiB"] {
        let recorded = recorded(&format!("rest-eventbus-{case}"));
        let (asked, arrived) = (&recorded["client_request"], &recorded["arrived_at_mqtt"][0]);
        let url: Uri = asked["curl_args"]
            .as_array()
            .unwrap()
            .last()
            .unwrap()
            .as_str()
            .unwrap()
            .parse()
            .unwrap();
        let below = url.path().strip_prefix("/edge-1/default").unwrap();
        let topic = world.rule("r").onto_target(below, url.query()).unwrap();
        // What KubeEdge damaged is right here.
        let payload = match case {
            "binary" => bytes(&asked["body_hex"], &asked["body_len"]),
            _ => bytes(&arrived["payload_hex"], &arrived["len"]),
        };
        let request = Request::post("/").header(TOPIC, &topic).body(Full::new(payload.clone()));
        providers.send(&world.rule("r"), request.unwrap()).await.unwrap();
        let (topic, hex) = (arrived["topic"].as_str().unwrap(), hex(&payload));
        assert!(
            subscriber.next().await == format!("{topic} q1 r0 {} {hex}", payload.len()),
            "{case}"
        );
    }
}

/// Bytes as they were recorded; large ones were not.
fn bytes(hex: &Value, length: &Value) -> Bytes {
    let length = usize::try_from(length.as_u64().unwrap()).unwrap();
    let Some(hex) = hex.as_str() else { return vec![b'x'; length].into() };
    let pair = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(pair).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
