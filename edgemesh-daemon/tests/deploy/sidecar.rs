//! `deploy/sidecar.yaml` as it stands: its files, its commands and its rights, in the network namespace of
//! a Pod.

use std::time::Duration;

use serde_json::Value;

use crate::common::namespace::{in_namespace, sh};
use crate::common::run::{need, run};
use crate::common::wait::eventually;
use crate::helm::{objects, words};
use crate::pod::{Pod, read_only_root, serve};
use crate::root;

/// How long a step may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// ConfigMap and Pod.
fn manifest() -> [Value; 2] {
    let text = std::fs::read_to_string(root("deploy/sidecar.yaml")).unwrap();
    objects(&text).try_into().expect("a ConfigMap and a Pod")
}

/// A container of the Pod.
#[track_caller]
fn container<'p>(pod: &'p Value, list: &str, name: &str) -> &'p Value {
    let mut all = pod["spec"][list].as_array().unwrap().iter();
    all.find(|container| container["name"] == name).unwrap_or_else(|| panic!("no {name} in {list}"))
}

/// Puts the ConfigMap's files where the Pod's volume has them.
fn mount(at: &Pod, map: &Value, pod: &Value) {
    let volumes = pod["spec"]["volumes"].as_array().unwrap();
    let config = &volumes.iter().find(|volume| volume["name"] == "config").unwrap()["configMap"];
    assert_eq!(config["name"], map["metadata"]["name"]);
    for item in config["items"].as_array().unwrap() {
        let text = map["data"][item["key"].as_str().unwrap()].as_str().unwrap();
        at.write(&format!("/etc/edgemesh/{}", item["path"].as_str().unwrap()), text);
    }
}

/// A Pod on its cable, and where its backends are.
fn network() {
    sh("ip netns add pod; ip -n pod link set lo up
        ip link add pod0 type veth peer name eth0 netns pod
        ip addr add 10.244.1.1/24 dev pod0; ip link set pod0 up
        ip -n pod addr add 10.244.1.2/24 dev eth0; ip -n pod link set eth0 up
        ip -n pod route add default via 10.244.1.1
        for a in 10.244.0.10 10.244.0.11; do ip addr add $a/32 dev lo; done");
    serve("", "10.244.0.10:8000", "one\n");
    serve("", "10.244.0.11:8000", "two\n");
}

/// Both of our containers change rules, and nothing else; the application needs no right.
const RIGHTS: &[(&str, &str, &[&str])] = &[
    ("initContainers", "redirect", &["NET_ADMIN", "NET_RAW"]),
    ("containers", "agent", &["NET_ADMIN", "NET_RAW"]),
    ("containers", "application", &[]),
];

#[test]
fn its_rights_and_its_image() {
    let [_, pod] = manifest();
    let image = concat!("edgemesh:", env!("CARGO_PKG_VERSION"));
    for (list, name, rights) in RIGHTS {
        let container = container(&pod, list, name);
        let context = &container["securityContext"];
        assert_eq!(words(&context["capabilities"]["drop"]), ["ALL"], "{name}");
        assert_eq!(words(&context["capabilities"]["add"]), *rights, "{name}");
        assert_eq!(context["allowPrivilegeEscalation"], false, "{name}");
        assert_eq!(container["image"] == image, !rights.is_empty(), "{name}");
    }
    assert!(pod["spec"].get("hostNetwork").is_none());
}

#[test]
fn a_call_to_a_cluster_ip_is_captured_and_answered() {
    in_namespace("sidecar::a_call_to_a_cluster_ip_is_captured_and_answered", || {
        need(&["iptables", "ip", "curl", "setpriv", "findmnt"]);
        network();
        let [map, pod] = manifest();
        let at = Pod::new("caller");
        mount(&at, &map, &pod);
        read_only_root();
        let call = "curl -sS --max-time 5 http://10.96.0.10/";
        // The address is nobody's: what answers it is the mesh, or nothing does.
        assert_ne!(run("pod", "curl -s --max-time 1 http://10.96.0.10/").code, Some(0));
        let redirect = at.line(container(&pod, "initContainers", "redirect")).join(" ");
        let ran = run("pod", &redirect);
        assert!(ran.code == Some(0) && ran.out.starts_with("installed"), "{ran:?}");
        // From here on nothing goes past an agent, which is not up yet.
        let refused = run("pod", call);
        assert!(refused.code == Some(7) && refused.err.contains("after 0 ms"), "{refused:?}");
        let agent = container(&pod, "containers", "agent");
        let _agent = at.start("pod", agent);
        let ready = "curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:15020/readyz";
        eventually("the agent is ready", PATIENCE, || {
            (run("pod", ready).out == "200").then_some(())
        });
        let application = container(&pod, "containers", "application");
        let _application = at.start("pod", application);
        eventually("the application is answered", PATIENCE, || {
            let said = at.said(application);
            (said.contains("one") || said.contains("two")).then_some(())
        });
        let line = eventually("it is in the access log", PATIENCE, || {
            let said = at.said(agent);
            said.lines().find(|line| line.contains("\"outcome\"")).map(Into::<String>::into)
        });
        let line: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(line["destination"], "10.96.0.10:80", "{line}");
        assert_eq!(
            (&line["service"], &line["outcome"]),
            (&"default/hello".into(), &"ok".into()),
            "{line}"
        );
        // Both of its backends take their turns.
        let answers: String = (0..4).map(|_| run("pod", call).out).collect();
        assert!(answers.contains("one") && answers.contains("two"), "{answers}");
    });
}
