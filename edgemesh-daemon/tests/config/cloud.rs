//! `cloud.yaml`: what is refused and in which words, the rule beyond loopback, how `check` prints it.

use std::path::Path;

use edgemesh_core::config::AccessLog;
use edgemesh_daemon::config::Auth;
use edgemesh_daemon::config::Environment;
use edgemesh_daemon::config::Flags;
use edgemesh_daemon::config::Kind;
use edgemesh_daemon::config::Origin;
use edgemesh_daemon::config::Source;
use edgemesh_daemon::config::check_any;
use edgemesh_daemon::config::load_cloud;

use crate::common;

const BAD: &[(&str, &str)] = &[
    ("hubb: {}", "cloud.yaml:1: hubb: unknown key; did you mean `hub`?"),
    (
        "hub: { port: 1 }",
        "cloud.yaml:1: hub.port: unknown key; known here: listen, names, offlineGrace",
    ),
    ("node: a", "cloud.yaml:1: node: unknown key; known here: zone, dataDir, "),
    ("dns: { listen: [] }", "cloud.yaml:1: dns.listen: unknown key; known here: domain"),
    ("hub: { listen: 10000 }", "cloud.yaml:1: hub.listen: `10000` is no IP:PORT, "),
    (
        "hub:\n  names:\n  - cloud.example:10000\n  - https://c\n  - \"*.example\"",
        "cloud.yaml:3: hub.names[0]: `cloud.example:10000` has a port; did you mean cloud.example?\n\
         cloud.yaml:4: hub.names[1]: `https://c` is neither a host name nor an IP address\n\
         cloud.yaml:5: hub.names[2]: `*.example` is neither a host name nor an IP address",
    ),
    (
        "hub: { offlineGrace: forever }",
        "cloud.yaml:1: hub.offlineGrace: `forever` is no time: a whole number and s, m, h or d, such as 30d",
    ),
    ("zone: site a", "cloud.yaml:1: zone: `site a` is no label value: "),
    (
        "source: cloud",
        "cloud.yaml:1: source: `cloud` is no source: one of none, { manifests: DIR }, { kubernetes: … }",
    ),
    (
        "source: { kubernetes: { caFile: /c } }",
        "cloud.yaml:1: source.kubernetes.caFile: means nothing without `server`; add that, or remove it",
    ),
    (
        "admin: { listen: \"0.0.0.0:15010\" }",
        "cloud.yaml:1: admin.listen: 0.0.0.0:15010 is not on loopback; ",
    ),
    (
        "hub: { listen: \"[::]:9443\" }",
        "cloud.yaml: router.listen: 127.0.0.1:9443 is taken by hub.listen, [::]:9443 (cloud.yaml:1)",
    ),
    (
        "router:\n  tls: { certFile: /c }",
        "cloud.yaml:2: router.tls.keyFile: is missing: a file of PEM",
    ),
    (
        "router:\n  tls: {}",
        "cloud.yaml:2: router.tls.certFile: is missing: a file of PEM\n\
         cloud.yaml:2: router.tls.keyFile: is missing: a file of PEM",
    ),
    ("router: { tls: /c }", "cloud.yaml:1: router.tls: wants a section, found one value"),
    (
        "router: { tls: { certfile: /c, keyFile: /k } }",
        "cloud.yaml:1: router.tls.certfile: unknown key; did you mean `certFile`?",
    ),
    (
        "router: { auth: tokens }",
        "cloud.yaml:1: router.auth: wants one of none, { tokenFile: FILE }, { clientCa: FILE }",
    ),
    (
        "router: { auth: { tokenFile: /t, clientCa: /c } }",
        "cloud.yaml:1: router.auth: wants one of none, { tokenFile: FILE }, { clientCa: FILE }",
    ),
    (
        "router: { auth: { tokenFile: ~ } }",
        "cloud.yaml:1: router.auth: names no file: one of none, { tokenFile: FILE }, { clientCa: FILE }",
    ),
    (
        "router: { auth: { token: /t } }",
        "cloud.yaml:1: router.auth.token: unknown key; known here: tokenFile, clientCa",
    ),
    // all at once, in the order of the lines
    (
        "hub: { listen: x }\nzonne: a\nrouter: { listen: \"0.0.0.0:9443\" }",
        "cloud.yaml:1: hub.listen: `x` is no IP:PORT, …\n\
         cloud.yaml:2: zonne: unknown key; did you mean `zone`?\n\
         cloud.yaml:3: router.listen: 0.0.0.0:9443 is beyond loopback: …",
    ),
];

