//! Messages of a broker, and the Rules that take them.

use std::path::Path;

use bytes::Bytes;
use edgemesh_core::refusal::Refusal;
use edgemesh_router::providers::Failure;
use edgemesh_router::providers::eventbus::Publication;
use serde_json::json;
use tokio::time::timeout;

use crate::broker::Broker;
use crate::world::{Answer, PATIENCE, World, until};

/// What is published, and what lands: the form of KubeEdge's cases, bytes as they are.
#[tokio::test]
async fn messages_land_as_they_were_published() {
    let world = World::with("up: eventbus topic=up -> rest resource=http://h/");
    let broker = Broker::start().await;
    broker.listened(&world).await;
    let every_byte: Vec<u8> = (0..=255).collect();
    let rows: &[(&str, &[u8], &[&str])] = &[
        ("n/up", b"hello", &["-q", "1"]),
        ("n/up", b"{\"a\": 1}", &["-q", "0"]),
        ("n/up", &every_byte, &["-q", "1"]),
        ("n/up", b"", &["-q", "1"]),
        ("n/up", &vec![b'x'; 100_000], &["-q", "2"]),
        ("n/up", &vec![0xfe; 1024 * 1024], &["-q", "1"]),
        ("n/up", &vec![0xfd; 12 * 1024 * 1024], &["-q", "1"]),
    ];
    for (landed, (topic, payload, options)) in rows.iter().enumerate() {
        broker.publish("n/other", b"is nobody's", options).await;
        broker.publish("up", b"has no namespace", options).await;
        broker.publish(topic, payload, options).await;
        let messages = world.messages.wait_for(landed + 1).await;
        let message = &messages[landed];
        assert_eq!((&*message.rule, &*message.topic, &*message.method), ("up", *topic, "POST"));
        assert!(message.body == *payload, "{} bytes of {}", message.body.len(), payload.len());
        assert!(!message.retained && !message.json);
    }
    assert_eq!(world.messages.all().len(), rows.len());
}

/// Whatever overlaps: each Rule has each message once. Also from a broker that sends one for each
/// filter that matches.
#[tokio::test]
async fn a_message_lands_once_for_each_rule() {
    for config in
        ["allow_anonymous true\n", "allow_anonymous true\nallow_duplicate_messages true\n"]
    {
        let world = World::with(
            "
            one: eventbus topic=a/b -> rest resource=http://h/
            same: eventbus topic=a/b -> rest resource=http://i/
            any: eventbus topic=a/+ -> rest resource=http://h/
            all: eventbus topic=# -> rest resource=http://h/
            other: eventbus topic=x/+/c -> rest resource=http://h/
            paused!: eventbus topic=a/b -> rest resource=http://h/
            elsewhere: eventbus topic=a/b node_name=edge-2 -> rest resource=http://h/
            ",
        );
        let broker = Broker::with(config).await;
        broker.client(&world).follow(world.here());
        broker.says("Sending SUBACK to edgemesh-edge-1", 1).await;
        let mut count = 0;
        for (topic, want) in [
            ("n/a/b", "all any one paused same"),
            ("n/a/c", "all any"),
            ("n/x/b/c", "all other"),
            ("n/y", "all"),
            ("n/end", "all"),
        ] {
            broker.publish(topic, topic.as_bytes(), &["-q", "1"]).await;
            let before = count;
            count += want.split(' ').count();
            world.messages.wait_for(count).await;
            let mut rules: Vec<_> =
                world.messages.all().iter().skip(before).map(|m| m.rule.clone()).collect();
            rules.sort_unstable();
            assert_eq!(rules.join(" "), want, "{topic}");
        }
    }
}

/// Filters none of which covers another.
#[tokio::test]
async fn filters_that_cross_are_one() {
    let broker = Broker::with("allow_anonymous true\nallow_duplicate_messages true\n").await;
    let world = World::with(
        "
        one: eventbus topic=+/c -> rest resource=http://h/
        two: eventbus topic=b/+ -> rest resource=http://h/
        ",
    );
    broker.listened(&world).await;
    for topic in ["n/b/c", "n/x/y", "n/b/x", "n/x/c"] {
        broker.publish(topic, b"", &["-q", "1"]).await;
    }
    let mut texts = world.messages.texts(4).await;
    texts.sort_unstable();
    assert_eq!(texts, ["one n/b/c ", "one n/x/c ", "two n/b/c ", "two n/b/x "]);
}

