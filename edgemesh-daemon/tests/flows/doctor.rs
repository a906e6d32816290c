//! The doctor beside a broken node: each fault is found and explained, and gone when it is mended.

use std::sync::atomic::Ordering::SeqCst;

use serde_json::Value;

use crate::agent::{Agent, PATIENCE, config};
use crate::backend::Backend;
use crate::common::namespace::{in_namespace, sh};
use crate::common::run::{need, run};
use crate::common::wait::eventually;
use crate::world::{ONE, World};

/// The program.
const PROGRAM: &str = env!("CARGO_BIN_EXE_edgemesh");

/// A fault: what breaks it, which check finds it, how bad that is, words of the finding, what
/// mends it. `INSTALL` and `FILE` stand for the rules' installation and the configuration.
type Fault = (&'static str, &'static str, &'static str, &'static str, &'static str);

const FAULTS: &[Fault] = &[
    ("iptables -t nat -F OUTPUT", "chains", "bad", "IPv4, nft: the jump from OUTPUT", "INSTALL"),
    (
        "ip6tables -t nat -F EDGEMESH_IN",
        "chains",
        "bad",
        "IPv6, nft: chain EDGEMESH_IN has 0 of",
        "INSTALL",
    ),
    (
        "iptables -t nat -D EDGEMESH_OUT 1",
        "chains",
        "bad",
        "IPv4, nft: chain EDGEMESH_OUT has",
        "INSTALL",
    ),
    (
        "nft flush ruleset; iptables -t nat -N EDGEMESH_OUT",
        "chains",
        "bad",
        "chain EDGEMESH_IN is missing",
        "INSTALL",
    ),
    (
        "iptables -t nat -N KUBE-SERVICES; iptables -t nat -I OUTPUT -j KUBE-SERVICES",
        "order",
        "bad",
        "in OUTPUT the rule of kube-proxy `-A OUTPUT -j KUBE-SERVICES` stands before ours",
        "INSTALL",
    ),
    (
        "ip6tables -t nat -N EDGEMESH-PORTALS-CONTAINER
         ip6tables -t nat -I PREROUTING -j EDGEMESH-PORTALS-CONTAINER",
        "order",
        "bad",
        "IPv6, nft: in PREROUTING the rule of EdgeMesh (Go)",
        "INSTALL",
    ),
    ("ip link del edgemesh0", "device", "bad", "there is no device edgemesh0", "INSTALL"),
    (
        "ip addr del 169.254.96.16/32 dev edgemesh0",
        "device",
        "bad",
        "does not carry 169.254.96.16",
        "INSTALL",
    ),
    ("ip rule flush protocol 109", "routes", "bad", "ip -4 rule: 0 of", "INSTALL"),
    ("ip -6 route flush table 28005", "routes", "bad", "ip -6 route, table 28005: no ", "INSTALL"),
    (
        "iptables -t nat -A OUTPUT -d 203.0.113.1 -j RETURN
         iptables-legacy -t nat -A OUTPUT -d 203.0.113.1 -j RETURN",
        "backends",
        "warn",
        "others have NAT rules in nft",
        "iptables-legacy -t nat -F",
    ),
    (
        "flock -o /run/xtables.lock sleep 60 >/dev/null 2>&1 & echo $! >/run/holder",
        "lock",
        "warn",
        "the xtables lock is held by pid",
        "kill $(cat /run/holder)",
    ),
    (
        "nc -l 127.0.0.1 15001 >/dev/null 2>&1 & echo $! >/run/holder",
        "ports",
        "bad",
        "port 15001/tcp (proxy.port) is held by pid",
        "kill $(cat /run/holder)",
    ),
    (
        "cp /etc/resolv.conf /run/resolv; echo nameserver 127.0.0.53 >/etc/resolv.conf",
        "resolver",
        "warn",
        "points to the stub 127.0.0.53",
        "cat /run/resolv >/etc/resolv.conf",
    ),
    (
        "echo 'proxy: { excludePorts: [53] }' >>FILE",
        "resolver",
        "warn",
        "port 53 of the name server 10.7.7.7 is not captured",
        "sed -i '$d' FILE",
    ),
    ("echo 'prxy: {}' >>FILE", "config", "bad", "did you mean `proxy`", "sed -i '$d' FILE"),
    (
        "cp FILE /run/agent; echo 'hub: {}' >FILE",
        "config",
        "bad",
        "is the configuration of a cloud (it has `hub` on line 1)",
        "cp /run/agent FILE",
    ),
    (
        "echo 'cloud: { servers: [\"127.0.0.1:9\"] }' >>FILE",
        "cloud",
        "bad",
        "127.0.0.1:9 refuses connections: nothing listens there",
        "sed -i '$d' FILE",
    ),
    (
        "echo 'cloud: { servers: [\"127.0.0.1:9\"], tokenFile: /run/token }' >>FILE
         echo rubbish >/run/token",
        "token",
        "bad",
        "/run/token: this is no join token",
        "sed -i '$d' FILE",
    ),
    (
        "echo 'cloud: { servers: [\"127.0.0.1:9\"] }' >>FILE; echo rubbish >DATA/identity.pem",
        "identity",
        "bad",
        "identity.pem is damaged",
        "sed -i '$d' FILE; rm DATA/identity.pem",
    ),
    (
        "echo 'cloud: { servers: [\"127.0.0.1:9\"] }' >>FILE
         nc -l 127.0.0.1 15008 >/dev/null 2>&1 & echo $! >/run/holder",
        "ports",
        "bad",
        "port 15008/tcp (peer.listen) is held by pid",
        "sed -i '$d' FILE; kill $(cat /run/holder)",
    ),
    ("chmod 755 DATA", "data", "warn", "others may enter", "chmod 700 DATA"),
    ("mount -t tmpfs -o ro none DATA", "data", "bad", "read-only file system", "umount DATA"),
    ("mount -t tmpfs -o mode=700,size=1m none DATA", "data", "bad", "KiB are free", "umount DATA"),
    (
        "echo 1 >/proc/sys/net/ipv4/conf/all/route_localnet",
        "loopback",
        "warn",
        "neighbours can reach",
        "echo 0 >/proc/sys/net/ipv4/conf/all/route_localnet",
    ),
];

/// A UDP Service whose only Backend fails its check.
const ILL: &str = "apiVersion: v1
kind: Service
metadata: { name: ill, annotations: { edgemesh.io/check: tcp } }
spec:
  clusterIP: 10.96.0.81
  ports: [{ name: t, port: 53 }, { name: u, port: 53, protocol: UDP }]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: { name: ill-1, labels: { kubernetes.io/service-name: ill } }
addressType: IPv4
ports: [{ name: t, port: 5353 }, { name: u, port: 5353, protocol: UDP }]
endpoints: [{ addresses: [10.4.0.3], nodeName: node-1 }]
";

/// All findings.
fn findings(world: &World) -> Vec<Value> {
    let file = world.path("agent.yaml").display().to_string();
    let said = run("", &format!("{PROGRAM} doctor --config {file} -o json"));
    let report: Value =
        serde_json::from_str(&said.out).unwrap_or_else(|error| panic!("{error}: {said:?}"));
    let findings = report["findings"].as_array().unwrap().clone();
    let any_bad = findings.iter().any(|finding| finding["level"] == "bad");
    assert_eq!(said.code, Some(i32::from(any_bad)), "{said:?}");
    for finding in &findings {
        assert_eq!(finding["level"] == "ok", finding["fix"].is_null(), "{finding}");
    }
    findings
}

/// Whether a check found something with these words.
fn finds(findings: &[Value], check: &str, level: &str, words: &str) -> bool {
    findings.iter().any(|finding| {
        let found = finding["found"].as_str().unwrap_or_default();
        finding["check"] == check && finding["level"] == level && found.contains(words)
    })
}

#[test]
fn each_fault_is_found_and_explained_with_the_agent_down() {
    in_namespace("doctor::each_fault_is_found_and_explained_with_the_agent_down", || {
        need(&["nft", "nc", "flock"]);
        let world = World::new();
        world.service("one", &["10.96.0.80"], &[":80:8080"], &[ONE]);
        let file = world.write("agent.yaml", &config(&world)).display().to_string();
        let data = world.path("data");
        sh(&format!("mkdir -m 700 {}", data.display()));
        let install = format!("{PROGRAM} redirect install --config {file}");
        let before = findings(&world);
        assert!(finds(&before, "chains", "ok", "no agent runs"), "{before:#?}");
        sh(&install);
        let installed = findings(&world);
        assert!(
            finds(&installed, "agent", "bad", "The rules of one are in place"),
            "{installed:#?}"
        );
        let others = installed.iter().filter(|finding| finding["check"] != "agent");
        assert!(others.clone().all(|finding| finding["level"] == "ok"), "{installed:#?}");
        for (fault, check, level, words, mend) in FAULTS {
            let script = |text: &str| {
                let text = text.replace("INSTALL", &install).replace("FILE", &file);
                sh(&text.replace("DATA", &data.display().to_string()));
            };
            script(fault);
            eventually(fault, PATIENCE, || {
                finds(&findings(&world), check, level, words).then_some(())
            });
            script(mend);
            eventually(mend, PATIENCE, || {
                let findings = findings(&world);
                findings.iter().all(|f| f["check"] != *check || f["level"] == "ok").then_some(())
            });
        }
    });
}

/// Services that need no Backends: one stands for a DNS name, the Route of the other leads on.
const LED_ON: &str = "apiVersion: v1\nkind: Service\nmetadata: { name: out }\n\
    spec: { type: ExternalName, externalName: example.org }\n---\n\
    apiVersion: v1\nkind: Service\nmetadata: { name: shop }\n\
    spec: { clusterIP: 10.96.0.81, ports: [{ port: 80 }] }\n---\n\
    apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: { name: shop }\n\
    spec:\n  parentRefs: [{ group: '', kind: Service, name: shop }]\n  \
    rules: [{ backendRefs: [{ name: one, port: 80 }] }]\n";

#[test]
fn what_a_running_agent_knows_is_explained() {
    in_namespace("doctor::what_a_running_agent_knows_is_explained", || {
        let world = World::new();
        let one = Backend::start("", "one", ONE, 8080);
        world.service("one", &["10.96.0.80"], &[":80:8080"], &[ONE]);
        world.policy(
            "one",
            "  circuitBreaker: { consecutiveFailures: 1, ejectFor: 5m, maxEjectedPercent: 100 }",
        );
        world.service("far", &["10.97.0.80"], &[":80:8080"], &[]);
        world.manifest("led-on", LED_ON);
        // The agent takes what is ill out of the rules, which the manifests do not tell.
        world.manifest("ill", ILL);
        let narrow = format!("{}proxy: {{ include: [10.96.0.0/16] }}\n", config(&world));
        let agent = Agent::start_with(&world, &narrow);
        let well = findings(&world);
        for (check, level, words) in [
            ("agent", "ok", "ready; node node-1"),
            ("names", "ok", "svc.cluster.local by UDP and TCP, asked of 10.7.7.7:53"),
            ("ports", "ok", "all held by the agent"),
            ("outside", "warn", "default/far at 10.97.0.80 is not captured"),
            ("services", "warn", "default/far has no Backend"),
        ] {
            assert!(finds(&well, check, level, words), "{check}: {words}: {well:#?}");
        }
        for name in ["out", "shop"] {
            let needs = format!("default/{name} has no Backend");
            assert!(!finds(&well, "services", "warn", &needs), "{well:#?}");
        }
        eventually("the ill one is known", PATIENCE, || {
            let findings = findings(&world);
            finds(&findings, "services", "bad", "Backends of default/ill").then_some(())
        });
        let well = findings(&world);
        let bad = well.iter().filter(|finding| finding["level"] == "bad");
        assert!(bad.clone().all(|finding| finding["check"] == "services"), "{well:#?}");
        let sick = run(
            "",
            "edgemesh=http://127.0.0.1:15000; curl -sS -X PUT \
                $edgemesh/v1/registrations/default/sick/a -d '{\"port\": 9, \"check\": \"tcp\"}'",
        );
        assert!(sick.out.contains("\"ready\":false"), "{sick:?}");
        // What was healed is told afterwards.
        sh("iptables -t nat -F OUTPUT");
        world.manifest(
            "wrong",
            "apiVersion: v1\nkind: Service\nmetadata: { name: wrong }\nspec: { ports: 1 }\n",
        );
        one.gone.store(true, SeqCst);
        for (check, level, words) in [
            ("capture", "warn", "the jump from OUTPUT (IPv4) was gone: put back"),
            ("records", "bad", "wrong.yaml:4"),
            ("services", "bad", "1 of 1 IPv4 Backends of default/one, port 80, are ejected"),
            ("services", "bad", "1 of 1 IPv4 Backends of default/sick are ejected or unhealthy"),
        ] {
            eventually(words, PATIENCE, || {
                run("", "curl -sS -m 1 http://10.96.0.80/");
                finds(&findings(&world), check, level, words).then_some(())
            });
        }
        let said = findings(&world);
        assert!(!finds(&said, "services", "warn", "default/sick has no Backend"), "{said:#?}");
        let second = format!(
            "{}proxy: {{ intercept: none, port: 16001 }}\nadmin: {{ listen: 127.0.0.1:16000 }}\n\
             metrics: {{ listen: 127.0.0.1:16020 }}\ndns: {{ listen: [127.0.0.1:16053], intercept: off }}\n",
            config(&world).replace("/data\n", "/data2\n")
        );
        let other = Agent::spawn(&world, &second, &[]);
        let pid = format!("pid {}", other.id());
        eventually("the second agent is named", PATIENCE, || {
            finds(&findings(&world), "second", "warn", &pid).then_some(())
        });
        drop(other);
        world.write("agent.yaml", &narrow);
        agent.kill_all();
        assert!(finds(&findings(&world), "agent", "bad", "what they capture is refused"));
    });
}

#[test]
fn the_bundle_holds_what_helps_and_no_secret() {
    in_namespace("doctor::the_bundle_holds_what_helps_and_no_secret", || {
        let world = World::new();
        let _one = Backend::start("", "one", ONE, 8080);
        world.service("one", &["10.96.0.80"], &[":80:8080"], &[ONE]);
        sh("iptables -t nat -A OUTPUT -d 203.0.113.1 -m comment --comment token=abcdef -j RETURN");
        let _agent = Agent::start(&world);
        let out = world.path("b.tar.gz").display().to_string();
        let bundle = format!("{PROGRAM} doctor --bundle {out}");
        let said = run("", &bundle);
        assert!(
            said.code == Some(0) && said.err.contains(&format!("wrote {out}: 11 files, ")),
            "{said:?}"
        );
        assert!(said.out.lines().all(|line| line.chars().count() <= 80), "{}", said.out);
        let files = sh(&format!("tar -tzf {out} | sed 's#.*/##' | sort"));
        let want = "backends.json config.yaml doctor.txt log.txt metrics.txt network.txt resolv.conf \
                    rules.txt services.json status.json versions.txt";
        assert_eq!(files.split_whitespace().collect::<Vec<_>>().join(" "), want);
        let all = sh(&format!("tar -xzOf {out}"));
        for words in [
            "-A OUTPUT -m comment --comment edgemesh",
            "node: node-1",
            "\"revision\":",
            "ip -4 rule",
        ] {
            assert!(all.contains(words), "`{words}` is not in {all}");
        }
        assert!(all.contains("token: [redacted]") && !all.contains("abcdef"), "{all}");
        assert_eq!(sh(&format!("stat -c %a {out}")), "600\n");
        let again = run("", &bundle);
        assert!(again.code == Some(1) && again.err.contains("exists already"), "{again:?}");
    });
}
