//! What hub and node say to each other on Control, both at once.

use std::collections::BTreeMap;

use edgemesh_proto::message::{Body, Offer, Ping, Ranges, Refused};
use edgemesh_proto::record::{Body as Of, Key, Kind, Node, Put, Record};

use crate::world::{World, node};

/// Records of the registry, of 4 KiB each: more than any window holds.
const RECORDS: usize = 2000;
/// Bytes of an Offer.
const OFFERED: usize = 3 << 20;

fn large(n: usize) -> Record {
    let labels = [("large".into(), "x".repeat(4096).into())].into();
    let body = Of::Node(Node { labels, ..Node::default() });
    Record { namespace: "".into(), name: format!("n{n}").into(), body }
}

/// Told that what it said was not expected, it could only wonder.
#[tokio::test]
async fn a_node_that_says_no_is_not_told_that_it_broke_the_rules() {
    let world = World::open();
    let mut control = world.control("edge").await;
    let refused = Refused { label: "badStep".into(), text: "why".into(), retry_after_ms: 0 };
    control.say(Body::Refused(refused)).await;
    world.until("it has left", |world| world.hub.node(&node("edge")).is_none()).await;
    while let Ok(Some(message)) = control.messages.next().await {
        let body = message.body.as_deref();
        assert!(!matches!(body, Some(Body::Refused(_))), "{body:?}");
    }
}

/// An agent that comes before the source has answered hears of them when it has.
#[tokio::test]
async fn ranges_are_told_when_they_are_known_and_when_they_change() {
    let world = World::open();
    let ranges = |text: &str| [text.parse().unwrap()].into();
    let told = |want: &'static str| {
        move |body| match body {
            Body::Ranges(Ranges { service_cidrs }) => {
                assert_eq!(service_cidrs, [want.parse().unwrap()]);
                Some(())
            }
            _ => None,
        }
    };
    let mut early = world.control("early").await;
    world.registry.ranges().are(ranges("10.96.0.0/12"));
    early.hear("what is known now", told("10.96.0.0/12")).await;
    let mut late = world.control("late").await;
    late.hear("what is known", told("10.96.0.0/12")).await;
    world.registry.ranges().are(ranges("10.96.0.0/12"));
    world.registry.ranges().are(ranges("10.96.0.0/16"));
    early.hear("the change", told("10.96.0.0/16")).await;
    late.hear("the change", told("10.96.0.0/16")).await;
}

#[tokio::test]
async fn both_may_have_much_to_say() {
    let world = World::open();
    let records: BTreeMap<_, _> =
        (0..RECORDS).map(large).map(|record| (record.key(), record)).collect();
    world.registry.observe(records).await;
    let mut control = world.control("edge").await;
    let key = Key { kind: Kind::Service, namespace: "default".into(), name: "large".into() };
    for _ in 0..4 {
        // It reads nothing before it has said all.
        let records = vec![Put { key: key.clone(), body: vec![0; OFFERED].into() }];
        control.say(Body::Offer(Offer { records })).await;
    }
    control.say(Body::Ping(Ping { number: 77, answer: false })).await;
    let pong = |body| matches!(body, Body::Ping(Ping { number: 77, answer: true })).then_some(());
    control.hear("the answer", pong).await;
}
