//! `agent.yaml`: what is refused and in which words, what wins over what, how `check` prints it.

mod common;

#[path = "config/cloud.rs"]
mod cloud;
#[path = "config/linked.rs"]
mod linked;

use std::path::PathBuf;

use edgemesh_core::config::AccessLog;
use edgemesh_core::config::Dns;
use edgemesh_core::config::DnsIntercept;
use edgemesh_core::config::Proxy;
use edgemesh_daemon::config::Environment;
use edgemesh_daemon::config::Flags;
use edgemesh_daemon::config::Origin;
use edgemesh_daemon::config::Source;
use edgemesh_daemon::config::load;
use edgemesh_router::kubernetes::Access;

fn environment(node_name: Option<&str>) -> Environment {
    Environment {
        node_name: node_name.map(str::to_owned),
        hostname: Some("Box-7.local".into()),
        columns: None,
    }
}

fn problems(text: &str) -> String {
    match load(text, "agent.yaml", &environment(None), &Flags::default()) {
        Ok(resolved) => format!("no problem: {:?}", resolved.config),
        Err(problems) => problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
    }
}

/// A source for rows that are about something else.
const OK: &str = "source: { manifests: /m }\n";

const BAD: &[(&str, &str)] = &[
    // unknown keys and wrong shapes
    ("proxyy: {}", "agent.yaml:2: proxyy: unknown key; did you mean `proxy`?"),
    ("proxy:\n  Port: 1", "agent.yaml:3: proxy.Port: unknown key; did you mean `port`?"),
    (
        "dns:\n  virtualrange: []",
        "agent.yaml:3: dns.virtualrange: unknown key; did you mean `virtualRange`?",
    ),
    ("admin: { speed: 1 }", "agent.yaml:2: admin.speed: unknown key; known here: listen"),
    ("proxy: 15001", "agent.yaml:2: proxy: wants a section, found one value"),
    ("proxy: { address: 169.254.1.1 }", "agent.yaml:2: proxy.address: wants a list: [169.254.1.1]"),
    ("node: [a]", "agent.yaml:2: node: wants one value, found a list"),
    ("zone: a\nzone: b", "agent.yaml:3: zone: is given twice; first on line 2"),
    ("zone: [", "agent.yaml:2: not YAML: "),
    ("zone: *a", "agent.yaml:2: not YAML: "),
    ("---\nzone: a", "agent.yaml:3: a second document; one file is one"),
    // wrong values
    (
        "proxy: { port: 70000 }",
        "agent.yaml:2: proxy.port: `70000` is no port: a number from 0 to 65535",
    ),
    (
        "proxy: { mark: red }",
        "agent.yaml:2: proxy.mark: `red` is no mark: a number of 32 bits, such as 0x2065",
    ),
    ("proxy: { nodePorts: yes }", "agent.yaml:2: proxy.nodePorts: `yes` is neither true nor false"),
    ("proxy: { intercept: nft }", "agent.yaml:2: proxy.intercept: `nft` is none of iptables, none"),
    (
        "proxy: { include: all }",
        "agent.yaml:2: proxy.include: `all` is neither auto nor a list of prefixes",
    ),
    (
        "proxy:\n  exclude:\n  - 10.0.0.0/8\n  - 10.1.2.3/8",
        "agent.yaml:5: proxy.exclude[1]: `10.1.2.3/8` has bits beyond its length; did you mean 10.0.0.0/8?",
    ),
    (
        "proxy: { excludePorts: [0] }",
        "agent.yaml:2: proxy.excludePorts[0]: `0` is no port: a number from 1 to 65535",
    ),
    (
        "proxy: { serviceFilterMode: FilterIfLabelDoesNotExist }",
        "agent.yaml:2: proxy.serviceFilterMode: `FilterIfLabelDoesNotExist` is none of FilterIfLabelExists, FilterIfLabelDoesNotExists",
    ),
    ("dns: { intercept: true }", "agent.yaml:2: dns.intercept: `true` is none of auto, on, off"),
    ("dns: { domain: Cluster }", "agent.yaml:2: dns.domain: `Cluster` is no name: "),
    (
        "dns: { listen: [localhost:53] }",
        "agent.yaml:2: dns.listen[0]: `localhost:53` is no IP:PORT, ",
    ),
    ("peer: { advertise: [here] }", "agent.yaml:2: peer.advertise[0]: `here` is no HOST:PORT"),
    ("accessLog: 1/0", "agent.yaml:2: accessLog: `1/0` is none of all, errors, off, 1/N"),
    ("node: Edge_1", "agent.yaml:2: node: `Edge_1` is no name: "),
    ("zone: site a", "agent.yaml:2: zone: `site a` is no label value: "),
    // rules across keys
    (
        "proxy: { address: [169.254.1.1, 169.254.1.2] }",
        "agent.yaml:2: proxy.address: at most one of IPv4, found 169.254.1.1 and 169.254.1.2",
    ),
    (
        "proxy: { address: [198.18.0.1] }",
        "agent.yaml:2: proxy.address: 198.18.0.1 lies in dns.virtualRange 198.18.0.0/16 (by default)",
    ),
    (
        "proxy: { address: [\"::\"] }",
        "agent.yaml:2: proxy.address: :: cannot be an address of the mesh's own device",
    ),
    (
        "proxy: { mark: 0 }",
        "agent.yaml:2: proxy.mark: 0 marks nothing, so the mesh would capture itself; ",
    ),
    ("dns: { virtualRange: [] }", "agent.yaml:2: dns.virtualRange: is empty; "),
    (
        "dns: { virtualRange: [198.18.0.0/25] }",
        "agent.yaml:2: dns.virtualRange: 198.18.0.0/25 is too small: a /24 or larger",
    ),
    (
        "dns: { virtualRange: [198.18.0.0/24, 198.19.0.0/24] }",
        "agent.yaml:2: dns.virtualRange: at most one of IPv4, found 198.18.0.0 and 198.19.0.0",
    ),
    (
        "admin: { listen: \"127.0.0.1:15001\" }",
        "agent.yaml: proxy.port: 127.0.0.1:15001 is taken by admin.listen, 127.0.0.1:15001 (agent.yaml:2)",
    ),
    (
        "metrics: { listen: \"[::]:15053\" }",
        "agent.yaml: dns.listen: 127.0.0.1:15053 is taken by metrics.listen, [::]:15053 (agent.yaml:2)",
    ),
    (
        "dns: { listen: [127.0.0.1:53, 127.0.0.1:53] }",
        "agent.yaml:2: dns.listen: 127.0.0.1:53 is taken by dns.listen, 127.0.0.1:53 (agent.yaml:2)",
    ),
    (
        "admin: { listen: \"0.0.0.0:15000\" }",
        "agent.yaml:2: admin.listen: 0.0.0.0:15000 is not on loopback; ",
    ),
    (
        "dns: { intercept: on }\nproxy: { intercept: none }",
        "agent.yaml:2: dns.intercept: on needs proxy.intercept: iptables, which is none (agent.yaml:3)",
    ),
    (
        "dns: { intercept: on, listen: [] }",
        "agent.yaml:2: dns.intercept: on needs an address in dns.listen",
    ),
    // all at once, in the order of the lines
    (
        "admin: { listen: x }\nzonne: a\nproxy: { mark: 0 }",
        "agent.yaml:2: admin.listen: `x` is no IP:PORT, …\nagent.yaml:3: zonne: unknown key; did you mean `zone`?\nagent.yaml:4: proxy.mark: 0 marks nothing, ",
    ),
];

