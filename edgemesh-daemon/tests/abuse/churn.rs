//! Records that change all the time under load: no call fails, and live state outlives them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use crate::agent::Agent;
use crate::backend::Backend;
use crate::common::namespace::in_namespace;
use crate::common::wait::{throughout, timed};
use crate::raw::Raw;
use crate::times;
use crate::world::{ONE, TWO, World};

/// 50 changes a second.
const BETWEEN: Duration = Duration::from_millis(20);
const BURST: usize = 5;

/// Calls until told to stop: statuses other than 200, and how many calls there were.
fn load(at: &'static str, stop: &Arc<AtomicBool>) -> std::thread::JoinHandle<(Vec<u16>, usize)> {
    let stop = stop.clone();
    std::thread::spawn(move || {
        let (mut bad, mut count) = (Vec::new(), 0);
        let mut kept = Raw::connect("", at);
        while !stop.load(SeqCst) {
            for status in [kept.get("/").status, Raw::connect("", at).get("/").status] {
                count += 1;
                if status != 200 {
                    bad.push(status);
                }
            }
            throughout(Duration::from_millis(1), || true);
        }
        (bad, count)
    })
}

#[test]
fn churn_disturbs_no_call() {
    in_namespace("churn::churn_disturbs_no_call", || {
        let world = World::new();
        let _one = Backend::start("", "one", ONE, 8080);
        let _two = Backend::start("", "two", TWO, 8080);
        let _good = Backend::start("", "good", ONE, 8081);
        let sick = Backend::start("", "sick", TWO, 8081);
        sick.ill.store(true, SeqCst);
        world.service("one", &["10.96.0.80"], &[":80:8080"], &[ONE, TWO]);
        world.service("sick", &["10.96.0.81"], &[":80:8081"], &[ONE, TWO]);
        let breaker = "circuitBreaker: { consecutiveFailures: 3, ejectFor: 5m }";
        world.policy("sick", &format!("  {breaker}"));
        world.service("limited", &["10.96.0.82"], &[":80:8080"], &[ONE]);
        let limit = format!("rateLimit: {{ client: {{ qps: 1, burst: {BURST} }} }}");
        world.policy("limited", &format!("  {limit}"));
        let agent = Agent::start(&world);
        let mut raw = Raw::connect("", "10.96.0.81:80");
        for _ in 0..20 {
            raw.get("/");
        }
        assert_eq!(agent.get("/v1/status")["ejected"], 1);
        let asked = sick.counts().1;
        let stop = Arc::new(AtomicBool::new(false));
        let loads = [load("10.96.0.80:80", &stop), load("10.96.0.81:80", &stop)];
        let limited = {
            let stop = stop.clone();
            std::thread::spawn(move || {
                let mut raw = Raw::connect("", "10.96.0.82:80");
                let mut served = 0;
                while !stop.load(SeqCst) {
                    served += usize::from(raw.get("/").status == 200);
                    throughout(Duration::from_millis(5), || true);
                }
                served
            })
        };
        let changes = 150 * times().min(4);
        let ((), took) = timed(|| {
            for number in 0..changes {
                let more = format!("  timeouts: {{ request: {}s }}", 20 + number % 7);
                match number % 5 {
                    0 => world.service(
                        "one",
                        &["10.96.0.80"],
                        &[":80:8080"],
                        &[ONE, TWO][..1 + number / 5 % 2],
                    ),
                    1 => world.policy("sick", &format!("  {breaker}\n{more}")),
                    2 => world.policy("limited", &format!("  {limit}\n{more}")),
                    3 => world.service(
                        "other",
                        &[&format!("10.96.3.{}", number % 250)],
                        &[":80:8080"],
                        &[ONE],
                    ),
                    _ => world.remove_manifest("other"),
                }
                throughout(BETWEEN, || true);
            }
        });
        stop.store(true, SeqCst);
        for load in loads {
            let (bad, count) = load.join().unwrap();
            eprintln!("{count} calls in {took:?}, {} failed", bad.len());
            assert!(
                bad.is_empty() && count > 100,
                "{} of {count}: {:?}",
                bad.len(),
                &bad[..bad.len().min(5)]
            );
        }
        assert_eq!(sick.counts().1, asked, "the ejected backend is left alone");
        let served = limited.join().unwrap();
        let most = BURST + took.as_secs() as usize + 2;
        eprintln!("limited: {served} of at most {most}");
        assert!(served <= most, "{served} calls in {took:?}");
    });
}
