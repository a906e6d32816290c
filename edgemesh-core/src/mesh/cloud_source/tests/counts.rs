//! What Rules count is stored within a second or so, and told: all of it first, then what is new.

use std::path::Path;

use edgemesh_proto::message::{Counts, RuleCount};
use edgemesh_proto::record::RuleName;

use super::*;
use crate::manifests;

const RULES: &str = "\
{type: rest, name: in}
---
{name: a, source: in, source_resource: {path: /a}, target: in, target_resource: {resource: 'http://a/'}}
---
{name: b, source: in, source_resource: {path: /b}, target: in, target_resource: {resource: 'http://b/'}}
";

/// A message of the Rule was delivered, or not.
fn message(world: &World, rule: &str, delivered: bool) {
    let live = world.live.load().rules.get(&RuleName::new("default", rule)).unwrap().live.clone();
    match delivered {
        true => live.delivered(Duration::from_millis(1), 77),
        false => live.failed("no", 78),
    }
}

/// Counter, and each Rule with what it counted.
async fn counts(cloud: &mut Cloud) -> ([u8; 16], Vec<String>) {
    let heard = tokio::time::timeout(PATIENCE, cloud.heard.recv()).await.expect("in time");
    let Some(Body::Counts(Counts { counter, rules })) = heard else { panic!("{heard:?}") };
    let shown = |RuleCount { rule, success, fail, last_success, .. }: RuleCount| {
        format!("{}: {success}/{fail} at {last_success}", rule.name)
    };
    (counter, rules.into_iter().map(shown).collect())
}

#[tokio::test]
async fn the_cloud_hears_what_rules_count() {
    let world = World::new().await;
    let (mut cloud, _) = world.talk(EPOCH, 1).await;
    let parsed = manifests::parse(Path::new("a.yaml"), RULES);
    let records: Vec<_> = parsed.documents.into_iter().flat_map(|d| d.records).collect();
    assert_eq!(cloud.tell(everything(1, &records)).await, ack(1));
    message(&world, "a", true);
    let (counter, told) = counts(&mut cloud).await;
    assert_eq!(told, ["a: 1/0 at 77"]);
    message(&world, "b", false);
    assert_eq!(counts(&mut cloud).await, (counter, vec!["b: 0/1 at 0".to_owned()]));
    // Who begins anew hears all of it.
    let (mut cloud, _) = world.talk(EPOCH, 1).await;
    let all = vec!["a: 1/0 at 77".to_owned(), "b: 0/1 at 0".to_owned()];
    assert_eq!(counts(&mut cloud).await, (counter, all));
    // A restart changes nothing of it.
    let world = World::on(world.end().await).await;
    let (mut cloud, _) = world.talk(EPOCH, 1).await;
    let all = vec!["a: 1/0 at 0".to_owned(), "b: 0/1 at 0".to_owned()];
    assert_eq!(counts(&mut cloud).await, (counter, all));
    let rule = world.live.load().rules.get(&RuleName::new("default", "b")).unwrap().clone();
    assert_eq!(&*rule.live.errors()[0].detail, "no");
    world.end().await;
}

/// Nothing that was counted is lost by an orderly end.
#[tokio::test]
async fn the_last_second_is_stored_at_the_end() {
    let world = World::new().await;
    let (mut cloud, _) = world.talk(EPOCH, 1).await;
    let parsed = manifests::parse(Path::new("a.yaml"), RULES);
    let records: Vec<_> = parsed.documents.into_iter().flat_map(|d| d.records).collect();
    assert_eq!(cloud.tell(everything(1, &records)).await, ack(1));
    world.stop.cancel();
    let World { folder, live, following, .. } = world;
    let mut sync = following.unwrap().await.unwrap().sync;
    let rule = live.load().rules.get(&RuleName::new("default", "a")).unwrap().live.clone();
    rule.delivered(Duration::from_millis(1), 77);
    sync.count().await;
    sync.into_store().close().await;
    let (store, loaded, _) = Store::open(&folder.path().join("data")).unwrap();
    store.close().await;
    assert_eq!(loaded.counted[0].1.success, 1);
}
