//! What nodes tell of Rules, summed by the cloud.

use std::collections::BTreeMap;
use std::path::Path;

use edgemesh_core::manifests;
use edgemesh_proto::message::{Body, Counts, Hello, Ping, RuleCount};
use edgemesh_proto::record::RuleName;

use crate::world::{TODAY, World};

/// One that may begin on each node, one that begins on `one` only, and one that only the cloud begins.
const RULES: &str = "\
{type: eventbus, name: in}
---
{type: rest, name: out}
---
{name: r, source: in, source_resource: {topic: a}, target: out, target_resource: {resource: 'http://a/'}}
---
{name: ones, source: in, source_resource: {topic: b, node_name: one}, target: out, target_resource: {resource: 'http://a/'}}
---
{name: clouds, source: out, source_resource: {path: /a}, target: out, target_resource: {resource: 'http://a/'}}
";

async fn observe(world: &World, text: &str) {
    let parsed = manifests::parse(Path::new("a.yaml"), text);
    let records = parsed.documents.into_iter().flat_map(|document| document.records);
    let records: BTreeMap<_, _> = records.map(|record| (record.key(), record)).collect();
    world.registry.observe(records).await;
}

fn counts(counter: u8, success: u64, fail: u64) -> Body {
    of(&["r", "unknown"], counter, (success, fail), 5)
}

fn of(rules: &[&str], counter: u8, (success, fail): (u64, u64), last_success: i64) -> Body {
    let rule = |name: &&str| RuleName::new("default", name);
    let count = |name| RuleCount { rule: rule(name), success, fail, last_success, trouble: None };
    Body::Counts(Counts { counter: [counter; 16], rules: rules.iter().map(count).collect() })
}

/// Rules and what they counted.
fn sums(world: &World) -> Vec<(String, u64, u64)> {
    let sums = world.registry.counts();
    sums.iter().map(|(rule, sum)| (rule.name.to_string(), sum.success, sum.fail)).collect()
}

#[tokio::test]
async fn counts_of_nodes_are_summed_until_their_rule_goes() {
    let world = World::open();
    observe(&world, RULES).await;
    let (one, other) = (world.control("one").await, world.control("other").await);
    one.say(counts(1, 5, 1)).await;
    one.say(counts(1, 5, 1)).await;
    other.say(counts(1, 2, 0)).await;
    let want = [("r".to_owned(), 7, 1)];
    world.until("both are summed", |world| sums(world) == want).await;
    // Who begins a conversation tells all of it again.
    let newer = |hello: &mut Hello| (hello.generation, hello.takes_over) = (9, true);
    let mut again = world.control_of("one", &world.tls("one", TODAY), newer).await;
    again.say(counts(1, 6, 1)).await;
    let want = [("r".to_owned(), 8, 1)];
    world.until("only what is new is added", |world| sums(world) == want).await;
    observe(&world, "").await;
    assert_eq!(sums(&world), []);
    // A word that is late brings nothing back.
    again.say(counts(1, 6, 1)).await;
    again.say(Body::Ping(Ping { number: 7, answer: false })).await;
    let pong = |body| matches!(body, Body::Ping(ping) if ping.answer).then_some(());
    again.hear("the answer", pong).await;
    assert_eq!(sums(&world), []);
}

#[tokio::test]
async fn a_node_counts_only_what_may_begin_there() {
    let world = World::open();
    observe(&world, RULES).await;
    let (one, other) = (world.control("one").await, world.control("other").await);
    // Their clocks are ahead.
    other.say(of(&["clouds", "ones", "r"], 1, (3, 0), i64::MAX)).await;
    let want = [("r".to_owned(), 3, 0)];
    world.until("the other's is heard", |world| sums(world) == want).await;
    one.say(of(&["clouds", "ones", "r"], 1, (2, 1), i64::MAX)).await;
    let want = [("ones".to_owned(), 2, 1), ("r".to_owned(), 5, 1)];
    world.until("the one's is heard", |world| sums(world) == want).await;
    let last = world.registry.counts()[&RuleName::new("default", "r")].last_success.unwrap();
    assert!(last <= (TODAY + 1) * 1000, "{last}");
}
