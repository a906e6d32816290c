//! What the hub passes on from one node to another.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use edgemesh_core::link::{
    self, ALPN_REVERSE, Answering, Called, Limits, Operation, Rest, Serve, ServedLink,
};
use edgemesh_core::peers::message;
use edgemesh_proto::message::{Body, Ping};

use crate::world::{Control, TODAY, World, ask, connect};

/// The caller's bound, and how long the hub waits for the servant.
const BOUND: u64 = 5000;
const SLOW: Duration = Duration::from_millis(300);
/// Links that end while something is on its way to them.
const ENDS: usize = 20;

/// Says which bound it was given.
struct Tells;

impl Serve for Tells {
    fn serve(self: Arc<Self>, called: Called) -> Pin<Box<dyn Future<Output = Answering> + Send>> {
        let route = &called.opening.route;
        let bound = Body::Ping(Ping { number: called.opening.header.deadline_ms, answer: true });
        let opening = message([&route.destination, &route.source], bound);
        Box::pin(async move { Answering { opening, rest: Rest::Nothing } })
    }
}

/// Waits until the hub wants to be dialled, and dials.
async fn dials_back(world: &World, servant: &mut Control, after: Duration) -> ServedLink {
    let asked = |body| matches!(body, Body::DialBack(_)).then_some(());
    servant.hear("that the hub wants a Link", asked).await;
    tokio::time::sleep(after).await;
    let dialled = world.dialled(&world.tls("servant", TODAY), ALPN_REVERSE).await;
    link::serve(dialled, Arc::new(Tells), Limits::REQUESTS, &world.tasks)
}

fn told(answer: Option<Body>) -> u64 {
    match answer {
        Some(Body::Ping(ping)) => ping.number,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_hubs_own_time_is_taken_off_the_callers_bound() {
    let world = World::open();
    let (mut servant, caller) = (world.control("servant").await, world.control("caller").await);
    let mut opening = connect("caller", "servant");
    opening.header.deadline_ms = BOUND;
    let (answer, _served) = tokio::join!(
        ask(&caller.link, Operation::Stream, &opening),
        dials_back(&world, &mut servant, SLOW)
    );
    let left = told(answer);
    assert!(left > 0 && left <= BOUND - SLOW.as_millis() as u64, "{left}");
    // Where nobody dials back within it, the caller hears that in time.
    world.control("deaf").await;
    opening = connect("caller", "deaf");
    opening.header.deadline_ms = 100;
    let asked = tokio::time::timeout(Duration::from_secs(3), async {
        ask(&caller.link, Operation::Stream, &opening).await
    });
    let Ok(Some(Body::Refused(refused))) = asked.await else { panic!("no answer in time") };
    assert_eq!(refused.label, "noPath");
}

/// The hub learns that a Link takes no more when it is used.
#[tokio::test]
async fn what_a_link_does_not_take_any_more_goes_by_the_next_one() {
    let world = World::open();
    let (mut servant, caller) = (world.control("servant").await, world.control("caller").await);
    let opening = connect("caller", "servant");
    let mut served: Option<ServedLink> = None;
    for _ in 0..ENDS {
        if let Some(link) = served.take() {
            link.close();
        }
        let (answer, link) = tokio::join!(
            ask(&caller.link, Operation::Stream, &opening),
            dials_back(&world, &mut servant, Duration::ZERO)
        );
        told(answer);
        served = Some(link);
    }
}