/// Each wanted line is the beginning of the problem in its place; `…` ends a beginning early.
fn check_problems(text: &str, want: &str) {
    check_lines(text, &problems(text), want);
}

fn check_lines(text: &str, have: &str, want: &str) {
    let (lines, wanted): (Vec<_>, Vec<_>) = (have.lines().collect(), want.lines().collect());
    let fits = lines.len() == wanted.len()
        && lines
            .iter()
            .zip(&wanted)
            .all(|(have, want)| have.starts_with(want.trim_end_matches('…')));
    assert!(fits, "--- file\n{text}\n--- have\n{have}\n--- want\n{want}");
}

#[test]
fn a_mistake_is_named_with_file_line_key_and_what_would_be_right() {
    for (text, want) in BAD {
        check_problems(&format!("{OK}{text}\n"), want);
    }
}

#[test]
fn a_source_that_is_none_is_told_what_would_be_one() {
    const CLOUD: &str = "agent.yaml:1: source: cloud needs to know where the cloud is: `cloud: { servers: [HOST:PORT] }`";
    let cases = [
        ("source: cloud", CLOUD),
        ("source: cloud\ncloud: ~", CLOUD),
        (
            "source: { kubernetes: { server: here } }",
            "agent.yaml:1: source.kubernetes.server: `here` is no URL: …",
        ),
        (
            "source: { kubernetes: { server: \"http://k\", kubeconfig: /k } }",
            "agent.yaml:1: source.kubernetes.kubeconfig: says where the server is, as `server` does; …",
        ),
        (
            "source:\n  kubernetes:\n    context: c\n    tokenFile: /t\n    caFile: /c",
            "agent.yaml:3: source.kubernetes.context: means nothing without `kubeconfig`; …\n\
             agent.yaml:4: source.kubernetes.tokenFile: means nothing without `server`; …\n\
             agent.yaml:5: source.kubernetes.caFile: means nothing without `server`; …",
        ),
        (
            "source: { kubernetes: { url: \"http://k\" } }",
            "agent.yaml:1: source.kubernetes.url: unknown key; …",
        ),
        (
            "source: /m",
            "agent.yaml:1: source: `/m` is no source: one of cloud, none, { manifests: DIR }, { kubernetes: … }",
        ),
        (
            "source: { manifest: /m }",
            "agent.yaml:1: source.manifest: unknown key; did you mean `manifests`?",
        ),
        (
            "source: { manifests: ~ }",
            "agent.yaml:1: source: names no folder: source: { manifests: DIR }",
        ),
        (
            "source: { manifests: /m, kubernetes: {} }",
            "agent.yaml:1: source: wants one entry: source: { manifests: DIR }",
        ),
    ];
    for (text, want) in cases {
        check_problems(text, want);
    }
}

