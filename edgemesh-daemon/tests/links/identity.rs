//! Who may join, who is who, and who no longer belongs: each told at both ends, nobody else harmed.

use serde_json::Value;

use crate::PATIENCE;
use crate::backend::Backend;
use crate::common::namespace::{in_namespace, sh};
use crate::common::run::{need, run};
use crate::common::wait::{eventually, throughout};
use crate::load::Load;
use crate::nodes::{
    EDGEMESH, Node, agent, agent_alone, agent_behind, agent_config, cloud, cloud_again,
    cloud_behind, cloud_config, token,
};
use crate::raw::{End, Raw};
use crate::world::{A1, A2, B1, B2, CLOUD, World};

/// Why a node cannot join: what is in its token file, what it is called, and what both ends say.
struct Row {
    what: &'static str,
    token: fn(&World) -> String,
    node: &'static str,
    node_says: &'static str,
    cloud_says: &'static str,
    /// The hub that the token names is there, or there is no token at all.
    is_reached: bool,
}

const ROWS: &[Row] = &[
    Row {
        what: "a token of another cloud",
        token: |world| {
            let other = world.path("other").display().to_string();
            let config =
                cloud_config(world).replace(&world.path("cloud").display().to_string(), &other);
            let file = world.write("other.yaml", &config);
            let made =
                run(CLOUD.name, &format!("{EDGEMESH} token create --config {}", file.display()));
            made.out.trim().to_owned()
        },
        node: "b2",
        node_says: "the token is for another cloud",
        cloud_says: "the token is for another one",
        is_reached: false,
    },
    Row {
        what: "a token that has expired",
        token: |world| {
            let token = token(world, "--ttl 1s");
            throughout(std::time::Duration::from_secs(2), || true);
            token
        },
        node: "b2",
        node_says: "the join token expired",
        cloud_says: "the join token expired",
        is_reached: true,
    },
    Row {
        what: "a token for another node",
        token: |world| token(world, "--node b9"),
        node: "b2",
        node_says: "the join token is for node b9 only",
        cloud_says: "the join token is for node b9 only",
        is_reached: true,
    },
    Row {
        what: "a name that another machine has",
        token: |world| token(world, ""),
        node: "a1",
        node_says: "another machine is node a1 already",
        cloud_says: "another machine is node a1 already",
        is_reached: true,
    },
    Row {
        what: "what is no token",
        token: |_| "edgemesh".into(),
        node: "b2",
        node_says: "cannot use the join token in",
        cloud_says: "",
        is_reached: true,
    },
];

/// Two nodes that call each other all the time.
fn unharmed(world: &World) -> (Node, Node, Node, Load) {
    for (at, ip) in [(A1, "10.96.0.1"), (A2, "10.96.0.2"), (B1, "10.96.0.3")] {
        Backend::start(at.name, at.name, [at.ip, "::1"], 8080);
        world.service(&format!("at-{}", at.name), ip, "web:80:8080", &[at]);
    }
    let cloud = cloud(world);
    let (a1, a2) = (agent(world, A1), agent(world, A2));
    let load = Load::start(&[("a1", "10.96.0.2:80"), ("a2", "10.96.0.1:80")]);
    (cloud, a1, a2, load)
}

#[track_caller]
fn nobody_was_harmed(load: Load) {
    let (calls, failed) = load.stop();
    assert!(calls > 0 && failed.is_empty(), "{} of {calls}: {failed:#?}", failed.len());
}

/// Waits until `node` says that, of its Link to the cloud.
#[track_caller]
fn says(node: &Node, words: &str) -> Value {
    let mut last = Value::Null;
    let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        eventually(words, PATIENCE, || {
            last = node.try_get("/v1/status")?["links"]["cloud"].clone();
            last["lastError"].as_str().is_some_and(|said| said.contains(words)).then_some(())
        });
    }));
    assert!(told.is_ok(), "wanted `{words}`: {last:#}");
    last
}

