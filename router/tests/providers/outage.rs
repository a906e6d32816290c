//! Brokers and clients that go away and come back.

use bytes::Bytes;
use edgemesh_core::refusal::Refusal;
use edgemesh_router::providers::eventbus::{BrokerConfig, Publication};
use tokio::time::timeout;

use crate::broker::{Broker, client};
use crate::world::{PATIENCE, World, until};

const UP: &str = "up: eventbus topic=up -> rest resource=http://h/";
/// A broker that remembers its sessions over a restart.
const LASTING: &str =
    "allow_anonymous true\npersistence true\npersistence_location {}/\nautosave_interval 1\n";

/// It has forgotten everything, or nothing: messages land again, each once.
#[tokio::test]
async fn a_broker_that_restarts_is_found_again() {
    for (config, subscriptions) in [("allow_anonymous true\n", 2), (LASTING, 1)] {
        let mut broker = Broker::with(config).await;
        let world = World::with(UP);
        let eventbus = broker.client(&world);
        eventbus.follow(world.here());
        broker.says("Sending SUBACK to edgemesh-edge-1", 1).await;
        broker.publish("n/up", b"before", &["-q", "1"]).await;
        world.messages.wait_for(1).await;
        broker.end().await;
        until("its absence is noticed", || !eventbus.state().connected).await;
        let reason = eventbus.state().reason.unwrap();
        let error = eventbus.publish(publication()).await.unwrap_err();
        assert_eq!((error.refusal, error.sent), (Refusal::ConnectFailed, false), "{error:?}");
        assert!(reason.starts_with("the broker at 127.0.0.1:"), "{reason}");
        broker.run().await;
        until("its return is noticed", || eventbus.state().connected).await;
        broker.says("Sending SUBACK to edgemesh-edge-1", subscriptions).await;
        eventbus.publish(publication()).await.unwrap();
        broker.publish("n/up", b"after", &["-q", "1"]).await;
        assert_eq!(world.messages.texts(2).await, ["up n/up before", "up n/up after"]);
        let subscribed = broker.log().matches("Sending SUBACK to edgemesh-edge-1").count();
        assert_eq!(subscribed, subscriptions);
    }
}

/// What is under way ends and is acknowledged; the broker keeps what waited, and what is published
/// meanwhile.
#[tokio::test]
async fn a_client_that_restarts_loses_nothing() {
    let broker = Broker::start().await;
    let first = World::with(UP);
    broker.listened(&first).await;
    first.messages.open.send_replace(false);
    broker.publish_lines("n/up", "begun\nqueued", "1").await;
    broker.says("Sending PUBLISH to edgemesh-edge-1", 2).await;
    first.messages.wait_for(1).await;
    first.stop.cancel();
    first.tasks.close();
    broker.publish("n/up", b"late", &["-q", "1"]).await;
    first.messages.open.send_replace(true);
    timeout(PATIENCE, first.tasks.wait()).await.expect("it ends");
    broker.says("Received DISCONNECT from edgemesh-edge-1", 1).await;
    assert_eq!(first.messages.texts(1).await, ["up n/up begun"]);
    assert_eq!(broker.log().matches("Received PUBACK from edgemesh-edge-1").count(), 1);
    broker.publish("n/up", b"missed", &["-q", "1"]).await;
    let second = World::with(UP);
    broker.client(&second).follow(second.here());
    let texts = second.messages.texts(3).await;
    assert_eq!(texts, ["up n/up queued", "up n/up late", "up n/up missed"]);
    broker.says("Received PUBACK from edgemesh-edge-1", 4).await;
}

/// Somebody publishes before this process takes messages: those that the broker kept wait for that.
#[tokio::test]
async fn what_the_broker_keeps_waits_for_who_takes_it() {
    let broker = Broker::start().await;
    let first = World::with(UP);
    broker.listened(&first).await;
    first.stop.cancel();
    first.tasks.close();
    timeout(PATIENCE, first.tasks.wait()).await.expect("it ends");
    broker.publish("n/up", b"kept", &["-q", "1"]).await;
    let second = World::with(UP);
    let eventbus = broker.client(&second);
    let mut publishing = Box::pin(eventbus.publish(publication()));
    let early = timeout(std::time::Duration::from_millis(300), &mut publishing).await;
    assert!(early.is_err(), "it waits: {early:?}");
    assert_eq!(broker.log().matches("as edgemesh-edge-1").count(), 1, "the session is another's");
    eventbus.follow(second.here());
    publishing.await.unwrap();
    assert_eq!(second.messages.texts(1).await, ["up n/up kept"]);
}

