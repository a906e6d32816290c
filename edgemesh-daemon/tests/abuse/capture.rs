//! Capture under attack: a death in the middle of a change, and a rival that flushes the rules.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};

use crate::agent::Agent;
use crate::backend::Backend;
use crate::common::namespace::{in_namespace, replace, sh};
use crate::common::wait::{eventually, throughout, timed};
use crate::raw::Raw;
use crate::world::{ONE, World};

const AT: &str = "10.96.0.80:80";
/// Longest that connections may be captured and refused.
const BLACK_FOR: Duration = Duration::from_secs(3);

fn serves() -> bool {
    let Ok(mut stream) = TcpStream::connect_timeout(&AT.parse().unwrap(), BLACK_FOR) else {
        return false;
    };
    stream.set_read_timeout(Some(BLACK_FOR)).unwrap();
    let mut head = [0; 12];
    stream.write_all(b"GET / HTTP/1.1\r\nHost: one.default\r\n\r\n").is_ok()
        && stream.read_exact(&mut head).is_ok()
        && head == *b"HTTP/1.1 200"
}

/// Whether new connections from here are sent to the proxy.
fn captured() -> bool {
    !sh("iptables -w 5 -t nat -S OUTPUT | grep -i edgemesh || :").is_empty()
}

/// Waits for service; fails where connections are captured for nobody for too long meanwhile.
fn recovers(what: &str) {
    let mut black = Duration::ZERO;
    eventually(what, Duration::from_secs(20), || {
        let (state, took) = timed(|| (captured(), serves()));
        // One connection that waits for so long is a hole by itself, captured or not.
        black = match state {
            (true, false) => black + took.max(Duration::from_millis(10)),
            (_, _) => took,
        };
        assert!(black < BLACK_FOR, "{what}: a black hole for {black:?}");
        state.1.then_some(())
    });
}

#[test]
fn deaths_in_the_middle_of_a_change() {
    in_namespace("capture::deaths_in_the_middle_of_a_change", || {
        let world = World::new();
        let _one = Backend::start("", "one", ONE, 8080);
        world.service("one", &["10.96.0.80"], &[":80:8080"], &[ONE]);
        // Slow enough to be met at work, at whichever of its steps.
        for program in ["iptables", "iptables-restore"] {
            replace(
                program,
                "[ -e /run/slow ] && { touch /run/at-work; sleep 0.4; }\nexec $REAL \"$@\"",
            );
        }
        let mut agent = Agent::start(&world);
        assert!(serves());
        // The guard gives up after five in a minute.
        for round in 0..5_u8 {
            sh("rm -f /run/at-work; touch /run/slow");
            world.service("more", &[&format!("10.{}.0.1", 97 + round)], &[":80:8080"], &[ONE]);
            eventually("the rules are being written", Duration::from_secs(10), || {
                std::fs::exists("/run/at-work").unwrap().then_some(())
            });
            throughout(Duration::from_millis(97 * u64::from(round)), || true);
            kill(agent.worker(), Signal::SIGKILL).unwrap();
            sh("rm /run/slow");
            recovers(&format!("round {round}"));
        }
        // In the last round nobody comes back: nothing may be captured, now or later.
        sh("rm -f /run/at-work; touch /run/slow");
        world.service("more", &["10.110.0.1"], &[":80:8080"], &[ONE]);
        eventually("the rules are being written", Duration::from_secs(10), || {
            std::fs::exists("/run/at-work").unwrap().then_some(())
        });
        kill(agent.worker(), Signal::SIGKILL).unwrap();
        sh("rm /run/slow");
        agent.wait();
        let clean = || !captured() && !sh("iptables-save -t nat").contains("EDGEMESH");
        assert!(throughout(Duration::from_secs(1), clean), "{}", sh("iptables-save -t nat"));
    });
}

#[test]
fn flushed_rules_are_put_back() {
    in_namespace("capture::flushed_rules_are_put_back", || {
        let world = World::new();
        let _one = Backend::start("", "one", ONE, 8080);
        world.service("one", &["10.96.0.80"], &[":80:8080"], &[ONE]);
        let agent = Agent::start(&world);
        let mut kept = Raw::connect("pod", AT);
        assert_eq!(kept.get("/").body, "one");
        sh("iptables -t nat -F; iptables -t nat -X || :");
        let ((), took) = timed(|| {
            eventually("healed", Duration::from_secs(15), || {
                assert_eq!(kept.get("/").body, "one", "what is established goes on");
                (captured() && serves()).then_some(())
            });
        });
        eprintln!("healed after {took:?}");
        assert_eq!(Raw::connect("pod", AT).get("/").body, "one");
        drop(agent);
    });
}
