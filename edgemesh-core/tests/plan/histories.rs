//! Laws over random topologies and random histories of calls, in the words of the plan tables.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use crate::world::World;

/// Services of the random worlds.
const SERVICES: u8 = 3;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// `World` explains a hundred times before each decision: nothing may change by that, and the
    /// decision that follows is the one foretold.
    #[test]
    fn explains_change_nothing_and_foretell(
        topology in topology(),
        history in vec(prop_oneof![9 => action(), 1 => change()], 1..30),
    ) {
        let mut world = World::default();
        for line in topology.iter().chain(&history) {
            run(&mut world, line)?;
        }
    }

    /// The same calls with and without changes between them that do not concern them.
    #[test]
    fn invariant_12_live_state_survives_a_swap(
        topology in topology(),
        history in vec((action(), vec(bystander(), 0..3)), 1..40),
    ) {
        let (mut still, mut moving) = (World::default(), World::default());
        for line in &topology {
            run(&mut still, line)?;
            run(&mut moving, line)?;
        }
        for (action, bystanders) in &history {
            // The records of the calls' own Services are put again too, unchanged.
            for line in bystanders.iter().chain(topology.iter().take(4 * bystanders.len())) {
                run(&mut moving, line)?;
            }
            run(&mut still, action)?;
            run(&mut moving, action)?;
        }
        prop_assert_eq!(&still.log, &moving.log);
    }
}