#[tokio::test]
async fn one_rule_gets_its_messages_in_order() {
    let world = World::with("up: eventbus topic=up -> rest resource=http://h/");
    let broker = Broker::start().await;
    broker.listened(&world).await;
    // By one client, whose order the broker keeps.
    let lines: Vec<String> = (0..200).map(|n| n.to_string()).collect();
    broker.publish_lines("n/up", &lines.join("\n"), "1").await;
    let landed: Vec<_> =
        world.messages.wait_for(200).await.iter().map(|m| m.body.clone()).collect();
    assert_eq!(landed, lines);
}

/// What is retained lands at once for a Rule that is new, and not again for those that were there.
#[tokio::test]
async fn what_is_retained_lands_once() {
    let world = World::with("one: eventbus topic=a/b -> rest resource=http://h/");
    let broker = Broker::start().await;
    broker.publish("n/a/b", b"kept", &["-q", "1", "-r"]).await;
    broker.client(&world).follow(world.here());
    assert_eq!(world.messages.texts(1).await, ["one n/a/b kept retained"]);
    // One that is covered by what is subscribed to.
    world.rules(
        "
        one: eventbus topic=a/b -> rest resource=http://h/
        two: eventbus topic=a/b -> rest resource=http://i/
        ",
    );
    let texts = world.messages.texts(2).await;
    assert!(texts.contains(&"two n/a/b kept retained".to_owned()), "{texts:?}");
    broker.publish("n/a/b", b"new", &["-q", "1", "-r"]).await;
    let mut texts = world.messages.texts(4).await;
    texts.sort_unstable();
    let kept = ["one n/a/b kept retained", "one n/a/b new", "two n/a/b kept retained"];
    assert_eq!(texts, [&kept[..], &["two n/a/b new"]].concat());
}

#[tokio::test]
async fn a_rule_that_is_gone_is_unsubscribed() {
    let world = World::with(
        "
        one: eventbus topic=a -> rest resource=http://h/
        two: eventbus topic=b -> rest resource=http://h/
        ",
    );
    let broker = Broker::start().await;
    let eventbus = broker.listened(&world).await;
    world.rules("two: eventbus topic=b -> rest resource=http://h/");
    broker.says("Sending UNSUBACK to edgemesh-edge-1", 1).await;
    assert!(broker.log().contains("Received UNSUBSCRIBE from edgemesh-edge-1"));
    broker.publish("n/a", b"too late", &["-q", "1"]).await;
    broker.publish("n/b", b"in time", &["-q", "1"]).await;
    assert_eq!(world.messages.texts(1).await, ["two n/b in time"]);
    assert!(eventbus.state().connected);
}

/// Whatever comes of a message, the broker is told that it need not keep it.
#[tokio::test]
async fn a_message_that_fails_is_acknowledged() {
    let world = World::with("up: eventbus topic=up -> rest resource=http://h/");
    let broker = Broker::start().await;
    broker.listened(&world).await;
    let failure = Failure { refusal: Refusal::ConnectFailed, reason: "away".into() };
    for (done, answer) in [
        (1, Answer::Fails(failure)),
        (2, Answer::With(500, "no".into())),
        (3, Answer::With(204, "".into())),
    ] {
        world.messages.answer(answer);
        broker.publish("n/up", b"x", &["-q", "1"]).await;
        world.messages.wait_for(done).await;
        broker.says("Received PUBACK from edgemesh-edge-1", done).await;
    }
}

