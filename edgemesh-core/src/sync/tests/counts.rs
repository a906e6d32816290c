//! What Rules counted is seen again after a restart, whoever the records come from.

use std::path::Path;

use edgemesh_proto::record::RuleName;

use super::*;
use crate::backends::{RuleError, Tally};
use crate::manifests;
use crate::store::Counted;

#[tokio::test]
async fn counts_are_seen_again_after_a_restart() {
    let text = "{type: rest, name: in}\n---\nname: r\nsource: in\nsource_resource: {path: /a}\n\
                target: in\ntarget_resource: {resource: 'http://a/'}\n";
    let parsed = manifests::parse(Path::new("a.yaml"), text);
    let records: Vec<_> = parsed.documents.into_iter().flat_map(|d| d.records).collect();
    let folder = tempfile::tempdir().unwrap();
    let (mut sync, live) = open(folder.path());
    sync.observe(set(&records), now()).await;
    let name = RuleName::new("default", "r");
    let id = live.load().rules.get(&name).unwrap().record.id.clone();
    let errors = vec![RuleError { at: 9, detail: "no".into() }];
    let tally = Tally { success: 5, fail: 1, errors: errors.clone() };
    let store = sync.into_store();
    store.count(vec![Counted { id, tally }]).await.unwrap();
    store.close().await;

    for synced in [false, true] {
        let (store, loaded, _) = Store::open(folder.path()).unwrap();
        let live = Arc::<ArcSwap<Snapshot>>::default();
        let node = NodeName("edge-1".into());
        let resume = if synced { Sync::resume_synced } else { Sync::resume };
        let sync = resume(store, loaded, node, None, &[], live.clone(), now());
        let rule = live.load().rules.get(&name).unwrap().clone();
        assert_eq!((rule.live.counts(), &*rule.live.errors()), ((5, 1), &errors));
        sync.into_store().close().await;
    }
}

/// Errors of a Rule that waits for an Endpoint have no place in the store before that is there.
#[tokio::test]
async fn errors_of_a_rule_that_waits_are_stored_when_it_does_no_longer() {
    let rule = "name: r\nsource: in\nsource_resource: {path: /a}\ntarget: default/out\n\
                target_resource: {resource: 'http://a/'}\n";
    let text = format!("{{type: rest, name: in}}\n---\n{{type: rest, name: out}}\n---\n{rule}");
    let parsed = manifests::parse(Path::new("a.yaml"), &text);
    let mut records: Vec<_> = parsed.documents.into_iter().flat_map(|d| d.records).collect();
    let out = records.remove(records.iter().position(|record| &*record.name == "out").unwrap());
    let folder = tempfile::tempdir().unwrap();
    let (mut sync, live) = open(folder.path());
    let name = RuleName::new("default", "r");
    let fails = |why: &str| live.load().rules.get(&name).unwrap().live.failed(why, 7);
    sync.observe(set(&records), now()).await;
    fails("first");
    sync.count().await;
    fails("second");
    sync.count().await;
    records.push(out);
    sync.observe(set(&records), now()).await;
    fails("third");
    sync.count().await;
    fails("fourth");
    sync.count().await;
    sync.into_store().close().await;

    let (store, loaded, _) = Store::open(folder.path()).unwrap();
    store.close().await;
    let errors: Vec<_> = loaded.counted[0].1.errors.iter().map(|error| &*error.detail).collect();
    assert_eq!(errors, ["first", "second", "third", "fourth"]);
}
