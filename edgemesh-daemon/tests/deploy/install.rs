//! The chart installed by hand: cloud and agent as it starts them, with the rights that it gives them, a
//! read-only root, and the steps of its notes.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid as Process;
use serde_json::Value;

use crate::common::folder::Folder;
use crate::common::namespace::{in_namespace, sh};
use crate::common::run::{Running, need, run};
use crate::common::wait::eventually;
use crate::helm::{Chart, render, words};
use crate::pod::{Pod, inside, read_only_root, serve, written_to_run};

/// How long a step may take.
const PATIENCE: Duration = Duration::from_secs(20);
const EDGEMESH: &str = env!("CARGO_BIN_EXE_edgemesh");
const PROGRAMS: &[&str] = &["iptables", "ip", "curl", "dig", "setpriv", "findmnt"];
/// NET_BIND_SERVICE, NET_ADMIN and NET_RAW, as the kernel shows them.
const THREE: &str = "0000000000003400";

/// What the chart is told: there is no API server here, so the cloud reads a folder.
const VALUES: &[&str] = &[
    "agent.cloud.servers={10.9.0.2:10000}",
    "cloud.source=none",
    "cloud.config.source.manifests=/etc/edgemesh/manifests",
    "cloud.ca.existingSecret=ca",
];

const SERVICE: &str = "apiVersion: v1
kind: Service
metadata: { name: one, namespace: default }
spec: { clusterIP: 10.96.0.80, ports: [{ name: http, port: 80, targetPort: 8080 }] }
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: { name: one-1, namespace: default, labels: { kubernetes.io/service-name: one } }
addressType: IPv4
ports: [{ name: http, port: 8080 }]
endpoints: [{ addresses: [10.9.0.2], conditions: { ready: true } }]
";

/// A node and, on a cable, the machine of the cloud.
struct Cluster {
    chart: Chart,
    cloud: Pod,
    agent: Pod,
    _folder: Folder,
}

