//! What Rules have counted is there again, for as long as they are.

use edgemesh_core::manifests;
use edgemesh_proto::message::{Counts as Told, RuleCount};
use edgemesh_proto::record::{Record, RuleName};

use super::*;
use crate::registry::Counted;
use crate::registry::shared::Shared;

const RULE: &str = "\
{type: eventbus, name: in}
---
{type: rest, name: out}
---
{name: r, source: in, source_resource: {topic: a}, target: out, target_resource: {resource: 'http://a/'}}
";

fn records(text: &str) -> BTreeMap<Key, Record> {
    let parsed = manifests::parse(Path::new("a.yaml"), text);
    let records = parsed.documents.into_iter().flat_map(|document| document.records);
    records.map(|record| (record.key(), record)).collect()
}

fn told(success: u64, fail: u64) -> Told {
    let rule = RuleName::new("default", "r");
    Told {
        counter: [3; 16],
        rules: vec![RuleCount { rule, success, fail, last_success: 9, trouble: None }],
    }
}

#[tokio::test]
async fn counts_outlive_the_process_and_go_with_their_rule() {
    let folder = folder();
    let shared = Shared::open(folder.path()).unwrap();
    shared.observe(records(RULE)).await;
    shared.count(&NodeName("edge".into()), 0, &told(u64::MAX - 9, 1));
    shared.count_own(&told(5, 2));
    shared.keep_counts().await;
    shared.close().await;
    let sum = Counted { success: u64::MAX - 4, fail: 3, last_success: Some(9), trouble: None };
    let want = BTreeMap::from([(RuleName::new("default", "r"), sum)]);

    let shared = Shared::open(folder.path()).unwrap();
    assert_eq!(shared.counts(), want);
    let own = shared.own_counts();
    assert_eq!((own.len(), own[0].1.success, own[0].1.fail), (1, 5, 2));
    // A node whose certificate is void has no say.
    shared.remove(&NodeName("edge".into()), 100, || false).await;
    shared.count(&NodeName("edge".into()), 99, &told(u64::MAX - 5, 1));
    assert_eq!(shared.counts(), want);
    shared.observe(BTreeMap::new()).await;
    assert_eq!(shared.counts(), BTreeMap::new());
    shared.keep_counts().await;
    shared.close().await;

    // Not even a Rule of the same name finds anything of it.
    let shared = Shared::open(folder.path()).unwrap();
    shared.observe(records(RULE)).await;
    assert_eq!(shared.counts(), BTreeMap::new());
    shared.close().await;
    let (kept, _) = reopened(folder.path()).await;
    assert_eq!(kept.counts, []);
}