fn problems(text: &str, flags: &Flags) -> String {
    match load_cloud(text, "cloud.yaml", flags) {
        Ok(resolved) => format!("no problem: {:?}", resolved.config),
        Err(problems) => problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
    }
}

#[test]
fn a_mistake_is_named_with_file_line_key_and_what_would_be_right() {
    for (text, want) in BAD {
        super::check_lines(text, &problems(text, &Flags::default()), want);
    }
    let flags = Flags { node: Some("edge-1".into()), manifests: None };
    super::check_lines(
        "",
        &problems("", &flags),
        "--node: node: is for agents: a cloud is no node",
    );
}

/// `tls` and `auth` of the router, and what is wrong with them at loopback and beyond.
const DOORS: &[(&str, &str, &str)] = &[
    (
        "",
        "",
        "router.listen: 0.0.0.0:9443 is beyond loopback: it needs tls: { certFile: FILE, keyFile: FILE } \
         and auth: { tokenFile: FILE } or { clientCa: FILE }; or auth: none, written out",
    ),
    ("auth: none", "", ""),
    (
        "auth: { tokenFile: /t }",
        "",
        "router.listen: 0.0.0.0:9443 is beyond loopback: it needs tls, or tokens would travel in the clear; \
         or auth: none, written out",
    ),
    (
        "auth: { clientCa: /c }",
        "router.auth: clientCa needs router.tls: certificates are shown in its handshake",
        "router.auth: clientCa needs router.tls: certificates are shown in its handshake",
    ),
    (
        "tls: { certFile: /c, keyFile: /k }",
        "",
        "router.listen: 0.0.0.0:9443 is beyond loopback: it needs auth: { tokenFile: FILE } or \
         { clientCa: FILE }; or auth: none, written out",
    ),
    ("tls: { certFile: /c, keyFile: /k }, auth: none", "", ""),
    ("tls: { certFile: /c, keyFile: /k }, auth: { tokenFile: /t }", "", ""),
    ("tls: { certFile: /c, keyFile: /k }, auth: { clientCa: /c }", "", ""),
];

#[test]
fn beyond_loopback_somebody_says_who_may_call() {
    for (keys, at_home, beyond) in DOORS {
        let keys = if keys.is_empty() { String::new() } else { format!(", {keys}") };
        for (listen, want) in
            [("127.0.0.1:9443", at_home), ("\"[::1]:9443\"", at_home), ("0.0.0.0:9443", beyond)]
        {
            let text = format!("router: {{ listen: {listen}{keys} }}");
            let have = problems(&text, &Flags::default());
            match want.is_empty() {
                true => assert!(have.starts_with("no problem"), "{text}: {have}"),
                false => assert_eq!(have, format!("cloud.yaml:1: {want}")),
            }
        }
    }
}

#[test]
fn the_defaults_are_those_of_the_contract() {
    let config = load_cloud("", "f", &Flags::default()).expect("nothing is wrong").config;
    assert_eq!(config.zone, "cloud");
    assert_eq!(config.data_dir, Path::new("/var/lib/edgemesh-cloud"));
    assert_eq!(config.source, Source::None);
    assert_eq!(config.hub.listen.to_string(), "0.0.0.0:10000");
    assert_eq!(config.hub.offline_grace.as_secs(), 30 * 86_400);
    assert_eq!(config.router.listen.to_string(), "127.0.0.1:9443");
    assert_eq!((config.router.tls, config.router.auth), (None, Auth::None));
    assert_eq!(config.dns.domain, "cluster.local");
    assert_eq!(config.admin.listen.to_string(), "127.0.0.1:15010");
    assert_eq!(config.access_log, AccessLog::All);
}

