//! Names beyond Services: hosts, ports, addresses, names of the outside; and what follows Backends
//! that come and go.

use std::net::UdpSocket;

use crate::agent::{Agent, PATIENCE};
use crate::backend::Backend;
use crate::common::namespace::{in_namespace, sh};
use crate::common::run::{need, run};
use crate::common::wait::eventually;
use crate::raw::Raw;
use crate::world::{ONE, PLACES, TWO, World};

/// A headless Service whose two Backends have names.
const DB: &str = "apiVersion: v1
kind: Service
metadata: { name: db, namespace: default }
spec:
  clusterIP: None
  ports:
  - { name: http-db, port: 80, targetPort: 8080 }
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: { name: db-1, namespace: default, labels: { kubernetes.io/service-name: db } }
addressType: IPv4
ports: [{ name: http-db, port: 8080 }]
endpoints:
- { addresses: [\"10.4.0.1\"], hostname: db-0 }
- { addresses: [\"10.4.0.2\"], hostname: db-1 }
";

/// A question and a word of the right answer.
const DIG: &[(&str, &str)] = &[
    ("db-0.db.default.svc.cluster.local A", "198.18."),
    ("db-0.db.default AAAA", "fd96::"),
    ("+search db-1.db A", "198.18."),
    ("db-2.db.default.svc.cluster.local A", "status: NXDOMAIN"),
    (
        "_http-db._tcp.db.default.svc.cluster.local SRV",
        "0 100 80 db-0.db.default.svc.cluster.local.",
    ),
    (
        "_http-db._tcp.db.default.svc.cluster.local SRV",
        "0 100 80 db-1.db.default.svc.cluster.local.",
    ),
    ("_http-db._tcp.db.default.svc.cluster.local SRV", "ADDITIONAL: 5"),
    ("_http-db._tcp.db.default.svc.cluster.local A", "status: NOERROR"),
    ("_http-db._udp.db.default.svc.cluster.local SRV", "status: NXDOMAIN"),
    ("_http-web._tcp.web.default SRV", "0 100 80 web.default.svc.cluster.local."),
    ("-x 10.96.0.10", "web.default.svc.cluster.local."),
    ("-x fd10:96::10", "web.default.svc.cluster.local."),
    ("-x 10.4.0.1", "db-0.db.default.svc.cluster.local."),
    ("outside.default.svc.cluster.local A", "CNAME\twww.example.com."),
    ("outside.default.svc.cluster.local A", "A\t203.0.113.7"),
    ("+tcp outside.default A", "A\t203.0.113.7"),
    ("outside.default.svc.cluster.local AAAA", "status: NOERROR"),
    ("inside.default.svc.cluster.local A", "A\t10.96.0.10"),
];

#[test]
fn hosts_ports_addresses_and_outside_names() {
    in_namespace("hosts::hosts_ports_addresses_and_outside_names", || {
        need(&["dig", "curl"]);
        let world = World::new();
        upstream();
        let (one, two) =
            (Backend::start("", "one", ONE, 8080), Backend::start("", "two", TWO, 8080));
        world.manifest("db", DB);
        world.service("web", &["10.96.0.10", "fd10:96::10"], &["http-web:80:8080"], &[ONE]);
        let names = [("outside", "www.example.com"), ("inside", "web.default.svc.cluster.local")];
        for (name, other) in names {
            world.manifest(
                name,
                &format!(
                    "apiVersion: v1\nkind: Service\nmetadata: {{ name: {name} }}\n\
                     spec: {{ type: ExternalName, externalName: {other} }}\n"
                ),
            );
        }
        let agent = Agent::start(&world);
        for place in PLACES {
            for (question, want) in DIG {
                let ran = run(place, &format!("dig +tries=1 +time=3 {question}"));
                assert!(ran.out.contains(want), "`{place}` {question}: {want} in\n{}", ran.out);
            }
            // What a stub resolver makes of them.
            let ran = run(place, "getent ahosts outside.default | cut -d' ' -f1 | sort -u");
            assert_eq!(ran.out, "203.0.113.7\n", "from `{place}`");
            for (name, want) in [("db-0.db", "one"), ("db-1.db.default.svc", "two")] {
                for family in ["-4", "-6"] {
                    for _ in 0..3 {
                        let ran = run(place, &format!("curl -sS {family} http://{name}/"));
                        assert_eq!(ran.out, want, "from `{place}` {family} {name}: {ran:?}");
                    }
                }
            }
        }
        assert_eq!((one.counts().1, two.counts().1), (18, 18));
        // By the explicit proxy, a host is reached too, a name of the outside is refused.
        let by_proxy = |url: &str| run("", &format!("curl -sSi -x 127.0.0.1:15001 {url}")).out;
        assert!(by_proxy("http://db-1.db.default/").ends_with("two"));
        assert!(by_proxy("http://outside.default/").contains("x-edgemesh-refusal: externalName"));
        let told =
            run("", &format!("{} explain http://outside.default/", env!("CARGO_BIN_EXE_edgemesh")));
        assert!(told.out.contains("stands for www.example.com"), "{told:?}");
        let listed = run("", &format!("{} get services", env!("CARGO_BIN_EXE_edgemesh"))).out;
        assert!(listed.contains("is www.example.com"), "{listed}");
        // Addresses outlive a restart.
        let addresses = || run("", "dig +short db-0.db.default A db-0.db.default AAAA").out;
        let before = addresses();
        drop(agent);
        let _agent = Agent::start(&world);
        assert_eq!(addresses(), before);
    });
}

/// The name server of `resolv.conf`, which the agent alone reaches: one address for any name.
fn upstream() {
    sh("ip addr add 10.7.7.7/32 dev lo");
    let socket = UdpSocket::bind("10.7.7.7:53").unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((length, client)) = socket.recv_from(&mut buffer) {
            let four = buffer[length - 4..length] == [0, 1, 0, 1];
            let mut reply = buffer[..length].to_vec();
            reply[2..4].copy_from_slice(&[0x81, 0x80]);
            if four {
                reply[7] = 1;
                reply.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 203, 0, 113, 7]);
            }
            socket.send_to(&reply, client).unwrap();
        }
    });
}