fn run(world: &mut World, line: &str) -> Result<(), TestCaseError> {
    match world.line(line) {
        // Whether a call went on is not known when its end is drawn.
        Err(wrong) if wrong != "nothing of that name" => {
            Err(TestCaseError::fail(format!("{line}: {wrong}")))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Every Service with its Slice and perhaps a Policy.
fn topology() -> impl Strategy<Value = Vec<String>> {
    let of_service = |i| {
        let affinity = select(vec!["", "", " affinity=1s"]);
        let service = affinity
            .prop_map(move |more| format!("service default/s{i} 10.96.0.{i},fd00::{i} 80{more}"));
        (service, slice(i), option::weighted(0.8, policy(i)))
    };
    let all: Vec<_> = (1..=SERVICES).map(of_service).collect();
    all.prop_map(|rows| {
        let zones = ["node edge-1 zone=a", "node edge-2 zone=a agent", "node cloud-1 viaCloud"];
        let zones = zones.map(str::to_owned);
        let records =
            rows.into_iter().flat_map(|(s, slice, policy)| [s, slice].into_iter().chain(policy));
        zones.into_iter().chain(records).collect()
    })
}

fn slice(i: u8) -> impl Strategy<Value = String> {
    let backend = (
        select(vec!["10.1.0.", "fd01::"]),
        1..6u8,
        select(vec!["", "@edge-1", "@edge-2", "@edge-2", "@cloud-1", "@edge-3/a"]),
        select(vec!["", "", "", "*0", "*3", "*7", "!notReady", "!leaving"]),
    );
    vec(backend, 0..6).prop_map(move |backends| {
        let words = backends.iter().map(|(net, n, node, state)| format!(" {net}{n}{node}{state}"));
        format!("slice default/s{i}-1 for=s{i} ports=80{}", words.collect::<String>())
    })
}

fn policy(i: u8) -> impl Strategy<Value = String> {
    let limit = || option::of((1..20u32, 1..6u32));
    let breaker = option::weighted(0.8, (1..3u32, 1..10u32, 1..5u32, select(vec![0, 34, 50, 100])));
    let balance = select(vec![
        "roundRobin",
        "random",
        "leastRequest",
        "peakEwma",
        "consistentHash",
        "consistentHash by=header:x-user",
    ]);
    let locality = select(vec!["none", "preferNode", "onlyNode"]);
    (balance, locality, limit(), limit(), breaker).prop_map(
        move |(balance, locality, client, server, breaker)| {
            let limit = |side, limit: Option<(u32, u32)>| {
                limit.map(|(qps, burst)| format!(" {side}={qps}/{burst}")).unwrap_or_default()
            };
            let breaker = breaker.map(|(failures, first, factor, percent)| {
                let (first, longest) = (first * 100, first * 100 * factor);
                format!(" breaker={failures},{first}ms,{longest}ms,{percent}")
            });
            format!(
                "policy default/p{i} for=s{i} balance={balance} locality={locality}{}{}{}",
                limit("client", client),
                limit("server", server),
                breaker.unwrap_or_default()
            )
        },
    )
}

/// What is done to the Services.
fn action() -> impl Strategy<Value = String> {
    let to = || {
        let i = 1..=SERVICES;
        prop_oneof![
            3 => i.clone().prop_map(|i| format!("10.96.0.{i}:80")),
            1 => i.clone().prop_map(|i| format!("[fd00::{i}]:80")),
            1 => i.prop_map(|i| format!("s{i}.default")),
            1 => Just("10.96.0.99:80".to_owned()),
        ]
    };
    let to = || {
        let caller = select(vec!["", " from=10.5.0.1", " from=10.5.0.2", " header=x-user:ann"]);
        (to(), caller).prop_map(|(to, more)| format!("{to}{more}"))
    };
    let end = || select(vec!["good", "bad", "neutral"]);
    let held = || 0..4u8;
    prop_oneof![
        4 => to().prop_map(|to| format!("call {to} -> ?")),
        4 => to().prop_map(|to| format!("fail {to} -> ?")),
        2 => (to(), held()).prop_map(|(to, n)| format!("open h{n} {to} -> ?")),
        1 => (to(), held()).prop_map(|(to, n)| format!("race h{n} {to} -> ?")),
        2 => (held(), end()).prop_map(|(n, end)| format!("close h{n} {end}")),
        1 => (to(), 1..6u8, select(vec!["", "@edge-2"]))
            .prop_map(|(to, n, at)| format!("retry {to} tried=10.1.0.{n}:80{at} -> ?")),
        2 => (1..=SERVICES, 1..6u8).prop_map(|(i, n)| {
            format!("call s{i}.default:80 link=edge-2 wish=10.1.0.{n}:80 -> ?")
        }),
        1 => (select(vec!["edge-2", "cloud-1"]), way()).prop_map(|(node, way)| {
            format!("way {node} {way}")
        }),
        3 => (1..500u32).prop_map(|ms| format!("wait {ms}ms")),
    ]
}

fn way() -> impl Strategy<Value = String> {
    let lost = (1..900u32).prop_map(|ms| format!("lost for={ms}ms"));
    prop_oneof![select(vec!["direct", "hub", "unknown"]).prop_map(str::to_owned), lost]
}

/// A change of the Services that calls go to.
fn change() -> impl Strategy<Value = String> {
    (1..=SERVICES).prop_flat_map(|i| prop_oneof![slice(i).boxed(), policy(i).boxed()])
}

/// A change that calls to the Services must not notice.
fn bystander() -> impl Strategy<Value = String> {
    let lines = [
        "service default/a 10.96.1.1 80 selector=app:a",
        "service zone/z 10.96.1.2,fd00::99 80",
        "service default/s0 - 80",
        "virtual default/s0 198.18.0.1",
        "virtual default/s0 -",
        "delete service default/a",
        "delete service zone/z",
        "slice default/a-1 for=a ports=80 10.1.0.1 10.1.0.2",
        "delete slice default/a-1",
        "policy default/a for=a client=1/1 breaker=1,1s,1s,100",
        "delete policy default/a",
        "workload default/w 10.1.0.1@edge-1 labels=app:a",
        "delete workload default/w",
        "node far-1 zone=q",
        "node far-1 agent",
        "delete node far-1",
    ];
    select(lines.to_vec()).prop_map(str::to_owned)
}
