//! Many who come without a certificate.

use edgemesh_core::identity::{CLOUD, Pending};
use edgemesh_core::link::Operation;
use edgemesh_core::peers::message;
use edgemesh_proto::message::Body;
use edgemesh_router::authority::TOKEN_TTL;

use crate::world::{TODAY, World, ask, node, within};

/// More than there are places.
const CROWD: usize = 100;

#[tokio::test]
async fn a_crowd_without_certificates_is_kept_small() {
    let world = World::open();
    let mut crowd = Vec::new();
    for _ in 0..CROWD {
        crowd.push(world.stranger().await);
    }
    let gone = |_: &World| crowd.iter().filter(|link| !link.is_open()).count() >= CROWD - 64;
    world.until("most are sent away", gone).await;
    // Nodes come and go meanwhile.
    world.control("edge").await;
    drop(crowd);
}

#[tokio::test]
async fn a_crowd_that_joins_is_let_in() {
    let world = World::open();
    let token = world.authority.create_token(TOKEN_TTL, None, TODAY).unwrap();
    let joining = (0..20).map(async |n| {
        let (name, folder) = (format!("edge-{n}"), tempfile::tempdir().unwrap());
        let pending = Pending::kept(folder.path(), &node(&name)).unwrap();
        let join = message([&name, CLOUD], Body::Join(pending.join(Some(&token)).unwrap()));
        let link = world.stranger().await;
        ask(&link, Operation::Join, &join).await
    });
    let answers = within("joining", futures_util::future::join_all(joining)).await;
    assert!(answers.iter().all(|answer| matches!(answer, Some(Body::Joined(_)))), "{answers:?}");
}
