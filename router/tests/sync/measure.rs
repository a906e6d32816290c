//! How long a full sync takes, for people: `cargo test --release -- --ignored --nocapture measure`.

#![allow(clippy::print_stdout, reason = "what people read")]

use std::time::Duration;

use super::*;

const SERVICES: usize = 10_000;
const BACKENDS: usize = 100_000;
const AGENTS: usize = 100;

fn full() -> BTreeMap<Key, Bytes> {
    let each = BACKENDS / SERVICES;
    let of = |n: usize| {
        let nodes: Vec<String> = (0..each).map(|b| format!("node-{}", (n + b) % 500)).collect();
        let nodes: Vec<&str> = nodes.iter().map(String::as_str).collect();
        let mut slice = slice(&format!("service-{n}-abcde"), &nodes);
        if let Of::Slice(slice) = &mut slice.body {
            slice.service = format!("service-{n}").into();
            for (b, backend) in slice.backends.iter_mut().enumerate() {
                let [_, _, high, low] = ((n * each + b) as u32).to_be_bytes();
                backend.addresses = vec![[10, 1, high, low].into()];
                backend.workload = Some(format!("service-{n}-7d9f8b6c5-{b:05}").into());
            }
        }
        [service(&format!("service-{n}"), 1), slice]
    };
    manifests(&(0..SERVICES).flat_map(of).collect::<Vec<_>>())
}

fn timed<T>(what: &str, run: impl FnOnce() -> T) -> T {
    let begun = now();
    let done = run();
    println!("{what}: {:?}", begun.elapsed());
    done
}

#[test]
#[ignore = "a measurement"]
fn measure() {
    let all = full();
    let bytes: usize = all.values().map(Bytes::len).sum();
    println!("{} records, {bytes} bytes of bodies, {BACKENDS} Backends", all.len());
    let mut registry = Registry::new([1; 16], []);
    timed("registry takes them in", || registry.observe(&all));
    let begin = |registry: &mut Registry| {
        let mut agent = Agent::new(Selector::default());
        let session = agent.begin(registry);
        (agent, session)
    };
    // The first one's Hello has everything encoded.
    let mut agents = vec![timed("the first says hello", || begin(&mut registry))];
    timed("the others say hello", || {
        agents.extend((1..AGENTS).map(|_| begin(&mut registry)));
    });
    let (encode, decode, apply) = sync(&mut registry, &mut agents[..1]);
    println!("one agent: make {encode:?}, decode {decode:?}, stage and apply {apply:?}");
    let (encode, decode, apply) = sync(&mut registry, &mut agents[1..]);
    println!("{} more: make {encode:?}, decode {decode:?}, stage and apply {apply:?}", AGENTS - 1);

    let mut some = all;
    let (key, body) = some.iter().nth(SERVICES + 77).map(|(k, b)| (k.clone(), b.clone())).unwrap();
    let mut body = body.to_vec();
    body.extend_from_slice(&[0xf8, 0x07, 1]); // a field that nobody knows
    some.insert(key, body.into());
    timed("one change is observed", || registry.observe(&some));
    let (encode, decode, apply) = sync(&mut registry, &mut agents);
    println!("and told to {AGENTS}: make {encode:?}, decode {decode:?}, apply {apply:?}");
    let mut registry = timed("a registry opens", || {
        let kept = registry.records().map(|(key, body)| {
            let put = edgemesh_proto::record::Put { key: key.clone(), body: body.clone() };
            (edgemesh_router::registry::Owner::Manifests, put)
        });
        Registry::new([2; 16], kept.collect::<Vec<_>>())
    });
    let begun = now();
    for (agent, _) in &mut agents {
        let mut session = agent.begin(&mut registry);
        agent.talk_without_looking(&mut session, &mut registry);
    }
    println!("{AGENTS} adopt its epoch: {:?}", begun.elapsed());
}

/// Time to make, to decode, and to stage and apply.
fn sync(
    registry: &mut Registry,
    agents: &mut [(Agent, Session)],
) -> (Duration, Duration, Duration) {
    let mut spent = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
    for (agent, session) in agents {
        loop {
            let begun = now();
            let Some(said) = session.next(registry, begun) else { break };
            spent.0 += begun.elapsed();
            let begun = now();
            let body = body(said);
            spent.1 += begun.elapsed();
            let begun = now();
            let answer = agent.hear(body);
            spent.2 += begun.elapsed();
            if let Some(answer) = answer {
                session.on(registry, &answer, begun).unwrap();
            }
        }
    }
    spent
}

impl Agent {
    fn talk_without_looking(&mut self, session: &mut Session, registry: &mut Registry) {
        while let Some(said) = session.next(registry, now()) {
            if let Some(answer) = self.hear(body(said)) {
                session.on(registry, &answer, now()).unwrap();
            }
        }
    }
}
