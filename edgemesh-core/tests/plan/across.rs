//! Laws of calls that cross nodes: two agents decide, each from a Snapshot of its own.

use std::sync::Arc;
use std::time::Instant;

use edgemesh_core::limit::{Caller, Limiter};
use edgemesh_core::plan::{
    Arrival, Destination, Hop, Outcome, Purpose, Target, Via, Vouched, explain, plan,
};
use edgemesh_core::refusal::Refusal;
use edgemesh_core::snapshot::{Active, Builder, Change, Snapshot, Who};
use edgemesh_proto::record::{NodeName, ServiceName};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::grammar::{Words, record};
use crate::world::World;

/// Tokens of each side on each node: more than a history takes.
const BURST: usize = 40;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// The client's side has its token where the call began, once a call; the server's side one an
    /// attempt, at whoever calls the Backend. What came over a Link goes to a Backend of that node
    /// and no further, and to the one that was chosen.
    #[test]
    fn invariant_9_tokens_are_taken_once_across_nodes(
        backends in vec(select(vec!["@edge-1", "@edge-2", "@edge-3", "@cloud-1", ""]), 1..6),
        locality in select(vec!["none", "preferNode", "onlyNode"]),
        attempts in vec(any::<bool>(), 1..BURST),
    ) {
        let places: Vec<_> =
            backends.iter().enumerate().map(|(i, at)| format!("10.1.0.{i}{at}")).collect();
        let lines = [
            "node edge-1 agent".to_owned(),
            "node edge-2 agent".to_owned(),
            "node cloud-1 viaCloud".to_owned(),
            "service default/web 10.96.0.1 80".to_owned(),
            format!("policy default/web for=web client=1/{BURST} server=1/{BURST} locality={locality}"),
            format!("slice default/web-1 for=web ports=80 {}", places.join(" ")),
        ];
        let now = World::default().now();
        let build = |builder: Builder| builder_of(builder, &lines, now);
        let entry = build(Builder::new(NodeName("edge-1".into()), None));
        let peer = build(Builder::new(NodeName("edge-2".into()), None));
        let cloud = build(Builder::new(NodeName("cloud".into()), None).covering_cloud());
        let (mut calls, mut here, mut there, mut covered) = (0, 0, 0, 0);
        let is_linked = entry.services()[0].ports[0].pools[0].is_linked;
        let mut tried = Vec::new();
        for is_call in attempts {
            if is_call {
                tried.clear();
            }
            let purpose = if is_call { Purpose::Call } else { Purpose::Retry(&tried) };
            let to = Target::Address(([10, 96, 0, 1], 80).into());
            let hop = plan(&entry, &Destination::new(to, Arrival::Captured, purpose), now);
            // A call that nobody takes had its token of the client's side.
            calls += usize::from(is_call);
            let Ok(hop) = hop else {
                // Where this agent calls them all, the limit is asked before it is known who is left.
                here += usize::from(!is_linked);
                continue;
            };
            let passed_on = match (hop.via(), hop.backend().node.as_ref().map(|n| &*n.0)) {
                (Via::Local | Via::PlainDial, _) => {
                    here += 1;
                    None
                }
                (Via::Direct, Some("edge-2")) => {
                    there += 1;
                    Some(passed_on(&peer, &hop, now))
                }
                (Via::Hub, Some("cloud-1")) => {
                    covered += 1;
                    Some(passed_on(&cloud, &hop, now))
                }
                other => return Err(TestCaseError::fail(format!("{other:?}"))),
            };
            if let Some(passed_on) = passed_on {
                let arrived = passed_on.expect("a node knows its own Backends");
                prop_assert_eq!(arrived.via(), Via::Local);
                prop_assert_eq!(arrived.address(), hop.address());
                arrived.finish(Outcome::Good, now);
            }
            tried.push(hop.spot());
            hop.finish(Outcome::Good, now);
        }
        prop_assert_eq!(spent(&policy(&entry).client, now), calls);
        prop_assert_eq!(spent(&policy(&entry).server, now), here);
        prop_assert_eq!(spent(&policy(&peer).server, now), there);
        prop_assert_eq!(spent(&policy(&cloud).server, now), covered);
        prop_assert_eq!(spent(&policy(&peer).client, now), 0);
        prop_assert_eq!(spent(&policy(&cloud).client, now), 0);
    }
}

fn builder_of(mut builder: Builder, lines: &[String], now: Instant) -> Arc<Snapshot> {
    let put = lines.iter().map(|line| {
        let mut words = Words(line.split_whitespace().collect());
        let verb = words.next("a verb").expect("a line has words");
        record(verb, words).unwrap_or_else(|wrong| panic!("{line}: {wrong}"))
    });
    builder.apply(Change { put: put.collect(), ..Change::default() }, now)
}

/// What the node of a Hop's Backend decides, as foretold.
fn passed_on(there: &Snapshot, hop: &Hop, now: Instant) -> Result<Hop, Refusal> {
    let service = ServiceName::new("default", "web");
    let node = NodeName("edge-1".into());
    let from = Vouched { who: Who { node: Some(node.clone()), ..Who::default() }, node };
    let to = Target::Service { service: &service, port: 80, hostname: None };
    let destination = Destination {
        from: Some(&from),
        wish: Some(hop.address()),
        ..Destination::new(to, Arrival::Link, Purpose::Call)
    };
    let foretold = explain(there, &destination, now).verdict;
    let planned = plan(there, &destination, now);
    assert_eq!(foretold, planned.as_ref().map(|hop| (hop.address(), hop.via())).map_err(|r| *r));
    planned
}

fn policy(snapshot: &Snapshot) -> &Active {
    &snapshot.services()[0].policy
}

/// Tokens that were taken. Takes the others, and so can be asked once.
fn spent(limiter: &Option<Arc<Limiter>>, now: Instant) -> usize {
    let limiter = limiter.as_ref().expect("the policy has it");
    BURST - (0..=BURST).take_while(|_| limiter.take(&Caller::Everyone, now).is_ok()).count()
}