impl Cluster {
    fn new() -> Self {
        sh("ip netns add cloud; ip -n cloud link set lo up
            ip link add c0 type veth peer name eth0 netns cloud
            ip addr add 10.9.0.1/24 dev c0; ip link set c0 up
            ip -n cloud addr add 10.9.0.2/24 dev eth0; ip -n cloud link set eth0 up
            ip -n cloud route add default via 10.9.0.1");
        serve("cloud", "10.9.0.2:8080", "one");
        let folder = Folder::new();
        let (chart, cloud, agent) = (render(VALUES), Pod::new("cloud"), Pod::new("edge-1"));
        cloud.write("/etc/edgemesh/cloud.yaml", &chart.file("edgemesh-cloud", "cloud.yaml"));
        cloud.write("/etc/edgemesh/manifests/one.yaml", SERVICE);
        agent.write("/etc/edgemesh/agent.yaml", &chart.file("edgemesh-agent", "agent.yaml"));
        read_only_root();
        Self { chart, cloud, agent, _folder: folder }
    }

    /// Starts the cloud, and waits until its probe says that it has.
    fn start_cloud(&self) -> Running {
        let container = &self.chart.cloud()["containers"][0];
        let cloud = self.cloud.start("cloud", container);
        let probe = words(&container["startupProbe"]["exec"]["command"]).join(" ");
        let probe = probe.replacen("edgemesh", EDGEMESH, 1);
        eventually("the cloud's probe", PATIENCE, || {
            (run("cloud", &probe).code == Some(0)).then_some(())
        });
        cloud
    }

    /// A command on the cloud, as `kubectl exec` runs it.
    #[track_caller]
    fn exec(&self, command: &str) -> String {
        let config = self.cloud.placed("/etc/edgemesh/cloud.yaml");
        let ran = run("cloud", &format!("{EDGEMESH} {command} --config {config}"));
        assert_eq!(ran.code, Some(0), "{command}: {}", ran.err);
        ran.out
    }

    /// What a probe of the agent is told.
    fn probe(&self, probe: &str) -> String {
        let page = self.chart.agent()["containers"][0][probe]["httpGet"]["path"].as_str().unwrap();
        run("", &format!("curl -s -o /dev/null -w '%{{http_code}}' http://127.0.0.1:15020{page}"))
            .out
    }
}

/// The state of the agent's Link to the cloud.
fn linked() -> String {
    let status = run("", "curl -s http://127.0.0.1:15000/v1/status").out;
    let status: Value = serde_json::from_str(&status).unwrap_or_default();
    status["links"]["cloud"]["state"].as_str().unwrap_or_default().to_owned()
}

/// What the guard and its child may, as the kernel knows it.
fn rights(agent: &Running) -> Vec<String> {
    let of = |id: &u32| sh(&format!("sed -n 's/^CapEff:\\t//p' /proc/{id}/status"));
    inside(agent).iter().map(of).map(|line| line.trim().to_owned()).collect()
}

/// The notes' last command finds no fault, and has the rights to look.
fn examined(cluster: &Cluster) {
    let mut exec = cluster.chart.agent()["containers"][0].clone();
    exec["args"] = serde_json::json!(["doctor", "--config=/etc/edgemesh/agent.yaml"]);
    let ran = run("", &cluster.agent.line(&exec).join(" "));
    assert!(ran.code == Some(0) && ran.out.contains("ok   cloud     linked"), "{}", ran.out);
}

/// The guard is process 1 of its container: when the agent is killed, it starts another.
fn guards(agent: &Running) {
    let [guard, first] = inside(agent)[..] else { panic!("guard and agent: {:?}", inside(agent)) };
    assert!(sh(&format!("grep ^NSpid: /proc/{guard}/status")).trim().ends_with("\t1"));
    kill(Process::from_raw(first.cast_signed()), Signal::SIGKILL).unwrap();
    eventually("there is another agent", PATIENCE, || match inside(agent)[..] {
        [still, second] => (still == guard && second != first).then_some(()),
        _ => None,
    });
    serves();
}

/// The notes' first step: the cloud makes a token, and a Secret brings it to the agents, which wait for it.
fn comes_up(cluster: &Cluster) -> (Running, Running) {
    let agent = cluster.agent.start("", &cluster.chart.agent()["containers"][0]);
    eventually("the agent lives", PATIENCE, || {
        (cluster.probe("livenessProbe") == "200").then_some(())
    });
    assert_eq!(cluster.probe("readinessProbe"), "503", "it has no records");
    let cloud = cluster.start_cloud();
    cluster.agent.write("/run/secrets/edgemesh/token", &cluster.exec("token create --ttl 24h"));
    eventually("the agent is ready", PATIENCE, || {
        (cluster.probe("readinessProbe") == "200").then_some(())
    });
    (agent, cloud)
}

/// What the agent is for, by address and by name, on the way of any process and on kubelet's.
const CALLS: &[(&str, &str)] = &[
    ("curl -s http://10.96.0.80/", "one"),
    ("curl -s http://one.default/", "one"),
    ("dig +short @169.254.96.16 one.default.svc.cluster.local", "10.96.0.80"),
];

/// Records are there a moment before the rules for them, and these before their names.
fn serves() {
    for (call, answer) in CALLS {
        eventually(call, PATIENCE, || (run("", call).out.trim() == *answer).then_some(()));
    }
}

/// As kubelet stops it; nothing of it is left in what `save` prints.
fn stops(mut agent: Running, save: &str) {
    kill(Process::from_raw(inside(&agent)[0].cast_signed()), Signal::SIGTERM).unwrap();
    let ended = eventually("the agent ends", 2 * PATIENCE, || agent.child.try_wait().unwrap());
    assert!(ended.success(), "{ended}");
    assert!(!sh(save).contains("EDGEMESH"));
}

/// It is the one thing beside the agent's own folder, and a volume of its Pod. Also nft's agent may take it, to
/// look at legacy rules.
fn only_the_lock_was_written() {
    let wrote = written_to_run();
    assert!(wrote.iter().all(|name| name == "xtables.lock"), "{wrote:?}");
}

#[test]
fn an_installation_comes_up_with_the_rights_that_it_gives() {
    in_namespace("install::an_installation_comes_up_with_the_rights_that_it_gives", || {
        need(PROGRAMS);
        let cluster = Cluster::new();
        let (agent, cloud) = comes_up(&cluster);
        serves();
        assert_eq!(rights(&agent), [THREE, THREE]);
        examined(&cluster);
        guards(&agent);
        moves_the_authority(&cluster, cloud);
        stops(agent, "iptables-nft-save -t nat");
        only_the_lock_was_written();
    });
}

#[test]
fn so_it_does_by_legacy_iptables() {
    in_namespace("install::so_it_does_by_legacy_iptables", || {
        need(PROGRAMS);
        sh("touch /run/xtables.lock; iptables-legacy -A INPUT -j ACCEPT");
        let cluster = Cluster::new();
        let (agent, _cloud) = comes_up(&cluster);
        serves();
        let save = "iptables-legacy-save -t nat";
        assert!(sh(save).contains("EDGEMESH"));
        stops(agent, save);
        only_the_lock_was_written();
    });
}

/// The notes' second step, and what comes of it: a cloud that lost its folder is the same authority again.
fn moves_the_authority(cluster: &Cluster, cloud: Running) {
    let saved = cluster.exec("ca export");
    assert!(saved.contains("PRIVATE KEY"), "{}", saved.len());
    cluster.cloud.write("/run/secrets/ca/ca.pem", &saved);
    drop(cloud);
    eventually("the agent misses the cloud", PATIENCE, || (linked() != "linked").then_some(()));
    sh(&cluster.cloud.placed("rm -rf /var/lib/edgemesh-cloud/*"));
    let restore = cluster.cloud.line(&cluster.chart.cloud()["initContainers"][0]).join(" ");
    for _ in 0..2 {
        let ran = run("cloud", &restore);
        assert_eq!(ran.code, Some(0), "{}", ran.err);
    }
    let _cloud = cluster.start_cloud();
    assert_eq!(cluster.exec("ca export"), saved);
    eventually("the agent is linked again", PATIENCE, || (linked() == "linked").then_some(()));
}