#[test]
fn a_source_is_read_and_the_flag_wins() {
    let folder = |path: &str| Source::Manifests(path.into());
    let cases = [
        ("source: { manifests: /m }", None, folder("/m")),
        ("source: { kubernetes: {} }", Some("/flag"), folder("/flag")),
        ("source: { kubernetes: {} }", None, Source::Kubernetes(Access::InCluster)),
        ("source:\n  kubernetes:", None, Source::Kubernetes(Access::InCluster)),
        (
            "source: { kubernetes: { kubeconfig: /k, context: edge } }",
            None,
            Source::Kubernetes(Access::Kubeconfig {
                file: "/k".into(),
                context: Some("edge".into()),
            }),
        ),
        (
            "source: { kubernetes: { server: \"https://k:6443\", tokenFile: /t, caFile: /c } }",
            None,
            Source::Kubernetes(Access::Url {
                server: "https://k:6443".into(),
                token_file: Some("/t".into()),
                ca_file: Some("/c".into()),
            }),
        ),
        ("source: cloud", Some("/flag"), folder("/flag")),
        ("", None, Source::None),
        ("source: none", None, Source::None),
        ("cloud: { servers: [c:1] }", None, Source::Cloud),
        ("source: cloud\ncloud: { servers: [c:1] }", None, Source::Cloud),
        ("source: none\ncloud: { servers: [c:1] }", None, Source::None),
        ("source: { manifests: /m }\ncloud: { servers: [c:1] }", None, folder("/m")),
        ("cloud: { servers: [c:1] }", Some("/flag"), folder("/flag")),
    ];
    for (text, flag, want) in cases {
        let flags = Flags { node: None, manifests: flag.map(PathBuf::from) };
        let resolved = load(text, "f", &environment(None), &flags).expect("a good file");
        assert_eq!(resolved.config.source, want, "{text}");
    }
}

#[test]
fn a_file_that_is_no_section_is_one_problem() {
    check_problems("- a", "agent.yaml:1: wants a section, found a list");
    check_problems("word", "agent.yaml:1: wants a section, found one value");
}

