//! The configuration files that the chart writes are accepted by the program that reads them.

use std::process::Command;

use crate::helm::render;

/// Values, and what `edgemesh check` says of both files then.
type Case = (&'static [&'static str], &'static [&'static str]);

/// Records from the API server, and from KubeEdge's.
const KUBERNETES: &[Case] = &[
    (&[], &["source: cloud", "source: { kubernetes: {} }", "cloud.example:31000"]),
    (
        &["agent.source=kubernetes", "agent.cloud.servers=null"],
        &["source: { kubernetes: {} }", "cloud: ~"],
    ),
    (&["agent.source=metaserver"], &["http://127.0.0.1:10550", "cloud.example:31000"]),
];

/// Without them.
const OTHERS: &[Case] = &[
    (&[], &["source: cloud", "source: none", "cloud.example:31000"]),
    (
        &["cloud.router.enabled=true", "cloud.router.auth=none"],
        &["listen: 0.0.0.0:9443", "auth: none"],
    ),
    (
        &["cloud.router.enabled=true", "cloud.router.tlsSecret=t", "cloud.router.tokenSecret=s"],
        &[
            "certFile: /run/secrets/router-tls/tls.crt",
            "tokenFile: /run/secrets/router-token/token",
        ],
    ),
    (
        &["cloud.router.enabled=true", "cloud.router.tlsSecret=t", "cloud.router.clientCaSecret=c"],
        &["clientCa: /run/secrets/router-ca/ca.crt"],
    ),
    (
        &[
            "agent.config.peer.path=direct",
            "cloud.config.hub.offlineGrace=7d",
            "agent.nodePorts=true",
        ],
        &["path: direct", "offlineGrace: 7d", "nodePorts: true"],
    ),
    (
        &["agent.accessLog=1/100", "clusterDomain=edge.local", "cloud.hub.names={cloud.example}"],
        &["accessLog: 1/100", "domain: edge.local", "names: [cloud.example]"],
    ),
];

/// What `edgemesh check` prints of a file.
fn check(name: &str, text: &str, because: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(name);
    std::fs::write(&file, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_edgemesh"));
    let said =
        command.args(["check", "--config"]).arg(file).env("NODE_NAME", "edge-1").output().unwrap();
    let words = String::from_utf8_lossy(&said.stderr);
    assert!(said.status.success(), "{because:?}: {name}: {words}\n{text}");
    String::from_utf8(said.stdout).unwrap()
}

#[track_caller]
fn accepted(sets: &[&str], wanted: &[&str]) {
    let chart = render(sets);
    let agent = check("agent.yaml", &chart.file("edgemesh-agent", "agent.yaml"), sets);
    let cloud = check("cloud.yaml", &chart.file("edgemesh-cloud", "cloud.yaml"), sets);
    assert!(agent.starts_with("# configuration of an agent"), "{agent}");
    assert!(cloud.starts_with("# configuration of a cloud"), "{cloud}");
    let both = agent + &cloud;
    for want in wanted {
        // The columns of `check` are none of this test's business.
        let both = both.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(both.contains(want), "{sets:?}: no `{want}` in\n{both}");
    }
}

#[test]
fn the_program_accepts_what_the_chart_writes() {
    for (sets, wanted) in OTHERS {
        accepted(&[&["cloud.source=none"], *sets].concat(), wanted);
    }
}

#[test]
fn the_program_accepts_the_sources_of_kubernetes() {
    for (sets, wanted) in KUBERNETES {
        accepted(sets, wanted);
    }
}