/// Messages that nobody keeps are dropped where too many wait, and that is counted.
#[tokio::test]
async fn a_flood_is_counted() {
    let world = World::with("up: eventbus topic=up -> rest resource=http://h/");
    let broker = Broker::start().await;
    broker.listened(&world).await;
    world.messages.open.send_replace(false);
    let lines: Vec<String> = (0..400).map(|n| n.to_string()).collect();
    broker.publish_lines("n/up", &lines.join("\n"), "0").await;
    let rule = world.rule("up");
    // 256 wait, and one or two are under way.
    until("those that are left over fail", || rule.live.counts().1 >= 142).await;
    let trouble = rule.live.trouble().unwrap();
    assert!(trouble.reason.contains("too many messages wait"), "{trouble:?}");
    world.messages.open.send_replace(true);
    let all = || world.messages.all().len() + usize::try_from(rule.live.counts().1).unwrap();
    until("each landed or failed", || all() == 400).await;
}

/// A broker that sends more than this node queues is held back, and loses nothing.
#[tokio::test]
async fn what_the_broker_keeps_waits() {
    let world = World::with("up: eventbus topic=up -> rest resource=http://h/");
    let all = "allow_anonymous true\nmax_inflight_messages 0\nmax_queued_messages 0\n";
    let broker = Broker::with(all).await;
    broker.listened(&world).await;
    world.messages.open.send_replace(false);
    let lines: Vec<String> = (0..1000).map(|n| n.to_string()).collect();
    broker.publish_lines("n/up", &lines.join("\n"), "1").await;
    world.messages.wait_for(1).await;
    world.messages.open.send_replace(true);
    let landed: Vec<_> =
        world.messages.wait_for(1000).await.iter().map(|m| m.body.clone()).collect();
    assert_eq!(landed, lines);
    broker.says("Received PUBACK from edgemesh-edge-1", 1000).await;
    assert_eq!(world.rule("up").live.counts().1, 0);
}

/// What one Rule does not get done holds up neither other Rules nor what is published.
#[tokio::test]
async fn a_slow_rule_holds_nobody_up() {
    let world = World::with(
        "
        slow: eventbus topic=slow -> rest resource=http://h/
        other: eventbus topic=other -> rest resource=http://h/
        ",
    );
    let broker = Broker::start().await;
    let eventbus = broker.listened(&world).await;
    world.messages.open.send_replace(false);
    let lines: Vec<String> = (0..300).map(|n| n.to_string()).collect();
    broker.publish_lines("n/slow", &lines.join("\n"), "0").await;
    broker.publish("n/slow", b"kept", &["-q", "1"]).await;
    broker.publish("n/other", b"quick", &["-q", "1"]).await;
    let landed = world.messages.texts(2).await;
    assert_eq!(landed, ["slow n/slow 0", "other n/other quick"]);
    let publication =
        Publication { topic: "t", payload: Bytes::new(), confirmed: true, retain: false };
    timeout(PATIENCE, eventbus.publish(publication)).await.expect("it is confirmed").unwrap();
    world.messages.open.send_replace(true);
    until("what the broker keeps is not dropped", || {
        world.messages.all().iter().any(|message| message.body == "kept")
    })
    .await;
}

/// The connection is given up before memory is, with the reason; what was not acknowledged comes again.
#[tokio::test]
async fn a_broker_that_sends_too_much_is_left_for_a_while() {
    let world = World::with("up: eventbus topic=up -> rest resource=http://h/");
    let all = "allow_anonymous true\nmax_inflight_messages 0\nmax_queued_messages 0\n";
    let broker = Broker::with(all).await;
    let eventbus = broker.listened(&world).await;
    world.messages.open.send_replace(false);
    let lines: Vec<String> = (0..4500).map(|n| n.to_string()).collect();
    broker.publish_lines("n/up", &lines.join("\n"), "1").await;
    until("it is left", || {
        eventbus.state().reason.is_some_and(|why| why.contains("sends more than this node keeps"))
    })
    .await;
    world.messages.open.send_replace(true);
    let landed: Vec<_> =
        world.messages.wait_for(lines.len()).await.iter().map(|m| m.body.clone()).collect();
    assert!(landed == lines, "each once, in order");
    assert_eq!(world.rule("up").live.counts().1, 0);
}

