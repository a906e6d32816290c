//! Laws over objects that chance makes: what the reader of manifests takes, the schema takes.

use serde_json::{Value, json};

use crate::judge::{faults, schema};
use crate::{object, rejected};

/// Objects a kind.
const OBJECTS: usize = 4000;

/// A walk that is the same each time (Steele and others, SplitMix64).
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % bound as u64).expect("below a usize")
    }

    fn of<'v>(&mut self, values: &'v [Value]) -> &'v Value {
        &values[self.below(values.len())]
    }
}

/// Objects that say everything; what chance changes is one or a few places of them.
fn full(kind: &str) -> Vec<Value> {
    match kind {
        "TrafficPolicy" => vec![json!({
            "targetRef": { "kind": "Service", "name": "hello", "group": "" },
            "loadBalancer": {
                "policy": "consistentHash", "locality": "none", "consistentHash": { "header": "x" },
            },
            "rateLimit": { "client": { "qps": 5, "burst": 7, "by": "ip" }, "server": { "qps": 1 } },
            "circuitBreaker": {
                "consecutiveFailures": 5, "ejectFor": "10s", "maxEjectFor": "5m",
                "maxEjectedPercent": 50, "successRatePercent": 90, "window": "30s",
                "minRequests": 20,
            },
            "timeouts": { "connect": "1s", "request": "15s", "idle": "1h" },
            "retries": {
                "attempts": 2, "on": ["connect", "reset", 503], "budgetPercent": 20,
                "nonIdempotent": false,
            },
            "allow": [{ "namespace": "shop", "service": "web" }, { "node": "edge-2" }],
            "connections": { "max": 5, "maxRequests": 9 },
            "healthCheck": {
                "http": "/healthz", "interval": "5s", "timeout": "1s", "healthy": 1, "unhealthy": 3,
            },
        })],
        "Rule" => vec![json!({
            "source": "in", "target": "shop/out", "inUse": true,
            "sourceResource": {
                "path": "/a", "topic": "t", "target_url": "u", "node_name": "n", "qps": "1",
                "burst": 2, "max_body": "3", "other": "x",
            },
            "targetResource": {
                "resource": "http://a", "path": "/", "topic": "t", "node_name": "n", "qos": 1,
                "retain": true, "timeout": "5s", "other": 1.5,
            },
        })],
        _ => ["rest", "eventbus", "servicebus", "service"]
            .map(|kind| {
                json!({
                    "ruleEndpointType": kind, "isShared": false,
                    "properties": {
                        "service_port": "80", "port": "81", "node_name": "n", "qps": "5",
                        "burst": 6, "other": true,
                    },
                })
            })
            .into(),
    }
}

/// What may come in place of anything. Texts that YAML 1.1 takes for answers are not among them: in
/// quotes only the reader takes those for such (`cases.txt`).
fn anything() -> Vec<Value> {
    let texts = [
        "",
        "a",
        "a-b",
        "-a",
        "a.b",
        "a..b",
        "a/b",
        "a/b/c",
        "A",
        "é",
        "a b",
        "x-user",
        "a=b",
        "u[1]",
        "/",
        "/x",
        "//x",
        "/a?b",
        "0",
        "1",
        "+5",
        "05",
        "80",
        "65535",
        "65536",
        "-1",
        "503",
        "502",
        "4294967295",
        "4294967296",
        "1.5",
        "1ms",
        "99ms",
        "100ms",
        "1s",
        "999ms",
        "10s",
        "30s",
        "5m",
        "6m",
        "1h",
        "24h",
        "25h",
        "1h30m",
        "0s",
        "0s1ms",
        "1d",
        "10",
        "random",
        "roundRobin",
        "consistentHash",
        "preferNode",
        "onlyNode",
        "none",
        "service",
        "workload",
        "namespace",
        "ip",
        "connect",
        "reset",
        "rest",
        "eventbus",
        "servicebus",
        "Service",
        "true",
        "http://a",
    ];
    let numbers = [-1_i64, 0, 1, 2, 5, 10, 11, 64, 100, 101, 503, 10_000, 10_001, 65_535, 65_536];
    let large = [1_000_000_i64, 1_000_001, 4_294_967_295, 4_294_967_296, i64::MAX];
    let mut values: Vec<Value> = texts.into_iter().map(Value::from).collect();
    values.extend(numbers.into_iter().chain(large).map(Value::from));
    values.extend([json!(1.5), json!(true), json!(false), Value::Null, json!([]), json!({})]);
    values.extend([json!(["a"]), json!({ "a": "b" }), json!([{}]), json!([503])]);
    values
}

/// Every place in a value, as a pointer.
fn places(value: &Value, at: &str, into: &mut Vec<String>) {
    into.push(at.to_owned());
    match value {
        Value::Object(members) => {
            members.iter().for_each(|(key, member)| places(member, &format!("{at}/{key}"), into));
        }
        Value::Array(items) => {
            items
                .iter()
                .enumerate()
                .for_each(|(index, item)| places(item, &format!("{at}/{index}"), into));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Takes something away, puts something in its place, or adds what nobody knows.
fn change(spec: &mut Value, chance: &mut Chance, values: &[Value]) {
    let mut all = Vec::new();
    places(spec, "", &mut all);
    let place = &all[chance.below(all.len())];
    let what = chance.below(8);
    let (map, key) = place.rsplit_once('/').unwrap_or(("", ""));
    if what < 3
        && let Some(members) = spec.pointer_mut(map).and_then(Value::as_object_mut)
    {
        members.remove(key);
    } else if let Some(found) = spec.pointer_mut(place) {
        match found.as_object_mut() {
            Some(members) if what == 3 => {
                drop(members.insert("tcp".into(), chance.of(values).clone()))
            }
            Some(_) | None => *found = chance.of(values).clone(),
        }
    }
}

/// The one thing that only the reader takes: `cases.txt` says why.
fn is_known(fault: &str) -> bool {
    [".spec.properties.service_port:", ".spec.properties.service:", ".spec.properties.port:"]
        .iter()
        .any(|place| fault.starts_with(place))
}

#[test]
fn what_a_folder_takes_kubectl_takes() {
    let values = anything();
    for (seed, kind) in ["TrafficPolicy", "Rule", "RuleEndpoint"].into_iter().enumerate() {
        let mut chance = Chance(seed as u64);
        let (schema, full) = (schema(kind), full(kind));
        let (mut both, mut neither, mut lenient) = (0, 0, 0);
        for _ in 0..OBJECTS {
            let mut spec = chance.of(&full).clone();
            (0..=chance.below(4)).for_each(|_| change(&mut spec, &mut chance, &values));
            let object = object(kind, spec);
            let (faults, rejected) = (faults(&schema, &object), rejected(&object));
            match (faults.is_empty(), rejected.is_none()) {
                (true, true) => both += 1,
                (false, false) => neither += 1,
                (true, false) => lenient += 1,
                (false, true) => {
                    assert!(faults.iter().all(|fault| is_known(fault)), "{object}\n{faults:?}")
                }
            }
        }
        // Enough of either, or the law would say nothing.
        assert!(both > OBJECTS / 10 && neither > OBJECTS / 10, "{kind}: {both}, {neither}");
        assert!(lenient < OBJECTS / 4, "{kind}: the schema lets {lenient} pass");
    }
}
