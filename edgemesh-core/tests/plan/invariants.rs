//! The invariants of docs/ARCHITECTURE.md that live in the decision layers, each by its number.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

use edgemesh_core::plan::{Arrival, Destination, Outcome, Purpose, Target, plan};
use edgemesh_core::snapshot::{Builder, Change, Snapshot, Spot};
use edgemesh_proto::record::{Delta, NodeName, Put, Record};
use parking_lot::Mutex;

use crate::grammar::{self, Words};
use crate::world::{HERE, World};

fn web(purpose: Purpose<'_>) -> Destination<'_> {
    let to = Target::Address(([10, 96, 0, 1], 80).into());
    Destination::new(to, Arrival::Captured, purpose)
}

/// Threads that decide at once neither wait for each other nor lose a turn: each Backend gets its
/// exact share. (That the decision layers name no clock, no lock across Services and nothing that
/// waits is in `tidy.rs`, under the same number.)
#[test]
fn invariant_1_plan_never_waits() {
    const THREADS: u64 = 4;
    const CALLS: u64 = 999;
    let mut world = World::default();
    world.run(
        "service default/web 10.96.0.1 80
         policy default/web for=web breaker=1,1s,1s,100 client=1000000/1000000
         slice default/web-1 for=web ports=80 10.1.0.1 10.1.0.2 10.1.0.3",
    );
    let (now, snapshot) = (world.now(), world.snapshot().clone());
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for _ in 0..CALLS {
                    plan(&snapshot, &web(Purpose::Call), now).unwrap().finish(Outcome::Good, now);
                }
            });
        }
    });
    for backend in &snapshot.services()[0].ports[0].pools[0].backends {
        assert_eq!(backend.live.requests.load(Relaxed), THREADS * CALLS / 3);
        assert_eq!(backend.live.in_flight.load(Relaxed), 0);
    }
}

/// While the writer publishes, each decision is wholly of the revision that it was given: the
/// Backend's port says which one that was.
#[test]
fn invariant_4_one_plan_reads_one_revision() {
    const REVISIONS: u16 = 300;
    let mut builder = Builder::new(NodeName(HERE.into()), None);
    let now = World::default().now();
    let mut at = |revision: u16| {
        let service = read("service default/web 10.96.0.1 80");
        let slice =
            read(&format!("slice default/web-1 for=web ports={} 10.1.0.1", 1000 + revision));
        let put = vec![service, slice];
        builder.apply(Change { revision: revision.into(), put, ..Change::default() }, now)
    };
    let live = Mutex::new(at(0));
    let done = AtomicBool::new(false);
    let of_its_revision = |snapshot: &Snapshot| {
        let hop = plan(snapshot, &web(Purpose::Call), now).unwrap();
        assert_eq!(u64::from(hop.address().port()), 1000 + snapshot.revision);
    };
    let first: Arc<Snapshot> = live.lock().clone();
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Relaxed) {
                let snapshot = live.lock().clone();
                of_its_revision(&snapshot);
            }
        });
        for revision in 1..=REVISIONS {
            *live.lock() = at(revision);
        }
        done.store(true, Relaxed);
    });
    // Who still holds the first one still gets the first one's answers.
    of_its_revision(&first);
    of_its_revision(&live.lock());
}

