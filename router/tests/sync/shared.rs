//! The registry behind its lock: sessions wait, are woken, and leave nothing behind.

use std::time::Duration;

use edgemesh_proto::record::Put;
use edgemesh_router::registry::shared::Shared;

use super::*;

/// Longest wait for what comes at once.
const PATIENCE: Duration = Duration::from_secs(10);

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("in time")
}

fn set(records: &[Record]) -> BTreeMap<Key, Record> {
    records.iter().map(|record| (record.key(), record.clone())).collect()
}

#[tokio::test]
async fn a_conversation_waits_for_changes_and_answers() {
    let shared = Shared::in_memory([1; 16]);
    let mut changed = shared.changed();
    let mut agent = Agent::new(Selector::default());
    let talk = shared.talk(&agent.hello()).unwrap();
    let answer = agent.hear(body(soon(talk.next()).await)).unwrap(); // the epoch
    talk.hear(&answer).unwrap();
    let mut waiting = Box::pin(talk.next());
    let silent = futures_util::poll!(&mut waiting);
    assert!(silent.is_pending(), "both have nothing");
    shared.observe(set(&[service("a", 1)])).await;
    soon(changed.changed()).await.unwrap();
    let said = soon(waiting).await;
    let answer = agent.hear(body(said)).unwrap();
    shared.observe(set(&[service("a", 2)])).await;
    let mut waiting = Box::pin(talk.next());
    assert!(futures_util::poll!(&mut waiting).is_pending(), "one step is out");
    drop(waiting); // loses nothing
    talk.hear(&answer).unwrap();
    assert_eq!(talk.acknowledged(), 1);
    let answer = agent.hear(body(soon(talk.next()).await)).unwrap();
    talk.hear(&answer).unwrap();
    assert_eq!((talk.acknowledged(), shared.revision()), (2, 2));
}

#[tokio::test]
async fn it_opens_with_what_it_kept_under_another_epoch() {
    let folder = tempfile::tempdir().unwrap();
    let shared = Shared::open(folder.path()).unwrap();
    assert_eq!(shared.repairs(), []);
    let node = NodeName("n1".into());
    shared.observe(set(&[service("a", 1)])).await;
    shared.joined(&node, 1, vec!["10.0.0.1:1".into()]).await;
    shared.remove(&NodeName("n2".into()), 5, || false).await;
    let offered = [Put::from(&service("b", 1)), Put::from(&slice("x", &["n9"]))];
    let bad = shared.offer(&node, 1, offered.into()).await;
    assert_eq!(bad.len(), 1, "{bad:?}");
    let mut agent = Agent::new(Selector::default());
    let talk = shared.talk(&agent.hello()).unwrap();
    while talk.acknowledged() < shared.revision() {
        if let Some(answer) = agent.hear(body(soon(talk.next()).await)) {
            talk.hear(&answer).unwrap();
        }
    }
    let (epoch, before) = (shared.epoch(), shared.records());
    assert_eq!((before.len(), shared.trouble()), (4, None));
    shared.close().await;

    let shared = Shared::open(folder.path()).unwrap();
    assert_eq!(shared.repairs(), []);
    assert_ne!(shared.epoch(), epoch);
    assert_eq!(shared.records(), before);
    assert_eq!(shared.revoked(&NodeName("n2".into())), Some(5));
    // The agent hears a number and no data.
    let talk = shared.talk(&agent.hello()).unwrap();
    let Body::Delta(delta) = body(soon(talk.next()).await) else { panic!("no step") };
    assert_eq!((delta.put.len(), delta.epoch), (0, shared.epoch()));
    // Removed, it has nothing any more but its Revocation, and says nothing more either.
    shared.remove(&node, 2, || false).await;
    assert_eq!(shared.records().len(), 3);
    shared.joined(&node, 1, Vec::new()).await;
    shared.offer(&node, 1, vec![Put::from(&service("b", 1))]).await;
    assert_eq!(shared.records().len(), 3);
    // By a newer certificate it does, also when it was back before it was removed here.
    shared.offer(&node, 2, vec![Put::from(&service("b", 1))]).await;
    assert_eq!(shared.records().len(), 4);
    shared.remove(&node, 2, || true).await;
    assert_eq!(shared.records().len(), 4);
    shared.close().await;
}
