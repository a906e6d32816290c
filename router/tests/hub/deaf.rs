//! Nodes that do not read what the hub tells them.

use edgemesh_core::link::Operation;
use edgemesh_proto::message::{Body, DialBack, Ping};

use crate::world::{Control, World, ask, connect, node, within};

/// So much is asked of the deaf node that no window holds it: 100 times 60 KiB.
const ASKED: usize = 100;
const LONG: usize = 60 * 1024;

/// Asks, through the hub, for what the deaf node would have to read.
async fn deafened(world: &World) -> (Control, Control) {
    let deaf = world.control("deaf").await;
    let mut asks = world.control("asks").await;
    for _ in 0..ASKED {
        let links = vec!["x".repeat(LONG).into()];
        asks.say(Body::DialBack(DialBack { node: Some(node("deaf")), links })).await;
    }
    asks.say(Body::Ping(Ping { number: 77, answer: false })).await;
    let pong = |body| matches!(body, Body::Ping(Ping { number: 77, answer: true })).then_some(());
    asks.hear("the answer to who asked for a deaf node", pong).await;
    (deaf, asks)
}

#[tokio::test]
async fn a_node_that_does_not_read_holds_up_nobody_else() {
    let world = World::open();
    let (_deaf, asks) = deafened(&world).await;
    let stream = connect("asks", "deaf");
    let answers = (0..5).map(|_| ask(&asks.link, Operation::Stream, &stream));
    let answers = within("refusals", futures_util::future::join_all(answers)).await;
    for answer in answers {
        let Some(Body::Refused(refused)) = answer else { panic!("{answer:?}") };
        assert_eq!(refused.label, "noPath", "{}", refused.text);
    }
}

#[tokio::test]
async fn a_node_that_does_not_read_can_be_removed() {
    let world = World::open();
    let (_deaf, _asks) = deafened(&world).await;
    world.removed("deaf").await;
    world.until("the seat is free", |world| world.hub.node(&node("deaf")).is_none()).await;
}
