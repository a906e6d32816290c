//! DaemonSet, Deployment and Services: rights, probes, ports and commands against the program's own.

use std::collections::BTreeMap;

use clap::Parser;
use edgemesh_daemon::cli::Cli;
use edgemesh_daemon::config::{Environment, Flags, load, load_cloud};
use serde_json::Value;

use crate::helm::{Chart, notes, render, words};

/// Longest that a stop drains; `agent::leaving` has the same.
const DRAIN_SECS: u64 = 30;
/// What capture, marks on sockets and port 53 ask for.
const AGENT_RIGHTS: &[&str] = &["NET_ADMIN", "NET_RAW", "NET_BIND_SERVICE"];

const PROBES: &[&str] = &["startupProbe", "livenessProbe", "readinessProbe"];

/// Every container of a Pod, those that run first too.
fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    ["initContainers", "containers"]
        .into_iter()
        .flat_map(|key| pod[key].as_array().into_iter().flatten())
}

/// The Pods of a chart with everything switched on, and what each may.
fn pods(chart: &Chart) -> [(&Value, &'static [&'static str]); 2] {
    [(chart.agent(), AGENT_RIGHTS), (chart.cloud(), &[])]
}

fn full() -> Chart {
    render(&["cloud.ca.existingSecret=ca", "cloud.router.enabled=true", "cloud.router.auth=none"])
}

#[test]
fn rights_are_those_that_are_needed() {
    let chart = full();
    for (pod, rights) in pods(&chart) {
        for container in containers(pod) {
            let context = &container["securityContext"];
            assert_eq!(words(&context["capabilities"]["drop"]), ["ALL"], "{container}");
            assert_eq!(words(&context["capabilities"]["add"]), *rights, "{container}");
            assert_eq!(context["allowPrivilegeEscalation"], false, "{container}");
            assert_eq!(context["readOnlyRootFilesystem"], true, "{container}");
            assert_eq!(context["seccompProfile"]["type"], "RuntimeDefault", "{container}");
            assert!(context.get("privileged").is_none(), "{container}");
        }
        for key in ["hostPID", "hostIPC"] {
            assert!(pod.get(key).is_none(), "{key}");
        }
    }
    assert_eq!(chart.cloud()["securityContext"]["runAsNonRoot"], true);
    assert!(chart.cloud().get("hostNetwork").is_none());
}

#[test]
fn the_agent_is_at_home_on_its_node() {
    let chart = render(&[]);
    let pod = chart.agent();
    assert_eq!(pod["hostNetwork"], true);
    // The cluster's name server as an upstream of one that answers in its place would be a circle.
    assert_eq!(pod["dnsPolicy"], "Default");
    assert_eq!(pod["priorityClassName"], "system-node-critical");
    assert_eq!(pod["tolerations"], serde_json::json!([{ "operator": "Exists" }]));
    let container = &pod["containers"][0];
    assert_eq!(container["env"][0]["name"], "NODE_NAME");
    assert_eq!(container["env"][0]["valueFrom"]["fieldRef"]["fieldPath"], "spec.nodeName");
    let kinds: BTreeMap<_, _> = pod["volumes"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|volume| {
            Some((volume["hostPath"]["path"].as_str()?, &volume["hostPath"]["type"]))
        })
        .map(|(path, kind)| (path, kind.as_str().unwrap()))
        .collect();
    let want = [("/run/xtables.lock", "FileOrCreate"), ("/var/lib/edgemesh", "DirectoryOrCreate")];
    assert_eq!(kinds, want.into());
    let listen = "listen:\n  - 127.0.0.1:15053\n  - 169.254.96.16:53\n";
    assert!(chart.file("edgemesh-agent", "agent.yaml").contains(listen));
}

#[test]
fn a_stop_has_time_to_drain() {
    let chart = full();
    for (pod, _) in pods(&chart) {
        let grace = pod["terminationGracePeriodSeconds"].as_u64().unwrap();
        assert!(grace > DRAIN_SECS, "{grace}");
    }
}

#[test]
fn one_cloud_and_never_two() {
    let chart = full();
    let deployment = &chart.one("Deployment", "edgemesh-cloud")["spec"];
    assert_eq!(
        (&deployment["replicas"], &deployment["strategy"]["type"]),
        (&1.into(), &"Recreate".into())
    );
}

/// Number of a container's port.
#[track_caller]
fn port(container: &Value, name: &str) -> u64 {
    let all = container["ports"].as_array().unwrap();
    let found = all.iter().find(|port| port["name"] == name);
    found.unwrap_or_else(|| panic!("no port {name} in {container}"))["containerPort"]
        .as_u64()
        .unwrap()
}

