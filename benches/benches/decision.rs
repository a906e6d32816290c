//! Benches of the decision: plan, limits, and the Snapshots that they read.

use std::hint::black_box;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use edgemesh_benches::{PORT, address, route, slice, world};
use edgemesh_core::limit::{Caller, Limiter};
use edgemesh_core::plan::{Arrival, Destination, Head, Outcome, Purpose, Target, explain, plan};
use edgemesh_core::snapshot::{Builder, Change, Snapshot};
use edgemesh_proto::record::{BalancePolicy, Body, LimitBy, NodeName, RateLimit};
use http::Request;

const SERVICES: u32 = 10_000;
const BACKENDS: u32 = 8;

/// One token a nanosecond: never spent, and not so much that governor counts nothing.
const BILLION: NonZeroU32 = NonZeroU32::MIN.saturating_add(999_999_999);

/// A step that visits every Service and is too long for the processor to foresee.
const STRIDE: u32 = 7919;

/// What a call takes, where time goes on.
const TICK: Duration = Duration::from_micros(50);

fn plans(c: &mut Criterion) {
    let now = start();
    let mut group = c.benchmark_group("plan, 10,000 Services, 8 Backends");
    for (name, balance) in [
        ("roundRobin", BalancePolicy::RoundRobin),
        ("leastRequest", BalancePolicy::LeastRequest),
        ("peakEwma", BalancePolicy::PeakEwma),
        ("consistentHash", BalancePolicy::ConsistentHash),
    ] {
        let snapshot = snapshot(balance, now);
        group.bench_function(format!("{name}, one Service"), |b| {
            b.iter(|| decide(&snapshot, black_box(4711), now));
        });
        group.bench_function(format!("{name}, a different Service each time"), |b| {
            let mut index = 0;
            b.iter(|| {
                index = (index + STRIDE) % SERVICES;
                decide(&snapshot, black_box(index), now);
            });
        });
    }
    let snapshot = snapshot(BalancePolicy::RoundRobin, now);
    group.bench_function("by name, one Service", |b| {
        let host = black_box("service-04711.team-047.svc.cluster.local");
        let to = Target::Name { host, port: Some(PORT), domain: "cluster.local" };
        let call = Destination::new(to, Arrival::Proxy, Purpose::Call);
        b.iter(|| {
            plan(&snapshot, &call, now).expect("it is there").finish(Outcome::Good, now);
        });
    });
    let routed = routed(now);
    for (name, path) in [("first", "/rule-0/x"), ("last", "/other")] {
        let request = Request::get(path).body(()).expect("a request");
        group.bench_function(format!("a Route of 16 rules, the {name} fits"), |b| {
            let call = Destination {
                request: Some(Head::of(black_box(&request))),
                ..destination(black_box(4711))
            };
            b.iter(|| {
                plan(&routed, &call, now).expect("it is there").finish(Outcome::Good, now);
            });
        });
    }
    group.bench_function("explain, one Service", |b| {
        b.iter(|| explain(&snapshot, &destination(black_box(4711)), now));
    });
    group.finish();
}

/// One Service of a hundred Backends, alike and weighted; time goes on, so that averages decay.
fn hundreds(c: &mut Criterion) {
    let mut group = c.benchmark_group("plan, 100 Backends");
    for (name, balance) in [
        ("roundRobin", BalancePolicy::RoundRobin),
        ("leastRequest", BalancePolicy::LeastRequest),
        ("peakEwma", BalancePolicy::PeakEwma),
        ("consistentHash", BalancePolicy::ConsistentHash),
    ] {
        for (weighted, more) in [(false, ""), (true, ", weighted")] {
            let mut now = start();
            let mut world = world(1, 100, balance);
            if weighted {
                weigh(&mut world);
            }
            let snapshot = builder().apply(world, now);
            let mut caller = 0;
            group.bench_function(format!("{name}{more}"), |b| {
                b.iter(|| {
                    caller += 1;
                    let call = Destination { caller: Some(address(caller)), ..destination(0) };
                    let hop = plan(&snapshot, &call, now).expect("it is there");
                    now += TICK;
                    hop.finish(Outcome::Good, now);
                });
            });
        }
    }
    // A Backend with more calls than go unlooked at: the bound is counted over all.
    let now = start();
    let snapshot = builder().apply(world(1, 100, BalancePolicy::ConsistentHash), now);
    let call = Destination { caller: Some(address(1)), ..destination(0) };
    let open: Vec<_> = (0..50).map(|_| plan(&snapshot, &call, now)).collect();
    group.bench_function("consistentHash, one key overloaded", |b| {
        b.iter(|| plan(&snapshot, &call, now).expect("it is there").finish(Outcome::Good, now));
    });
    drop(open);
    group.finish();
}