#[test]
fn who_may_not_join_is_told_why() {
    in_namespace("identity::who_may_not_join_is_told_why", || {
        let world = World::new();
        let (cloud, _a1, _a2, load) = unharmed(&world);
        for (number, row) in ROWS.iter().enumerate() {
            let before = cloud.log().len();
            let tokens = format!("token-{number}");
            world.write(&tokens, &(row.token)(&world));
            let config = agent_config(&world, B2)
                .replace("node: b2", &format!("node: {}", row.node))
                .replace("/token }", &format!("/{tokens} }}"))
                .replace("/b2\n", &format!("/b2-{number}\n"));
            let node = agent_alone(&world, B2, &config);
            let said = says(&node, row.node_says);
            // Where trying again changes nothing, `status` says that somebody has to act.
            let state = if row.is_reached { "refused" } else { "away" };
            assert_eq!(said["state"], state, "{}: {said:#}", row.what);
            eventually(&format!("the cloud says: {}", row.what), PATIENCE, || {
                cloud.log()[before..].contains(row.cloud_says).then_some(())
            });
        }
        nobody_was_harmed(load);
    });
}

/// A disk that was copied: the second one is refused while the first is there.
#[test]
fn two_agents_of_one_name() {
    in_namespace("identity::two_agents_of_one_name", || {
        let world = World::new();
        let (cloud, a1, _a2, load) = unharmed(&world);
        let folder = world.folder().display();
        sh(&format!("cp -a {folder}/a1 {folder}/twin"));
        let config = agent_config(&world, A1).replace("/a1\n", "/twin\n");
        let twin = agent_alone(&world, B2, &config);
        let said = says(&twin, "duplicateNode");
        assert_eq!(said["state"], "refused", "{said:#}");
        assert!(cloud.log().contains("duplicateNode"), "{}", cloud.log());
        assert_eq!(a1.get("/v1/status")["links"]["cloud"]["state"], "linked");
        nobody_was_harmed(load);
        // When the first is gone, the second may come.
        a1.kill();
        twin.wait_linked();
    });
}

#[test]
fn a_node_that_is_removed() {
    in_namespace("identity::a_node_that_is_removed", || {
        let world = World::new();
        let (cloud, a1, _a2, load) = unharmed(&world);
        let b1 = agent(&world, B1);
        let reaches = |expected: &'static str| {
            eventually(&format!("b1's call: {expected}"), PATIENCE, || {
                let ran = b1.sh("curl -sS -m 5 -o /dev/null -w '%{http_code}' http://10.96.0.1/");
                (ran.out == expected).then_some(())
            });
        };
        reaches("200");
        let upgraded = || {
            let mut raw = Raw::connect("b1", "10.96.0.1:80");
            raw.send(b"GET /upgrade HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
            let head = crate::backend::read_head(&mut raw.reader).expect("an answer");
            assert!(head.starts_with("HTTP/1.1 101"), "{head}");
            raw
        };
        let mut talks = upgraded();
        talks.send(b"\x81\x02hi");
        talks.expect(b"\x81\x02hi");
        let file = world.path("cloud.yaml");
        let ran =
            run(CLOUD.name, &format!("{EDGEMESH} node remove b1 --config {}", file.display()));
        assert_eq!(ran.code, Some(0), "{ran:?}");
        let other =
            run(CLOUD.name, &format!("{EDGEMESH} node remove b11 --config {}", file.display()));
        assert!(other.code == Some(1) && other.err.contains("node b11 is unknown"), "{other:?}");
        let said = says(&b1, "removed");
        assert_eq!(said["state"], "refused", "{said:#}");
        assert!(cloud.log().contains("removed"), "{}", cloud.log());
        // The peers hear of it too, and end what stood.
        reaches("503");
        assert!(a1.log().contains("removed"), "{}", a1.log());
        assert_eq!(talks.rest(), (String::new(), End::Reset));
        world.write("token", &token(&world, ""));
        b1.wait_linked();
        reaches("200");
        nobody_was_harmed(load);
    });
}

/// The first of the addresses is dead; the second is the cloud.
#[test]
fn a_dead_first_server() {
    in_namespace("identity::a_dead_first_server", || {
        let world = World::new();
        world.service("hello", "10.96.0.1", "web:80:8080", &[A1]);
        let _cloud = cloud(&world);
        let config = agent_config(&world, A1)
            .replace("[\"10.90.0.2:10000\"]", "[\"10.90.0.77:10000\", \"10.90.0.2:10000\"]");
        let mut a1 = agent_alone(&world, A1, &config);
        a1.wait_ready();
        a1.wait_linked();
        assert_eq!(a1.get("/v1/status")["links"]["cloud"]["server"], "10.90.0.2:10000");
    });
}

