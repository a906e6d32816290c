//! What the disk refused is tried again, however much happens meanwhile.

use super::*;

/// Offers of a peer, one a second: far more than a retry may take.
const EVENTS: u8 = 250;

#[tokio::test]
async fn what_was_refused_is_stored_while_other_things_happen() {
    let world = World::new().await;
    let (mut cloud, _) = world.talk(EPOCH, 1).await;
    assert_eq!(cloud.tell(everything(1, &[service("cam", &[("", 80)])])).await, ack(1));
    let file = world.folder.path().join("data").join("meta.db");
    let holder = rusqlite::Connection::open(file).unwrap();
    holder.execute_batch("BEGIN IMMEDIATE").unwrap();
    let next = Delta { from: 1, reset: false, ..everything(2, &[service("b", &[("", 80)])]) };
    let answer = cloud.tell(next).await;
    assert!(matches!(&answer, Body::Held(held) if held.revision == 2), "{answer:?}");
    holder.execute_batch("ROLLBACK").unwrap();

    tokio::time::pause();
    for last in 0..EVENTS {
        let offer = Offer { records: vec![Put::from(&slice("n", last))] };
        let said = PeerSaid { node: NodeName("n".into()), talk: 1, offer: Some(offer) };
        world.ends.offered.send(said).await.unwrap();
        tokio::select! {
            said = cloud.heard.recv() => {
                assert_eq!(said, Some(ack(2)));
                return drop(world.end().await);
            }
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
    }
    panic!("not stored in {EVENTS} s");
}