#[test]
fn invariant_5_a_bad_record_harms_only_itself() {
    let good = [
        read("service default/web 10.96.0.1 80"),
        read("slice default/web-1 for=web ports=80 10.1.0.1"),
    ];
    let mut put: Vec<_> = good.iter().map(Put::from).collect();
    let mut bad = Put::from(&read("slice default/web-2 for=web ports=80 10.1.0.2"));
    bad.body = bad.body.slice(..bad.body.len() - 1);
    put.insert(1, bad);
    let sent = Delta { to: 1, put, ..Delta::default() };
    let (delta, bad_keys) = Delta::decode(sent.encode().into()).expect("the delta itself is whole");
    assert_eq!(bad_keys, []);
    let (records, refused): (Vec<_>, Vec<_>) =
        delta.put.iter().map(Put::record).partition(Result::is_ok);
    let refused: Vec<_> = refused.into_iter().filter_map(Result::err).collect();
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0].field, "body", "an operator sees where: {}", refused[0]);

    let put = records.into_iter().flatten().collect();
    let mut builder = Builder::new(NodeName(HERE.into()), None);
    let now = World::default().now();
    let snapshot = builder.apply(Change { put, ..Change::default() }, now);
    let hop = plan(&snapshot, &web(Purpose::Call), now).unwrap();
    assert_eq!(hop.address(), ([10, 1, 0, 1], 80).into());
}

/// What `get backends` shows: a raced dial counts from the moment that it is a connection.
#[test]
fn calls_are_counted_once() {
    let mut world = World::default();
    world.run(
        "service default/db 10.96.0.1 80
         slice default/db-1 for=db ports=80 10.1.0.1",
    );
    let snapshot = world.snapshot().clone();
    let live = &snapshot.services()[0].ports[0].pools[0].backends[0].live;
    for (lines, requests, failures, in_flight) in [
        ("call 10.96.0.1:80 -> ?", 1, 0, 0),
        ("fail 10.96.0.1:80 -> ?", 2, 1, 0),
        ("race r 10.96.0.1:80 -> ?", 2, 1, 1),
        ("confirm r -> ok", 3, 1, 1),
        ("confirm r -> ok", 3, 1, 1),
        ("close r bad", 3, 2, 0),
        ("race s 10.96.0.1:80 -> ?\nclose s bad", 3, 2, 0),
    ] {
        world.run(lines);
        let counts = [live.requests.load(Relaxed), live.failures.load(Relaxed)];
        assert_eq!(counts, [requests, failures], "{lines}");
        assert_eq!(live.in_flight.load(Relaxed), in_flight, "{lines}");
    }
}

/// The client's side once a call, the server's side once an attempt, neither for a race: counted
/// by what is left of a burst when attempts are drawn up in every order.
#[test]
fn invariant_9_tokens_are_taken_once() {
    const BURST: usize = 5;
    let tried = [Spot::here(([10, 1, 0, 9], 80).into())];
    for pattern in 0..1 << BURST {
        let mut world = World::default();
        world.run(&format!(
            "service default/web 10.96.0.1 80
             policy default/web for=web client=1/{BURST} server=1/{BURST}
             slice default/web-1 for=web ports=80 10.1.0.1"
        ));
        let (now, snapshot) = (world.now(), world.snapshot().clone());
        let mut calls = 0;
        for attempt in 0..BURST {
            let race = plan(&snapshot, &web(Purpose::Race(&[])), now);
            drop(race.expect("a race takes nothing"));
            let call = attempt == 0 || pattern >> attempt & 1 == 0;
            calls += usize::from(call);
            let purpose = if call { Purpose::Call } else { Purpose::Retry(&tried) };
            let hop = plan(&snapshot, &web(purpose), now).expect("the bursts allow so many");
            hop.finish(Outcome::Good, now);
        }
        let policy = &snapshot.services()[0].policy;
        let left = |limiter: &Option<Arc<edgemesh_core::limit::Limiter>>| {
            let limiter = limiter.as_ref().expect("the policy has it");
            (0..=BURST)
                .take_while(|_| limiter.take(&edgemesh_core::limit::Caller::Everyone, now).is_ok())
                .count()
        };
        assert_eq!(left(&policy.server), 0, "one an attempt");
        assert_eq!(left(&policy.client), BURST - calls, "one a call");
    }
}

fn read(line: &str) -> Record {
    let mut words = Words(line.split_whitespace().collect());
    let verb = words.next("a verb").expect("a line has words");
    grammar::record(verb, words).unwrap_or_else(|wrong| panic!("{line}: {wrong}"))
}