/// Two processes of one node in a hand-over: what the first has under way ends there, and does not land
/// with the second, which waits for that.
#[tokio::test]
async fn a_hand_over_delivers_once() {
    let (broker, folder) = (Broker::start().await, tempfile::tempdir().unwrap());
    let lock = Some(folder.path().join("lock").into());
    let config = BrokerConfig { lock, ..broker.config() };
    let (first, second) = (World::with(UP), World::with(UP));
    client(&first, config.clone()).follow(first.here());
    broker.says("Sending SUBACK to edgemesh-edge-1", 1).await;
    first.messages.open.send_replace(false);
    broker.publish_lines("n/up", "begun\nqueued", "1").await;
    first.messages.wait_for(1).await;
    let successor = client(&second, config);
    successor.follow(second.here());
    let mut publishing = Box::pin(successor.publish(publication()));
    let early = timeout(std::time::Duration::from_millis(300), &mut publishing).await;
    assert!(early.is_err(), "it waits: {early:?}");
    first.stop.cancel();
    first.messages.open.send_replace(true);
    publishing.await.unwrap();
    assert_eq!(second.messages.texts(1).await, ["up n/up queued"]);
    assert_eq!(first.messages.texts(1).await, ["up n/up begun"]);
    assert!(!broker.log().contains("session taken over"), "{}", broker.log());
}

/// Its subscription does not stay, even if the broker is away when the Rule goes.
#[tokio::test]
async fn the_last_rule_that_goes_is_unsubscribed() {
    for is_away in [false, true] {
        let mut broker = Broker::with(LASTING).await;
        let world = World::with(UP);
        let eventbus = broker.client(&world);
        eventbus.follow(world.here());
        broker.says("Sending SUBACK to edgemesh-edge-1", 1).await;
        if is_away {
            broker.end().await;
            until("its absence is noticed", || !eventbus.state().connected).await;
        }
        world.rules("");
        if is_away {
            broker.run().await;
        }
        broker.says("Sending UNSUBACK to edgemesh-edge-1", 1).await;
        broker.says("Received DISCONNECT from edgemesh-edge-1", 1).await;
        until("nothing needs it", || !eventbus.state().connected).await;
    }
}

/// A message that is under way when the connection breaks is not delivered again, whether that ends
/// before the broker is back or after.
#[tokio::test]
async fn what_is_in_hand_is_not_taken_twice() {
    for ends_before in [false, true] {
        let mut broker = Broker::with(LASTING).await;
        let world = World::with(UP);
        let eventbus = broker.client(&world);
        eventbus.follow(world.here());
        broker.says("Sending SUBACK to edgemesh-edge-1", 1).await;
        world.messages.open.send_replace(false);
        broker.publish("n/up", b"slow", &["-q", "1"]).await;
        world.messages.wait_for(1).await;
        broker.end().await;
        until("its absence is noticed", || !eventbus.state().connected).await;
        world.messages.open.send_replace(ends_before);
        broker.run().await;
        broker.says("Sending PUBLISH to edgemesh-edge-1 (d1", 1).await;
        world.messages.open.send_replace(true);
        broker.says("Received PUBACK from edgemesh-edge-1", 1).await;
        broker.publish("n/up", b"next", &["-q", "1"]).await;
        assert_eq!(world.messages.texts(2).await, ["up n/up slow", "up n/up next"]);
    }
}

/// A Rule that went while its node was off: what the broker holds for it is taken back. The node begins
/// with what it knew, and hears of the change later.
#[tokio::test]
async fn what_an_earlier_process_asked_for_is_taken_back() {
    let wide = "up: eventbus topic=up -> rest resource=http://h/\n\
                all: eventbus topic=+ -> rest resource=http://h/";
    let broker = Broker::start().await;
    let first = World::with(wide);
    broker.listened(&first).await;
    first.stop.cancel();
    first.tasks.close();
    timeout(PATIENCE, first.tasks.wait()).await.expect("it ends");
    let second = World::with(wide);
    let eventbus = broker.client(&second);
    eventbus.follow(second.here());
    tokio::task::yield_now().await;
    second.rules(UP);
    broker.says("Sending UNSUBACK to edgemesh-edge-1", 1).await;
    broker.publish("n/other", b"is nobody's", &["-q", "1"]).await;
    broker.publish("n/up", b"x", &["-q", "1"]).await;
    assert_eq!(second.messages.texts(1).await, ["up n/up x"]);
}

/// No Rule, no connection.
#[tokio::test]
async fn nobody_connects_without_a_need() {
    let (broker, world) = (Broker::start().await, World::with(""));
    let eventbus = broker.client(&world);
    eventbus.follow(world.here());
    // Had it a need, it would be first.
    broker.publish("t", b"x", &["-q", "1"]).await;
    assert!(!broker.log().contains("edgemesh-edge-1"));
    assert!(!eventbus.state().connected && eventbus.state().reason.is_none());
    eventbus.publish(publication()).await.unwrap();
    assert!(eventbus.state().connected);
    world.rules(UP);
    broker.says("Sending SUBACK to edgemesh-edge-1", 1).await;
}

fn publication() -> Publication<'static> {
    Publication { topic: "t", payload: Bytes::from_static(b"x"), confirmed: true, retain: false }
}