#[test]
fn the_flag_wins_over_the_environment_over_the_file_over_the_host_name() {
    const FILE: &str = "source: { manifests: /m }\nnode: in-file\n";
    let cases = [
        (FILE, Some("in-env"), Some("in-flag"), "in-flag", Origin::Flag("--node")),
        (FILE, Some("in-env"), None, "in-env", Origin::Env("NODE_NAME")),
        (FILE, Some(""), None, "in-file", Origin::File(2)),
        (FILE, None, None, "in-file", Origin::File(2)),
        (OK, None, None, "box-7.local", Origin::Hostname),
        ("node: 0123\nsource: { manifests: /m }", None, None, "0123", Origin::File(1)),
    ];
    for (text, env, flag, want, origin) in cases {
        let flags = Flags { node: flag.map(str::to_owned), manifests: None };
        let resolved = load(text, "f", &environment(env), &flags).expect("a good file");
        assert_eq!(resolved.config.node, want);
        assert_eq!(resolved.origin("node"), origin);
    }
}

#[test]
fn a_wrong_name_is_reported_where_it_came_from() {
    let cases = [
        (environment(Some("A")), None, "$NODE_NAME: node: "),
        (environment(None), Some("A".to_owned()), "--node: node: "),
        (
            Environment { hostname: Some("a_b".into()), ..Environment::default() },
            None,
            "this machine's host name: node: ",
        ),
        (Environment::default(), None, "agent.yaml: node: no name: "),
    ];
    for (environment, node, want) in cases {
        let flags = Flags { node, manifests: None };
        let problems = load(OK, "agent.yaml", &environment, &flags).expect_err("a wrong name");
        assert!(problems[0].to_string().starts_with(want), "{}", problems[0]);
    }
}

#[test]
fn the_defaults_are_those_of_the_library() {
    let flags = Flags { node: None, manifests: Some(PathBuf::from("/m")) };
    let config = load("", "f", &environment(None), &flags).expect("nothing is wrong").config;
    assert_eq!((config.proxy, config.dns), (Proxy::default(), Dns::default()));
    assert_eq!(config.access_log, AccessLog::All);
    assert_eq!(config.admin.listen.to_string(), "127.0.0.1:15000");
}

/// Every key that this version serves.
const FULL: &str = include_str!("agent-full.yaml");

/// The keys of an agent that has a cloud.
const LINKED: &str = "zone: site-a\ncloud:\n  servers: [cloud.example:10000, \"[fd00::1]:10000\"]\n  \
    tokenFile: /etc/edgemesh/token\n  offlineGrace: 720h\n  select:\n    zones: [site-a]\n    \
    labels: { example.com/tier: gold, empty: \"\", no: \"null\" }\npeer: { path: hub }\n";

#[test]
fn check_prints_every_value_and_where_it_came_from() {
    let flags = Flags { node: None, manifests: Some(PathBuf::from("/srv/manifests")) };
    let cases = [
        ("check-defaults", "", Flags { node: Some("edge-1".into()), ..flags.clone() }),
        ("check-full", FULL, Flags::default()),
        ("check-linked", LINKED, Flags { node: Some("edge-1".into()), manifests: None }),
        ("check-mixed", "zone: site-a\ndns:\n  intercept: off\n", flags),
    ];
    for (name, text, flags) in cases {
        let env = environment((name == "check-mixed").then_some("edge-9"));
        let resolved = load(text, "agent.yaml", &env, &flags).expect(name);
        common::golden::check(name, &resolved.to_yaml());
        let widest = resolved.to_yaml().lines().map(str::len).max();
        assert!(widest <= Some(80), "{name}: {widest:?}");
        let again = load(&resolved.to_yaml(), "f", &Environment::default(), &Flags::default());
        assert_eq!(again.expect("what check prints").config, resolved.config, "{name}");
    }
}

#[test]
fn words_that_other_yaml_readers_take_for_booleans_stay_words() {
    let text = "source: { manifests: /m }\ndns: { intercept: off }\naccessLog: off\n";
    let config = load(text, "f", &environment(None), &Flags::default()).expect("fine").config;
    assert_eq!(config.dns.intercept, DnsIntercept::Off);
    assert_eq!(config.access_log, AccessLog::Off);
}

#[test]
fn garbage_is_an_error_and_nothing_worse() {
    let deep = "[".repeat(5000);
    for text in ["\u{0}", "\t- a", "a: b: c", "{", "- a", "? [x]\n: y", deep.as_str(), "%YAML 9\n"]
    {
        assert!(load(text, "f", &environment(None), &Flags::default()).is_err(), "{text:.20}");
    }
}