/// One Backend, then that one on its way out beside another, then gone.
fn leaving(first: &str, second: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{ name: web }}\n\
         spec:\n  clusterIP: 10.96.0.10\n  ports: [{{ name: tcp, port: 80, targetPort: 8080 }}]\n\
         ---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata: {{ name: web-1, labels: {{ kubernetes.io/service-name: web }} }}\n\
         addressType: IPv4\nports: [{{ name: tcp, port: 8080 }}]\nendpoints:\n\
         - {{ addresses: [\"10.4.0.1\"], conditions: {{ {first} }} }}\n\
         - {{ addresses: [\"10.4.0.2\"], conditions: {{ {second} }} }}\n"
    )
}

const READY: &str = "ready: true";
const LEAVING: &str = "ready: false, serving: true, terminating: true";
const AWAY: &str = "ready: false, serving: false";

#[test]
fn backends_on_their_way_out_keep_what_they_have() {
    in_namespace("hosts::backends_on_their_way_out_keep_what_they_have", || {
        let world = World::new();
        let _one = Backend::start("", "one", ONE, 8080);
        let _two = Backend::start("", "two", TWO, 8080);
        world.manifest("web", &leaving(READY, AWAY));
        let _agent = Agent::start(&world);
        let ask = || Raw::connect("pod", "10.96.0.10:80").get("/").body;
        let mut old = Raw::connect("pod", "10.96.0.10:80");
        assert_eq!(old.get("/").body, "one");
        // In order: conditions of both, and who takes a new connection.
        let steps = [(LEAVING, AWAY, "one"), (LEAVING, READY, "two"), (AWAY, READY, "two")];
        for (first, second, want) in steps {
            world.manifest("web", &leaving(first, second));
            eventually(want, PATIENCE, || (ask() == want).then_some(()));
            for _ in 0..4 {
                assert_eq!(ask(), want, "{first}; {second}");
            }
            assert_eq!(old.get("/").body, "one", "{first}; {second}");
        }
    });
}