/// It is not read whole, does not come again and again, and is told.
#[tokio::test]
async fn a_message_that_is_too_large_is_passed_over() {
    let world = World::with("up: eventbus topic=up -> rest resource=http://h/");
    let broker = Broker::start().await;
    let eventbus = broker.listened(&world).await;
    let (large, largest) = (vec![b'x'; 17 * 1024 * 1024], vec![b'y'; 16 * 1024 * 1024]);
    for (qos, failed) in [("0", 1), ("1", 2)] {
        broker.publish("n/up", &large, &["-q", qos]).await;
        until("it is counted", || world.rule("up").live.counts().1 == failed).await;
    }
    let trouble = world.rule("up").live.trouble().unwrap();
    assert_eq!(&*trouble.reason, "dropped: a packet of 17825800 bytes, and 16842752 are read");
    broker.publish("n/up", &largest, &["-q", "1"]).await;
    assert!(world.messages.wait_for(1).await[0].body == largest);
    broker.says("Received PUBACK from edgemesh-edge-1", 2).await;
    assert!(eventbus.state().connected && !broker.log().contains("(d1"));
}

/// They are refused by whoever sends them, who counts that and knows why; nobody loses them silently.
#[tokio::test]
async fn a_rule_that_cannot_be_served_takes_its_messages() {
    let world = World::with(
        "
        faulty: eventbus topic=a -> rest resource=nonsense
        waiting: eventbus topic=b -> nowhere path=/
        ",
    );
    let broker = Broker::start().await;
    broker.listened(&world).await;
    broker.publish("n/a", b"x", &["-q", "1"]).await;
    broker.publish("n/b", b"y", &["-q", "1"]).await;
    let mut texts = world.messages.texts(2).await;
    texts.sort_unstable();
    assert_eq!(texts, ["faulty n/a x", "waiting n/b y"]);
}

/// Told until the Rule is gone or the broker lets us, whatever is asked for in between.
#[tokio::test]
async fn what_the_broker_refuses_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::with(&only_readable(folder.path(), "n/ok")).await;
    let world = World::with(
        "
        ok: eventbus topic=ok -> rest resource=http://h/
        no: eventbus topic=no -> rest resource=http://h/
        ",
    );
    let eventbus = broker.client(&world);
    eventbus.follow(world.here());
    let told = |want: Option<&str>| {
        let state = eventbus.state();
        let reason = state.reason.as_deref().map(|why| why.rsplit(" read ").next().unwrap());
        state.connected && reason == want
    };
    until("one is refused", || told(Some("n/no"))).await;
    world.rules(
        "
        no: eventbus topic=no -> rest resource=http://h/
        never: eventbus topic=never -> rest resource=http://h/
        ",
    );
    until("two are", || told(Some("n/never, n/no"))).await;
    world.rules(
        "
        ok: eventbus topic=ok -> rest resource=http://h/
        never: eventbus topic=never -> rest resource=http://h/
        ",
    );
    until("one is gone", || told(Some("n/never"))).await;
    world.rules("ok: eventbus topic=ok -> rest resource=http://h/");
    until("all are", || told(None)).await;
    broker.publish("n/ok", b"x", &["-q", "1"]).await;
    assert_eq!(world.messages.texts(1).await, ["ok n/ok x"]);
}

/// Configuration by which everybody may publish, and subscribe to this only.
fn only_readable(folder: &Path, filter: &str) -> String {
    let rules = json!({
        "defaultACLAccess": {
            "publishClientSend": true, "publishClientReceive": true,
            "subscribe": false, "unsubscribe": true,
        },
        "anonymousGroup": "all",
        "groups": [{ "groupname": "all", "roles": [{ "rolename": "reads" }] }],
        "roles": [{ "rolename": "reads", "acls": [
            { "acltype": "subscribeLiteral", "topic": filter, "allow": true },
        ]}],
        "clients": [],
    });
    let file = folder.join("rules.json");
    std::fs::write(&file, rules.to_string()).unwrap();
    let folders = std::fs::read_dir("/usr/lib").unwrap().filter_map(Result::ok);
    let mut plugins = folders.map(|entry| entry.path().join("mosquitto_dynamic_security.so"));
    let plugin = plugins.find(|path| path.exists()).expect("mosquitto brings it");
    let (plugin, file) = (plugin.display(), file.display());
    format!("allow_anonymous true\nplugin {plugin}\nplugin_opt_config_file {file}\n")
}
