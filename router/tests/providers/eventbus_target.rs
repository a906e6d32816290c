//! What is published on a broker.

use bytes::Bytes;
use edgemesh_core::dial::Dial;
use edgemesh_core::forward::inbox::{TOPIC, Undelivered};
use edgemesh_core::refusal::Refusal;
use edgemesh_proto::record::NodeName;
use edgemesh_router::providers::Providers;
use edgemesh_router::providers::connect::{Connect, Roots};
use edgemesh_router::providers::eventbus::{BrokerConfig, EventBus, Publication};
use http::Request;
use http_body_util::{BodyExt as _, Full};

use crate::broker::{Broker, client, hash_password};
use crate::server::Authority;
use crate::world::{NODE, World, connect, nobody};

const RULES: &str = "
    confirmed: rest path=/a -> eventbus topic=t/a
    thrown: rest path=/b -> eventbus topic=t/b qos=0 max_body=10
    kept: rest path=/c -> eventbus topic=t/c retain=true
    small: rest path=/d max_body=10 -> eventbus topic=t/d
";

/// The Rule, the topic that it made, the payload; what a subscriber sees, or why nobody does.
#[tokio::test]
async fn messages_are_published_as_they_are() {
    let (broker, world) = (Broker::start().await, World::with(RULES));
    let eventbus = broker.client(&world);
    eventbus.follow(world.here());
    let providers = Providers::new(world.call(), Some(eventbus));
    let mut subscriber = broker.subscribe("t/#").await;
    let every_byte: Vec<u8> = (0..=255).collect();
    let large = vec![b'x'; 1024 * 1024];
    let huge = vec![0xff; 12 * 1024 * 1024];
    for (rule, topic, payload, want) in [
        ("confirmed", Some("t/a"), &b"hello"[..], Ok("t/a q1 r0 5 68656c6c6f")),
        ("confirmed", Some("t/a/b/c?x=1"), b"hi", Ok("t/a/b/c?x=1 q1 r0 2 6869")),
        ("confirmed", Some("t/a/é"), b"hi", Ok("t/a/é q1 r0 2 6869")),
        ("confirmed", Some("t/a"), b"", Ok("t/a q1 r0 0 ")),
        ("confirmed", Some("t/a"), &every_byte, Ok("t/a q1 r0 256 000102030405060708090a0b")),
        ("confirmed", Some("t/a"), &large, Ok("t/a q1 r0 1048576 7878")),
        ("confirmed", Some("t/a"), &huge, Ok("t/a q1 r0 12582912 ffff")),
        ("thrown", Some("t/b"), b"hi", Ok("t/b q0 r0 2 6869")),
        ("kept", Some("t/c"), b"hi", Ok("t/c q1 r0 2 6869")),
        ("confirmed", Some("t/b"), b"", Err("the Rule makes no such topic")),
        ("confirmed", Some("t/a/+"), b"", Err("topic: `t/a/+` has a wildcard")),
        ("confirmed", None, b"", Err("no topic is named")),
        ("small", Some("t/d"), b"eleven byte", Err("the body is larger than 10 bytes")),
    ] {
        let got = send(&providers, &world, rule, topic, payload).await;
        match (got, want) {
            (Ok(said), Ok(want)) => {
                assert_eq!(said, "message delivered");
                let seen = subscriber.next().await;
                assert!(seen.starts_with(want), "{want}: {}", &seen[..seen.len().min(99)]);
            }
            (Err(got), Err(want)) => {
                assert!(got.reason.starts_with(want), "{rule} {topic:?}: {got:?}");
                let refusal = match rule {
                    "small" => Refusal::BodyTooLarge,
                    _ => Refusal::BadRequest,
                };
                assert_eq!((got.refusal, got.sent), (refusal, false), "{rule}");
            }
            (got, want) => panic!("{rule} {topic:?}: {got:?}, not {want:?}"),
        }
    }
    let seen = broker.subscribe("t/+").await.next().await;
    assert_eq!(seen, "t/c q1 r1 2 6869", "the broker keeps it");
}

