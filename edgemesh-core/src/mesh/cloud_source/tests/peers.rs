//! What peers say of themselves, and for how long that counts.

use super::*;

/// What a peer said counts while the cloud is away, but not after the cloud had its say and the peer
/// is gone.
#[tokio::test]
async fn the_last_word_of_a_peer_that_is_gone_is_not_for_ever() {
    let world = World::new().await;
    let mut revision = 0;
    let mut talk = async || {
        revision += 1;
        let (mut cloud, _) = world.talk(EPOCH, revision).await;
        cloud.tell(everything(revision, &[])).await;
        world.until(|world| world.status.get().in_step).await;
        cloud
    };
    let away = async |cloud| {
        drop(cloud);
        world.until(|world| !world.status.get().in_step).await;
    };
    let offer = || Offer { records: vec![Put::from(&service("its-own", &[("", 80)]))] };
    let knows = |world: &World| world.services().contains(&"its-own".to_owned());
    let cloud = talk().await;
    world.peer(1, Some(offer())).await;
    world.peer(2, Some(offer())).await;
    world.peer(1, None).await;
    away(cloud).await;
    world.until(knows).await;
    // The way there broke too: its last word leads back to it.
    world.peer(2, None).await;
    let cloud = talk().await;
    world.until(|world| !knows(world)).await;
    away(cloud).await;
    assert!(!knows(&world));
    // The same where the cloud is there when it leaves.
    let cloud = talk().await;
    world.peer(3, Some(offer())).await;
    world.peer(3, None).await;
    away(cloud).await;
    assert!(!knows(&world));
    world.end().await;
}