fn weigh(world: &mut Change) {
    for record in &mut world.put {
        if let Body::Slice(slice) = &mut record.body {
            for (backend, weight) in slice.backends.iter_mut().zip(1..) {
                backend.weight = Some(weight);
            }
        }
    }
}

fn limits(c: &mut Criterion) {
    let now = start();
    let most = RateLimit { qps: BILLION, burst: NonZeroU32::MAX, by: LimitBy::Service };
    let least = RateLimit { qps: NonZeroU32::MIN, burst: NonZeroU32::MIN, ..most };
    let mut group = c.benchmark_group("limiter take");
    for (name, limit) in [("granted", most), ("refused", least)] {
        let limiter = Limiter::new(limit, now);
        group.bench_function(name, |b| b.iter(|| limiter.take(&Caller::Everyone, black_box(now))));
    }
    group.finish();
}

fn snapshots(c: &mut Criterion) {
    let now = start();
    let mut group = c.benchmark_group("snapshot of 10,000 Services");
    group.sample_size(20);
    group.bench_function("built from nothing", |b| {
        let all = world(SERVICES, BACKENDS, BalancePolicy::RoundRobin);
        let fresh = || (builder(), all.clone());
        b.iter_batched(
            fresh,
            |(mut builder, all)| (builder.apply(all, now), builder),
            BatchSize::PerIteration,
        );
    });
    let mut builder = builder();
    let mut current = builder.apply(world(SERVICES, BACKENDS, BalancePolicy::RoundRobin), now);
    let mut revision = 1;
    group.bench_function("one Slice changed", |b| {
        b.iter_batched(
            || {
                revision += 1;
                let index = (revision as u32 * STRIDE) % SERVICES;
                // One Backend comes or goes each time.
                let put = vec![slice(index, BACKENDS - (revision as u32 % 2))];
                Change { revision, put, ..Change::default() }
            },
            |change| current = builder.apply(change, now),
            BatchSize::PerIteration,
        );
    });
    drop(current);
    group.finish();
}

fn decide(snapshot: &Snapshot, index: u32, now: Instant) {
    plan(snapshot, &destination(index), now).expect("it is there").finish(Outcome::Good, now);
}

fn destination(index: u32) -> Destination<'static> {
    let to = Target::Address((address(index), PORT).into());
    let caller = Some(address(9));
    Destination { caller, ..Destination::new(to, Arrival::Captured, Purpose::Call) }
}

fn snapshot(balance: BalancePolicy, now: Instant) -> Arc<Snapshot> {
    builder().apply(world(SERVICES, BACKENDS, balance), now)
}

/// As [`snapshot`], and one Service has a Route of 16 rules, each split in two.
fn routed(now: Instant) -> Arc<Snapshot> {
    let mut all = world(SERVICES, BACKENDS, BalancePolicy::RoundRobin);
    all.put.push(route(4711, 16));
    builder().apply(all, now)
}

fn builder() -> Builder {
    Builder::new(NodeName("edge-9".into()), None)
}

#[expect(clippy::disallowed_methods, reason = "any Instant will do as the start of time")]
fn start() -> Instant {
    Instant::now()
}

criterion_group!(benches, plans, hundreds, limits, snapshots);
criterion_main!(benches);