/// What makes a program believe that it is earlier by so many seconds.
const CLOCK: &str = r#"
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
int clock_gettime(clockid_t id, struct timespec *t) {
  int failed = syscall(SYS_clock_gettime, id, t);
  if (!failed && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) t->tv_sec -= BEGAN;
  return failed;
}
int gettimeofday(struct timeval *t, void *zone) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  t->tv_sec = now.tv_sec; t->tv_usec = now.tv_nsec / 1000;
  return 0;
}
time_t time(time_t *t) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (t) *t = now.tv_sec;
  return now.tv_sec;
}
"#;

/// For the environment of a program whose clock is to be behind by `seconds`.
fn clock_behind(world: &World, name: &str, seconds: &str) -> String {
    let folder = world.folder().display();
    world.write("clock.c", CLOCK);
    sh(&format!("cc -shared -fPIC -DBEGAN={seconds}L -o {folder}/{name}.so {folder}/clock.c"));
    format!("LD_PRELOAD={folder}/{name}.so")
}

/// Two nodes were cut off for longer than their certificates last, and one of them has no clock any
/// more: the hub lets them renew, and then everything else.
#[test]
fn a_certificate_that_expired() {
    in_namespace("identity::a_certificate_that_expired", || {
        need(&["cc"]);
        let world = World::new();
        world.service("hello", "10.96.0.1", "web:80:8080", &[A1]);
        let before = clock_behind(&world, "before", "$((40 * 86400))");
        let before = ["env", before.as_str()];
        let cloud = cloud_behind(&world, &before, &cloud_config(&world));
        world.write("token", &token(&world, ""));
        for at in [A1, A2] {
            let node = agent_behind(&world, at, &before, &agent_config(&world, at));
            node.wait_linked();
            node.kill();
        }
        cloud.kill();
        world.write("token", ""); // what is given now is given to who had a certificate
        let cloud = cloud_again(&world);
        let battery_died = clock_behind(&world, "1970", "$(date +%s)");
        for (at, wrapper) in [(A1, &[][..]), (A2, &["env", &battery_died])] {
            let node = agent_behind(&world, at, wrapper, &agent_config(&world, at));
            node.wait_linked();
            assert!(node.log().contains("a new certificate"), "{}", node.log());
        }
        assert!(cloud.log().contains("expired 240 h ago"), "{}", cloud.log());
    });
}

/// A board without a battery: it joins, and is linked again after a reboot.
#[test]
fn a_clock_that_says_1970() {
    in_namespace("identity::a_clock_that_says_1970", || {
        need(&["cc"]);
        let world = World::new();
        let preload = clock_behind(&world, "1970", "$(date +%s)");
        let (_cloud, a1, _a2, load) = unharmed(&world);
        let wrapper = ["env", preload.as_str()];
        let started = run("", &format!("{preload} date +%Y"));
        assert_eq!(started.out, "1970\n");
        for what in ["joins", "reboots"] {
            let mut b1 = agent_behind(&world, B1, &wrapper, &agent_config(&world, B1));
            b1.wait_ready();
            b1.wait_linked();
            for (from, to, name) in [(&a1, "10.96.0.3", "b1"), (&b1, "10.96.0.1", "a1")] {
                eventually(&format!("it {what}: a direct Link to {name}"), PATIENCE, || {
                    let before = from.access().len();
                    assert_eq!(from.sh(&format!("curl -sS -m 5 http://{to}/")).out, name);
                    let line = &from.lines("the call", before, 1, |line| {
                        line["service"] == format!("default/at-{name}")
                            && line.get("from").is_none()
                    })[0];
                    (line["via"] == "direct").then_some(())
                });
            }
            assert!(b1.log().contains("1970-"), "{}", b1.log());
            b1.kill();
        }
        nobody_was_harmed(load);
    });
}