/// What is wrong with the broker, and what is said of it.
#[tokio::test]
async fn who_cannot_publish_is_told_why() {
    let world = World::with(RULES);
    let broker = Broker::with("allow_anonymous false\n").await;
    let away = nobody();
    let login = |name: &str| BrokerConfig {
        username: Some(name.into()),
        password: Some("wrong".into()),
        ..broker.config()
    };
    let at = |url: String| BrokerConfig { url: url.into(), ..BrokerConfig::default() };
    for (config, want) in [
        (login("somebody"), "refuses the login (bad user name or password"),
        (broker.config(), "refuses the login (bad user name or password"),
        (at(format!("mqtt://{away}")), "nobody listens there (connection refused)"),
        (at("mqtt://broker.invalid:1".into()), "broker.invalid:1: its name cannot be resolved"),
        (at(format!("mqtts://{}", broker.at)), "it broke the TLS handshake|it does not speak TLS"),
    ] {
        let eventbus = client(&world, config.clone());
        eventbus.follow(world.here());
        let providers = Providers::new(world.call(), Some(eventbus.clone()));
        // The second does not wait for a connection, and knows as much.
        for _ in 0..2 {
            let error = send(&providers, &world, "confirmed", Some("t/a"), b"x").await.unwrap_err();
            assert_eq!((error.refusal, error.sent), (Refusal::ConnectFailed, false), "{error:?}");
            assert!(want.split('|').any(|want| error.reason.contains(want)), "{error:?}");
            assert!(error.reason.starts_with("the broker at "), "{error:?}");
            let state = eventbus.state();
            assert_eq!((state.connected, state.reason), (false, Some(error.reason)));
        }
    }
}

/// With TLS, and with a password: the broker is verified, and so are we.
#[tokio::test]
async fn a_broker_may_ask_for_tls_and_a_login() {
    let (authority, world) = (Authority::new(), World::with(""));
    let files = tempfile::tempdir().unwrap();
    let (certificate, key) = authority.certificate("localhost", (1975, 4096));
    std::fs::write(files.path().join("cert"), certificate.pem()).unwrap();
    std::fs::write(files.path().join("key"), key.serialize_pem()).unwrap();
    let passwords = files.path().join("passwords");
    hash_password(&passwords, "somebody", "right").await;
    let folder = files.path().display();
    let broker = Broker::with(&format!(
        "password_file {folder}/passwords\ncertfile {folder}/cert\nkeyfile {folder}/key\n"
    ))
    .await;
    let config = |password: &str| BrokerConfig {
        url: format!("mqtts://localhost:{}", broker.at.port()).into(),
        username: Some("somebody".into()),
        password: Some(password.into()),
        client_id: Some(format!("with-{password}").into()),
        lock: None,
    };
    let trusting = Connect::new(Dial::default(), Roots::MachineAnd(vec![authority.root.clone()]));
    for (connect, password, want) in [
        (trusting.clone(), "right", None),
        (trusting, "wrong", Some("refuses the login (bad user name or password")),
        (connect(), "right", Some("its certificate is not accepted: no authority")),
    ] {
        let node = NodeName(NODE.into());
        let eventbus =
            EventBus::new(&node, config(password), connect, &world.tasks, world.stop.clone());
        let eventbus = eventbus.unwrap();
        eventbus.follow(world.here());
        let publication =
            Publication { topic: "t", payload: Bytes::new(), confirmed: true, retain: false };
        let published = eventbus.publish(publication).await;
        match (published, want) {
            (Ok(()), None) => assert!(broker.log().contains("as with-right")),
            (Err(error), Some(want)) => assert!(error.reason.contains(want), "{error:?}"),
            (got, want) => panic!("{got:?}, not {want:?}"),
        }
    }
}

#[tokio::test]
async fn a_node_without_a_broker_says_so() {
    let world = World::with(RULES);
    let providers = Providers::new(world.call(), None);
    let error = send(&providers, &world, "confirmed", Some("t/a"), b"x").await.unwrap_err();
    assert_eq!((error.refusal, &*error.reason), (Refusal::Unsupported, "this node has no broker"));
}

#[tokio::test]
async fn what_the_broker_does_not_confirm_may_have_been_sent() {
    let (broker, world) =
        (Broker::with("allow_anonymous true\nmax_packet_size 2000\n").await, World::with(""));
    let eventbus = broker.client(&world);
    eventbus.follow(world.here());
    let publication = |size| Publication {
        topic: "t",
        payload: Bytes::from(vec![b'x'; size]),
        confirmed: true,
        retain: false,
    };
    eventbus.publish(publication(1000)).await.unwrap();
    let Undelivered { refusal, sent, reason } =
        eventbus.publish(publication(3000)).await.unwrap_err();
    assert_eq!((refusal, sent), (Refusal::BackendReset, true), "{reason}");
    assert!(reason.contains("before it confirmed the message"), "{reason}");
}

async fn send(
    providers: &Providers,
    world: &World,
    rule: &str,
    topic: Option<&str>,
    payload: &[u8],
) -> Result<String, Undelivered> {
    let mut request = Request::post("/");
    if let Some(topic) = topic {
        request = request.header(TOPIC, topic);
    }
    let request = request.body(Full::new(Bytes::copy_from_slice(payload))).unwrap();
    let answer = providers.send(&world.rule(rule), request).await?;
    let said = answer.into_body().collect().await.unwrap().to_bytes();
    Ok(String::from_utf8(said.into()).unwrap())
}
