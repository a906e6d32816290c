//! A node is removed: what it has by its certificate ends, and nothing that it has by a newer one.

use std::pin::Pin;
use std::sync::Arc;

use edgemesh_core::link::{
    self, ALPN_REVERSE, Answering, Called, Duplex, Limits, Operation, Serve,
};
use edgemesh_core::peers::{REMOVED, message};
use edgemesh_proto::message::{Body, Ping, Refused};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::task::TaskTracker;

use crate::world::{Control, TODAY, World, ask, connect, node, within};

/// Answers a Stream, and keeps it open.
struct Echo(TaskTracker);

impl Serve for Echo {
    fn serve(self: Arc<Self>, called: Called) -> Pin<Box<dyn Future<Output = Answering> + Send>> {
        Box::pin(async move {
            let from = &called.opening.route;
            let answer = Body::Ping(Ping { number: 0, answer: true });
            let opening = message([&from.destination, &from.source], answer);
            let (writer, rest) = link::pipe();
            let mut stream = Duplex::new(writer, called.body);
            // For as long as the exchange lives, every byte comes back.
            let echo = async move {
                let mut byte = [0];
                while stream.read_exact(&mut byte).await.is_ok() {
                    if stream.write_all(&byte).await.is_err() || stream.flush().await.is_err() {
                        return;
                    }
                }
            };
            self.0.spawn(echo);
            Answering { opening, rest }
        })
    }
}

fn refused(body: Body) -> Option<Refused> {
    match body {
        Body::Refused(refused) => Some(refused),
        _ => None,
    }
}

/// A node that is dialled back by the hub whenever that asks.
async fn serves(world: &World, name: &str) -> Control {
    let control = world.control(name).await;
    let dialled = world.dialled(&world.tls(name, TODAY), ALPN_REVERSE).await;
    link::serve(dialled, Arc::new(Echo(world.tasks.clone())), Limits::REQUESTS, &world.tasks);
    world
        .until("the reversed Link", |world| world.hub.node(&node(name)).unwrap().ready().is_some())
        .await;
    control
}

#[tokio::test]
async fn who_is_removed_hears_why_and_its_streams_are_cut() {
    let world = World::open();
    let mut servant = serves(&world, "servant").await;
    let caller = world.control("caller").await;
    let requests = world.link(&world.tls("caller", TODAY), Limits::REQUESTS).await;
    let mut streams = Vec::new();
    for _ in 0..2 {
        let (writer, rest) = link::pipe();
        let opening = connect("caller", "servant");
        let opened = requests.open(Operation::Stream, &opening, rest);
        let reply = within("a stream", opened).await.unwrap();
        let mut stream = Duplex::new(writer, reply.body);
        stream.write_all(b"x").await.unwrap();
        stream.flush().await.unwrap();
        within("the echo", stream.read_u8()).await.unwrap();
        streams.push(stream);
    }
    world.removed("servant").await;
    assert_eq!(servant.hear("why", refused).await.label, REMOVED);
    for stream in &mut streams {
        within("the end of its streams", stream.read_u8()).await.unwrap_err();
    }
    assert!(requests.is_open() && caller.link.is_open(), "nobody else is cut");
    // And the other way round: who is removed does not go on calling.
    world.removed("caller").await;
    within("the end of its Link", requests.closed()).await;
}

#[tokio::test]
async fn who_is_back_by_a_newer_certificate_stays() {
    let world = World::open();
    let newer = world.tls("edge", TODAY + 1);
    let mut control = world.control_of("edge", &newer, |_| {}).await;
    world.until("it has an agent", |world| world.registry.records().len() == 1).await;
    world.removed("edge").await;
    // What it is asked and answers comes after whatever the removal would have done.
    let ping = |body| matches!(body, Body::Ping(ping) if !ping.answer).then_some(());
    control.hear("the pulse", ping).await;
    assert_eq!(world.registry.records().len(), 2, "its agent, and the Revocation");
    assert!(world.hub.node(&node("edge")).is_some());
    let old = world.tls("edge", TODAY);
    let link = world.link(&old, Limits::REQUESTS).await;
    let answer = ask(&link, Operation::Stream, &connect("edge", "edge")).await;
    assert_eq!(answer.and_then(refused).map(|refused| refused.label), Some(REMOVED.to_owned()));
}
