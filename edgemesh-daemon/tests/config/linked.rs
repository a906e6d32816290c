//! The keys of `agent.yaml` that are about the cloud and other nodes.

use std::time::Duration;

use edgemesh_daemon::config::Flags;
use edgemesh_daemon::config::PeerPath;
use edgemesh_daemon::config::load;
use edgemesh_proto::message::Selector;

const BAD: &[(&str, &str)] = &[
    (
        "cloud: { tokenFile: /t }",
        "agent.yaml:2: cloud.servers: is missing: [HOST:PORT] of the cloud's hub",
    ),
    ("cloud: { servers: [] }", "agent.yaml:2: cloud.servers: wants at least one HOST:PORT"),
    (
        "cloud: { servers: cloud.example:10000 }",
        "agent.yaml:2: cloud.servers: wants a list: [cloud.example:10000]",
    ),
    (
        "cloud:\n  servers:\n  - cloud.example:10000\n  - https://Cloud.example/\n  - cloud.example\n  - fd00::1\n  - 0.0.0.0:10000\n  - cloud:0\n  - ~",
        "agent.yaml:5: cloud.servers[1]: `https://Cloud.example/` is no HOST:PORT; did you mean cloud.example:10000?\n\
         agent.yaml:6: cloud.servers[2]: `cloud.example` is no HOST:PORT; did you mean cloud.example:10000?\n\
         agent.yaml:7: cloud.servers[3]: `fd00::1` is no HOST:PORT; did you mean [fd00::1]:10000?\n\
         agent.yaml:8: cloud.servers[4]: `0.0.0.0:10000` is an address to listen at; name the one to dial\n\
         agent.yaml:9: cloud.servers[5]: `cloud:0` is no HOST:PORT\n\
         agent.yaml:10: cloud.servers[6]: wants one value, found nothing",
    ),
    ("cloud: { servers: [c:1, d:1, c:1] }", "agent.yaml:2: cloud.servers: c:1 is given twice"),
    (
        "cloud: { servers: [c:1], offlineGrace: 30 }",
        "agent.yaml:2: cloud.offlineGrace: `30` is no time: a whole number and s, m, h or d, such as 30d",
    ),
    (
        "cloud: { servers: [c:1], offlineGrace: 3651d }",
        "agent.yaml:2: cloud.offlineGrace: `3651d` is too long: at most 3650d",
    ),
    (
        "cloud: { servers: [c:1], ofline: 30d }",
        "agent.yaml:2: cloud.ofline: unknown key; known here: servers, tokenFile, offlineGrace, select",
    ),
    (
        "cloud:\n  servers: [c:1]\n  select:\n    zones: [site a]\n    labels: { a/b/c: d, e: [f], g: h i, j: k, j: l }\n    nodes: []",
        "agent.yaml:5: cloud.select.zones[0]: `site a` is no label value: …\n\
         agent.yaml:6: cloud.select.labels.j: is given twice; first on line 6\n\
         agent.yaml:6: cloud.select.labels.a/b/c: `a/b/c` is no label key: NAME, or PREFIX/NAME…\n\
         agent.yaml:6: cloud.select.labels.e: wants one value, found a list\n\
         agent.yaml:6: cloud.select.labels.g: `h i` is no label value: …\n\
         agent.yaml:7: cloud.select.nodes: unknown key; did you mean `zones`?",
    ),
    ("peer: { path: relay }", "agent.yaml:2: peer.path: `relay` is none of auto, direct, hub"),
    (
        "peer: { path: hub }",
        "agent.yaml:2: peer.path: hub needs to know where the cloud is: `cloud: { servers: [HOST:PORT] }`",
    ),
    (
        "node: cloud\ncloud: { servers: [c:1] }",
        "agent.yaml:2: node: no node with a cloud can be called so: `cloud` is what the cloud itself is called",
    ),
];

#[test]
fn a_mistake_is_named_with_file_line_key_and_what_would_be_right() {
    for (text, want) in BAD {
        super::check_problems(&format!("{}{text}\n", super::OK), want);
    }
}

#[test]
fn the_cloud_of_an_agent_has_defaults_and_is_read() {
    let config = |text: &str| {
        load(text, "f", &super::environment(None), &Flags::default()).expect("a good file").config
    };
    let short = config("cloud: { servers: [c:1] }");
    let cloud = short.cloud.expect("a cloud");
    assert_eq!((cloud.servers, cloud.token_file), (vec!["c:1".to_owned()], None));
    assert_eq!(cloud.offline_grace, Duration::from_secs(30 * 86_400));
    assert!(cloud.select.is_everything());
    assert_eq!(short.peer.path, PeerPath::Auto);

    let long = config(
        "cloud:\n  servers: [b.example:1, \"[fd00::1]:2\", a:3]\n  tokenFile: /t\n  offlineGrace: 36h\n  \
         select: { zones: [site-a, site-b], labels: { example.com/tier: \"\", gpu: true } }\n\
         peer: { path: direct }",
    );
    let cloud = long.cloud.expect("a cloud");
    assert_eq!(cloud.servers, ["b.example:1", "[fd00::1]:2", "a:3"]);
    assert_eq!(cloud.token_file, Some("/t".into()));
    assert_eq!(cloud.offline_grace, Duration::from_secs(36 * 3600));
    let labels = [("example.com/tier", ""), ("gpu", "true")];
    let labels = labels.map(|(key, value)| (key.into(), value.into())).into();
    assert_eq!(cloud.select, Selector { zones: vec!["site-a".into(), "site-b".into()], labels });
    assert_eq!(long.peer.path, PeerPath::Direct);
}