#[test]
fn the_flag_wins_over_the_file() {
    let flags = Flags { node: None, manifests: Some("/flag".into()) };
    let resolved = load_cloud("source: { kubernetes: {} }", "f", &flags).expect("a good file");
    assert_eq!(resolved.config.source, Source::Manifests("/flag".into()));
    assert_eq!(resolved.origin("source"), Origin::Flag("--manifests"));
}

/// Every key that this version serves.
const FULL: &str = include_str!("../cloud-full.yaml");

#[test]
fn check_prints_every_value_and_where_it_came_from() {
    for (name, text) in [
        ("check-cloud-defaults", ""),
        ("check-cloud-full", FULL),
        ("check-cloud-open", "router: { listen: \"0.0.0.0:9443\", auth: none }\n"),
    ] {
        let resolved = load_cloud(text, "cloud.yaml", &Flags::default()).expect(name);
        let yaml = resolved.to_yaml();
        common::golden::check(name, &yaml);
        let widest = yaml.lines().map(str::len).max();
        assert!(widest <= Some(80), "{name}: {widest:?}");
        let again = load_cloud(&yaml, "f", &Flags::default()).expect("what check prints");
        assert_eq!(again.config, resolved.config, "{name}");
    }
}

/// Who pastes what `check` prints and opens the door later is asked who may come in.
#[test]
fn what_check_prints_of_a_door_on_loopback_does_not_open_it_elsewhere() {
    let printed = load_cloud("", "f", &Flags::default()).expect("fine").to_yaml();
    let moved = printed.replace("127.0.0.1:9443", "0.0.0.0:9443");
    assert_ne!(moved, printed);
    assert!(problems(&moved, &Flags::default()).contains("is beyond loopback"));
}

#[test]
fn a_file_of_either_kind_is_checked_as_what_it_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let environment = Environment { node_name: Some("edge-1".into()), ..Environment::default() };
    let check = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("written");
        check_any(Some(&path), &environment, &Flags::default())
    };
    let cases = [
        ("a.yaml", "source: { manifests: /m }\n", Kind::Agent, Ok("node: edge-1 ")),
        ("b.yaml", "hub: { names: [c] }\n", Kind::Cloud, Ok("zone: cloud ")),
        ("cloud.yaml", "source: { manifests: /m }\n", Kind::Cloud, Ok("zone: cloud ")),
        ("c.yaml", "hub: { name: [c] }\n", Kind::Cloud, Err("hub.name: unknown key; ")),
        ("d.yaml", "proxy: { port: x }\n", Kind::Agent, Err("proxy.port: `x` is no port")),
    ];
    for (name, text, kind, want) in cases {
        let checked = check(name, text);
        assert_eq!(checked.guess.kind, kind, "{name}");
        match (checked.outcome, want) {
            (Ok(yaml), Ok(begin)) => assert!(yaml.starts_with(begin), "{name}: {yaml}"),
            (Err(problems), Err(words)) => {
                assert!(problems[0].to_string().contains(words), "{name}: {problems:?}");
            }
            (have, want) => panic!("{name}: {have:?}, not {want:?}"),
        }
    }
}

#[test]
fn garbage_is_an_error_and_nothing_worse() {
    for text in ["\u{0}", "\t- a", "a: b: c", "{", "- a", "word", "? [x]\n: y", "%YAML 9\n"] {
        assert!(load_cloud(text, "f", &Flags::default()).is_err(), "{text:.20}");
    }
}
