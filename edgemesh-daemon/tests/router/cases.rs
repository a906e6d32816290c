//! Every recorded case of KubeEdge's router, replayed: compatible where it is right; where it is not,
//! what EdgeMesh does in its place stands in [`CASES`], and in docs/router.md.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::apps::Arrived;
use crate::common::namespace::in_namespace;
use crate::common::run::{need, run};
use crate::common::wait::throughout;
use crate::recording::{Case, recorded};
use crate::site::{EDGE, Site, named, rule};
use crate::world::CLOUD;

/// What EdgeMesh does with a case.
#[derive(Clone, Copy, Debug)]
enum Ours {
    /// Status, body and deliveries as recorded.
    Same,
    /// The same status and deliveries; the body has these words.
    Says(&'static str),
    /// Another status, these words in the body, and these deliveries.
    Other(u16, &'static str, &'static [&'static str]),
}
use Ours::{Other, Same, Says};

/// Name of the recording, and what is ours. Deliveries are `METHOD uri`, or `topic length`.
const CASES: &[(&str, Ours)] = &[
    ("rest-eventbus-1MiB", Same),
    // KubeEdge: 512 bytes, each above 127 damaged.
    ("rest-eventbus-binary", Other(200, "message delivered", &["test/a 256"])),
    ("rest-eventbus-get", Same),
    ("rest-eventbus-post", Same),
    ("rest-eventbus-suffix-query", Same),
    // KubeEdge: 200, and nothing published.
    ("rest-eventbus-wildcard-topic", Other(500, "`wild/#` has a wildcard", &[])),
    ("rest-body-over-12MiB", Other(413, "larger than the 12582912 bytes", &[])),
    ("rest-no-such-namespace", Says("no Rule of namespace `other`")),
    (
        "rest-no-such-rule",
        Says("no Rule of namespace `default` with a rest source takes path `/nosuch`"),
    ),
    // KubeEdge: 500 after three attempts.
    ("rest-not-edge-node", Other(503, "link to node c2", &[])),
    ("rest-root", Other(404, "the path has no first segment", &[])),
    (
        "rest-unknown-node",
        Other(404, "first segment `edge-9` is neither reserved nor a known node", &[]),
    ),
    ("rest-servicebus-get", Same),
    ("rest-servicebus-post", Same),
    ("rest-servicebus-suffix-query", Same),
    ("rest-servicebus-1MiB", Same),
    ("rest-servicebus-8MiB", Same),
    ("rest-servicebus-binary-both-ways", Same),
    // KubeEdge: delivered three times, 500, status and body lost.
    ("rest-servicebus-app-201", Other(201, "answers POST /target/s201", &["POST /target/s201"])),
    ("rest-servicebus-app-204", Other(204, "", &["POST /target/s204"])),
    ("rest-servicebus-app-400", Other(400, "answers POST /target/s400", &["POST /target/s400"])),
    ("rest-servicebus-app-404", Other(404, "answers POST /target/s404", &["POST /target/s404"])),
    ("rest-servicebus-app-500", Other(500, "answers POST /target/s500", &["POST /target/s500"])),
    ("rest-servicebus-app-503", Other(503, "answers POST /target/s503", &["POST /target/s503"])),
    // KubeEdge: 500 after three silent time-outs, 182 s.
    ("rest-servicebus-app-down", Other(503, "application 127.0.0.1:6667 on node a1", &[])),
    (
        "rest-servicebus-colon-in-query",
        Other(200, "POST /target?t=12:30", &["POST /target?t=12:30"]),
    ),
    // KubeEdge: 5,000,000 bytes and no word about it.
    ("rest-servicebus-response-6MB", Other(200, "yyyy", &["GET /target/resp6000000/"])),
    // KubeEdge: gives up after 10 s, three times.
    ("rest-servicebus-slow-app", Other(200, "answers POST /slow", &["POST /slow"])),
    // KubeEdge: the whole path once more below the target's.
    ("rest-servicebus-param", Other(200, "DELETE /target/dev/now", &["DELETE /target/dev/now"])),
    ("eventbus-rest", Same),
    ("eventbus-rest-json", Same),
    ("eventbus-rest-100KB", Same),
    ("eventbus-rest-retained", Same),
    ("eventbus-rest-no-namespace", Same),
    ("eventbus-upload-topic", Same),
    ("eventbus-user-topic", Same),
    // KubeEdge: 512 bytes.
    ("eventbus-rest-binary", Other(0, "", &["POST /from-eventbus"])),
    // KubeEdge: nothing at all.
    ("eventbus-rest-empty", Other(0, "", &["POST /from-eventbus"])),
    ("eventbus-rest-wildcard", Other(0, "", &["POST /from-wildcard"])),
    ("servicebus-rest-bad-json", Same),
    ("servicebus-rest-no-target", Same),
    ("servicebus-rest-unknown-url", Same),
    // KubeEdge: always POST, with the base64 of the whole request.
    (
        "servicebus-rest-post",
        Other(200, "answers POST /from-servicebus", &["POST /from-servicebus"]),
    ),
    ("servicebus-rest-get", Other(200, "answers GET /from-servicebus", &["GET /from-servicebus"])),
    (
        "servicebus-rest-object-payload",
        Other(200, "answers PUT /from-servicebus", &["PUT /from-servicebus"]),
    ),
];

/// Those that need a step before them, told below.
const AFTER_STEPS: [&str; 6] = [
    "rest-servicebus-after-rule-update-new-path",
    "rest-servicebus-after-rule-update-old-path",
    "rest-servicebus-after-rule-delete",
    "servicebus-rest-after-rule-delete",
    "node-offline-rest-eventbus",
    "node-offline-rest-servicebus",
];

fn rules() -> Vec<(&'static str, String)> {
    let to_app = |name, path, target| {
        rule(
            name,
            ("my-rest", &format!("path: {path}")),
            ("my-servicebus", &format!("path: {target}")),
        )
    };
    let to_topic = |name, path, topic| {
        let topic = format!("topic: \"{topic}\"");
        rule(name, ("my-rest", &format!("path: {path}")), ("my-eventbus", &topic))
    };
    let up = |name, topic, to| {
        let source = format!("topic: {topic}, node_name: {EDGE}");
        let target = format!("resource: \"http://127.0.0.1:7777/{to}\"");
        rule(name, ("my-eventbus", &source), ("my-rest", &target))
    };
    let key = format!("target_url: \"http://127.0.0.1:7777/key\", node_name: {EDGE}");
    let from_servicebus = "resource: \"http://127.0.0.1:7777/from-servicebus\"";
    vec![
        ("source", to_app("rest-servicebus", "/source", "/target")),
        ("param", to_app("rest-servicebus-param", "\"/dev/{id}/cmd\"", "/target/dev")),
        ("colon", to_app("rest-servicebus-colon", "/colon", "/target")),
        ("slow", to_app("rest-servicebus-slow", "/slowsrc", "/slow")),
        (
            "down",
            rule(
                "rest-servicebus-down",
                ("my-rest", "path: /down"),
                ("my-servicebus-down", "path: /target"),
            ),
        ),
        ("a", to_topic("rest-eventbus", "/a", "test/a")),
        ("wild", to_topic("rest-eventbus-wildcard", "/wild", "wild/#")),
        ("up", up("eventbus-rest", "up", "from-eventbus")),
        ("up-wild", up("eventbus-rest-wildcard", "wild/+", "from-wildcard")),
        ("key", rule("servicebus-rest", ("my-servicebus", &key), ("my-rest", from_servicebus))),
    ]
}

#[test]
fn recorded_cases_are_replayed() {
    in_namespace("cases::recorded_cases_are_replayed", || {
        need(&["curl"]);
        let mut site = Site::open(&rules());
        let known = |name: &String| {
            CASES.iter().any(|(case, _)| case == name) || AFTER_STEPS.contains(&name.as_str())
        };
        let forgotten: Vec<_> = recorded().into_iter().filter(|name| !known(name)).collect();
        assert!(forgotten.is_empty(), "{forgotten:?}");
        for (case, ours) in CASES {
            replay(&site, case, *ours);
        }
        steps(&mut site);
    });
}

/// What changes a Rule, or stops the node, and what is asked then.
fn steps(site: &mut Site) {
    let moved =
        rule("rest-servicebus", ("my-rest", "path: /moved"), ("my-servicebus", "path: /target"));
    site.change("source", Some(&moved), |rules| {
        named(rules, "rest-servicebus")
            .is_some_and(|rule| rule["source_resource"]["path"] == "/moved")
    });
    let answer = "answers GET /target";
    replay(
        site,
        "rest-servicebus-after-rule-update-new-path",
        Other(200, answer, &["GET /target"]),
    );
    replay(site, "rest-servicebus-after-rule-update-old-path", Other(404, "no Rule", &[]));
    site.change("source", None, |rules| named(rules, "rest-servicebus").is_none());
    replay(site, "rest-servicebus-after-rule-delete", Says("no Rule"));
    site.change("key", None, |rules| named(rules, "servicebus-rest").is_none());
    let ran = run(EDGE, "curl -sS -m 5 -d '{}' http://127.0.0.1:9060/x");
    assert_eq!(ran.code, Some(7), "the ServiceBus is closed without a Rule: {ran:?}");
    site.change("up", None, |rules| named(rules, "eventbus-rest").is_none());
    let before = site.target.arrived().len();
    site.broker.publish("-t default/up -q 1 -m gone");
    site.broker.wait_heard("default/up", 1);
    let quiet = std::time::Duration::from_millis(500);
    assert!(throughout(quiet, || site.target.arrived().len() == before), "the topic was left");
    site.change("source", Some(&rules()[0].1), |rules| named(rules, "rest-servicebus").is_some());
    site.edge.take().unwrap().stop();
    replay(site, "node-offline-rest-servicebus", Other(503, "link to node a1", &[]));
    replay(site, "node-offline-rest-eventbus", Other(503, "link to node a1", &[]));
}

fn replay(site: &Site, name: &'static str, ours: Ours) {
    let case = Case::read(name);
    let before = (site.app.arrived().len(), site.target.arrived().len(), all_heard(site).len());
    let (status, body, sent) = if case.value["mqtt_publish"].is_object() {
        (0, String::new(), publish(site, &case))
    } else {
        ask(site, &case)
    };
    let (want_status, words, want) = match ours {
        Same => (case.answer().0, case.answer().1, case.deliveries()),
        Says(words) => (case.answer().0, words.to_owned(), case.deliveries()),
        Other(status, words, want) => {
            (status, words.to_owned(), want.iter().map(|one| (*one).to_owned()).collect())
        }
    };
    assert_eq!(status, want_status, "{name}: {body}");
    assert!(body.contains(&words), "{name}: {body:?} has not {words:?}");
    delivered(site, &case, before, &want, &sent);
}

/// Publishes as recorded. Returns the payload.
fn publish(site: &Site, case: &Case) -> Vec<u8> {
    let sent = case.payload("mqtt_publish", "payload_hex", "payload_len");
    let file = site.world.path("payload");
    std::fs::write(&file, &sent).unwrap();
    let topic = case.value["mqtt_publish"]["topic"].as_str().unwrap();
    let retain = if case.name.ends_with("retained") { "-r" } else { "" };
    // mosquitto_pub calls an empty file an error.
    let payload = if sent.is_empty() { "-n".into() } else { format!("-f {}", file.display()) };
    site.broker.publish(&format!("-t {topic} -q 1 {retain} {payload}"));
    sent
}

/// Asks as recorded. Returns status, body, and what was sent.
fn ask(site: &Site, case: &Case) -> (u16, String, Vec<u8>) {
    let request = &case.value["client_request"];
    let arguments: Vec<_> =
        request["curl_args"].as_array().unwrap().iter().map(|a| a.as_str().unwrap()).collect();
    let at_edge = arguments.iter().any(|argument| argument.contains(":9060"));
    let mut sent = case.payload("client_request", "body_hex", "body_len");
    let file = site.world.path("body");
    std::fs::write(&file, &sent).unwrap();
    let mut line = "curl -sS -m 28 -w '\\n%{http_code}'".to_owned();
    for (i, argument) in arguments.iter().enumerate() {
        let of_data = i > 0 && arguments[i - 1] == "--data-binary";
        if of_data && *argument != "@-" {
            sent = argument.as_bytes().to_vec();
        }
        // `c2` is a node of this world on which no agent runs.
        let argument = argument.replace("/edge-1/", "/a1/").replace("/cloud-1/", "/c2/");
        let argument = argument.replace("@-", &format!("@{}", file.display()));
        line.push_str(&format!(" '{argument}'"));
    }
    let ran =
        run(if at_edge { EDGE } else { CLOUD.name }, &format!("{line} -o {}.out", file.display()));
    assert_eq!(ran.code, Some(0), "{}: {line}: {ran:?}", case.name);
    let body = std::fs::read(format!("{}.out", file.display())).unwrap_or_default();
    if case.name.ends_with("both-ways") {
        assert_eq!(body, sent, "{}", case.name);
    }
    if case.name.ends_with("response-6MB") {
        assert_eq!(body.len(), 6_000_000);
    }
    // What the case holds of a body that is no text is not to be compared.
    let body = match String::from_utf8(body) {
        Ok(body) => body,
        Err(_) => case.answer().1,
    };
    (ran.out.trim().parse().unwrap(), body, sent)
}

fn all_heard(site: &Site) -> Vec<String> {
    let all = site.broker.heard("");
    all.into_iter()
        .filter(|line| !line.starts_with("default/") && !line.starts_with("listener/"))
        .collect()
}

/// Exactly these deliveries came, once each, as they were sent.
fn delivered(
    site: &Site,
    case: &Case,
    before: (usize, usize, usize),
    want: &[String],
    sent: &[u8],
) {
    let (name, of_broker) = (case.name, name_is_of_broker(case));
    let looked = || {
        let app = site.app.arrived().split_off(before.0);
        let target = site.target.arrived().split_off(before.1);
        let http: Vec<Arrived> = app.into_iter().chain(target).collect();
        let heard = if of_broker { all_heard(site).split_off(before.2) } else { Vec::new() };
        (http, heard)
    };
    let said = |(http, heard): &(Vec<Arrived>, Vec<String>)| -> Vec<String> {
        let topic = |line: &String| {
            let words: Vec<_> = line.split(' ').collect();
            format!("{} {}", words[0], words[3])
        };
        let of_http = http.iter().map(|one| format!("{} {}", one.method, one.uri));
        of_http.chain(heard.iter().map(topic)).collect()
    };
    crate::common::wait::eventually(&format!("{name}: {want:?}"), crate::PATIENCE, || {
        (said(&looked()).len() >= want.len()).then_some(())
    });
    let quiet = std::time::Duration::from_millis(30);
    assert!(throughout(quiet, || said(&looked()) == want), "{name}: {:?}", said(&looked()));
    let (http, heard) = looked();
    for line in &heard {
        let words: Vec<_> = line.split(' ').collect();
        assert_eq!((words[1], words[2]), ("1", "0"), "{name}: QoS 1, not retained");
    }
    if let Some(one) = http.first() {
        let payload = match name.starts_with("servicebus-") {
            true => payload_of(sent),
            false => sent.to_vec(),
        };
        assert_eq!(one.length, payload.len() as u64, "{name}");
        assert!(payload.starts_with(&one.body), "{name}: {}", STANDARD.encode(&one.body));
        assert_eq!(one.sha256, sha256(site, &payload), "{name}");
        // As in KubeEdge; targets need not know chunks.
        if one.method != "GET" && one.method != "DELETE" {
            assert_eq!(one.header("content-length"), [payload.len().to_string()], "{name}");
            assert!(one.header("transfer-encoding").is_empty(), "{name}");
        }
        if name == "rest-servicebus-post" {
            assert_eq!(one.header("x-custom"), ["a", "b"]);
            assert_eq!(one.header("host"), ["127.0.0.1:6666"]);
        }
    }
}

/// As coreutils compute it.
fn sha256(site: &Site, bytes: &[u8]) -> String {
    let file = site.world.path("sum");
    std::fs::write(&file, bytes).unwrap();
    let sum = run("", &format!("sha256sum {}", file.display())).out;
    sum.split(' ').next().unwrap().to_owned()
}

/// What an application hands to the ServiceBus.
fn payload_of(request: &[u8]) -> Vec<u8> {
    let request: Value = serde_json::from_slice(request).unwrap();
    match &request["payload"] {
        Value::String(text) => text.clone().into_bytes(),
        other => other.to_string().into_bytes(),
    }
}

fn name_is_of_broker(case: &Case) -> bool {
    case.name.starts_with("rest-eventbus") || case.name == "rest-body-over-12MiB"
}