#[test]
fn ports_are_those_that_the_program_listens_on() {
    let chart = full();
    let named = Environment { node_name: Some("edge-1".into()), ..Environment::default() };
    let agent = load("", "agent.yaml", &named, &Flags::default()).unwrap().config;
    let cloud = load_cloud("", "cloud.yaml", &Flags::default()).unwrap().config;
    let container = &chart.agent()["containers"][0];
    assert_eq!(port(container, "metrics"), u64::from(agent.metrics.listen.port()));
    assert_eq!(port(container, "peer"), u64::from(agent.peer.listen.port()));
    let container = &chart.cloud()["containers"][0];
    assert_eq!(port(container, "hub"), u64::from(cloud.hub.listen.port()));
    assert_eq!(port(container, "router"), u64::from(cloud.router.listen.port()));
    for (service, to, from) in [
        ("edgemesh-cloud", "hub", cloud.hub.listen.port()),
        ("edgemesh-cloud-router", "router", cloud.router.listen.port()),
    ] {
        let spec = &chart.one("Service", service)["spec"];
        assert_eq!(spec["ports"][0]["targetPort"], to);
        assert_eq!(spec["ports"][0]["port"].as_u64(), Some(from.into()));
        let labels =
            &chart.one("Deployment", "edgemesh-cloud")["spec"]["template"]["metadata"]["labels"];
        for (key, value) in spec["selector"].as_object().unwrap() {
            assert_eq!(labels[key], *value, "{service}");
        }
    }
}

#[test]
fn probes_ask_pages_that_exist() {
    let chart = render(&["agent.metricsPort=16020"]);
    let container = &chart.agent()["containers"][0];
    assert_eq!(port(container, "metrics"), 16020);
    assert!(chart.file("edgemesh-agent", "agent.yaml").contains("listen: 0.0.0.0:16020"));
    for (probe, page) in
        [("startupProbe", "/healthz"), ("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")]
    {
        // `install` asks them of a running agent.
        let get = &container[probe]["httpGet"];
        assert_eq!((&get["path"], &get["port"]), (&page.into(), &"metrics".into()), "{probe}");
    }
    let cloud = load_cloud("", "cloud.yaml", &Flags::default()).unwrap().config;
    let admin = format!("--admin=http://{}", cloud.admin.listen);
    for probe in PROBES {
        let exec = &chart.cloud()["containers"][0][probe]["exec"]["command"];
        assert_eq!(words(exec), ["edgemesh", "status", &admin], "{probe}");
    }
}

/// Every command line of a Pod: what it starts, and what its probes do.
fn command_lines(pod: &Value) -> Vec<Vec<&str>> {
    let mut all = Vec::new();
    for container in containers(pod) {
        all.push([words(&container["command"]), words(&container["args"])].concat());
        for probe in PROBES {
            all.push(words(&container[probe]["exec"]["command"]));
        }
    }
    all.retain(|line| !line.is_empty());
    all
}

#[test]
fn commands_exist() {
    let chart = full();
    let mut lines: Vec<Vec<&str>> =
        pods(&chart).into_iter().flat_map(|(pod, _)| command_lines(pod)).collect();
    assert_eq!(lines.len(), 6);
    let notes = notes(&["cloud.persistence.type=emptyDir"]);
    let told = notes.lines().filter_map(|line| line.split("-- edgemesh ").nth(1));
    let told = told.map(|rest| rest.split(['|', '>', ')']).next().unwrap().split_whitespace());
    lines.extend(told.map(|rest| ["edgemesh"].into_iter().chain(rest).collect()));
    assert_eq!(lines.len(), 10, "{notes}");
    for line in lines {
        assert_eq!(line[0], "edgemesh");
        Cli::try_parse_from(&line).unwrap_or_else(|error| panic!("{line:?}: {error}"));
    }
}

/// Values, and what the notes then say.
const NOTES: &[(&[&str], &[&str])] = &[
    (
        &[],
        &[
            "create secret generic edgemesh-token --from-file=token=/dev/stdin",
            "cloud.example:31000",
        ],
    ),
    (&["cloud.persistence.type=emptyDir"], &["WARNING: cloud.persistence.type is emptyDir"]),
    (
        &["cloud.router.enabled=true", "cloud.router.auth=none"],
        &["WARNING: cloud.router.auth is none"],
    ),
    (&["cloud.enabled=false"], &["on the machine of the cloud"]),
];

#[test]
fn notes_tell_what_to_do_next() {
    for (sets, wanted) in NOTES {
        let notes = notes(sets);
        for want in *wanted {
            assert!(notes.contains(want), "{sets:?}: no `{want}` in\n{notes}");
        }
    }
}

/// Where the cloud keeps its authority, and the volume that comes of it.
const VOLUMES: &[(&[&str], &str, bool)] = &[
    (&[], r#"{"claimName":"edgemesh-cloud"}"#, true),
    (&["cloud.persistence.existingClaim=mine"], r#"{"claimName":"mine"}"#, false),
    (&["cloud.persistence.type=emptyDir"], "{}", false),
    (
        &["cloud.persistence.type=hostPath", "cloud.nodeSelector.a=b"],
        r#"{"path":"/var/lib/edgemesh-cloud","type":"DirectoryOrCreate"}"#,
        false,
    ),
];

#[test]
fn the_authority_is_kept_where_it_is_said() {
    for (sets, want, claims) in VOLUMES {
        let chart = render(sets);
        let volumes = chart.cloud()["volumes"].as_array().unwrap();
        let volume =
            volumes.iter().find(|volume| volume["name"] == "data").unwrap().as_object().unwrap();
        let is = volume.iter().find(|(key, _)| *key != "name").unwrap().1.to_string();
        assert_eq!(is, *want, "{sets:?}");
        assert_eq!(chart.all("PersistentVolumeClaim").len(), usize::from(*claims), "{sets:?}");
    }
}
