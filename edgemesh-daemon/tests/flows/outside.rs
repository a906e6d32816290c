//! What the kernel does beside captured TCP: NodePorts, external IPs, UDP; and clients that are
//! introduced to their Backends.

use std::collections::BTreeSet;
use std::net::{SocketAddr, UdpSocket};

use nix::sys::signal::{Signal, kill};

use crate::agent::{Agent, PATIENCE, config};
use crate::backend::Backend;
use crate::common::namespace::{in_namespace, sh, within};
use crate::common::run::{Running, need, run};
use crate::common::wait::eventually;
use crate::world::{ONE, POD, World, listen};

/// A neighbour behind the interface with the default route, that knows the way to everything.
fn uplink() {
    sh("ip netns add lan; ip link add up0 type veth peer name eth0 netns lan
        ip addr add 10.3.0.1/24 dev up0; ip addr add fd03::1/64 dev up0 nodad; ip link set up0 up
        ip -n lan addr add 10.3.0.2/24 dev eth0; ip -n lan addr add fd03::2/64 dev eth0 nodad
        ip -n lan link set eth0 up; ip -n lan link set lo up
        ip route add default via 10.3.0.2; ip route add default via fd03::2
        ip -n lan route add default via 10.3.0.1; ip -n lan route add default via fd03::1");
}

/// With NodePorts.
fn with_node_ports(world: &World) -> String {
    format!("{}proxy: {{ nodePorts: true, excludePorts: [30090] }}\n", config(world))
}

/// From where, to what, over which family, what answers; empty: nobody.
const NODE_PORTS: &[(&str, &str, &str)] = &[
    ("", "10.3.0.1:30080", "one"),
    ("", "127.0.0.1:30080", "one"),
    ("", "[fd03::1]:30080", "one"),
    ("", "[::1]:30080", "one"),
    ("pod", "10.1.0.1:30080", "one"),
    ("pod", "10.3.0.1:30080", "one"),
    ("pod", "[fd01::1]:30080", "one"),
    ("lan", "10.3.0.1:30080", "one"),
    ("lan", "10.1.0.1:30080", "one"),
    ("lan", "[fd03::1]:30080", "one"),
    ("", "192.0.2.5:80", "one"),
    ("pod", "192.0.2.5:80", "one"),
    ("lan", "192.0.2.5:80", "one"),
    // another's port, a port that is excluded, ports that are nobody's
    ("", "10.3.0.2:30080", ""),
    ("lan", "10.3.0.1:30090", ""),
    ("lan", "10.3.0.1:30099", ""),
    // what is not for the outside stays inside
    ("", "10.96.0.10:80", "one"),
    ("lan", "10.96.0.10:80", ""),
    // a program that is hidden
    ("lan", "10.3.0.1:30081", "one"),
];

#[test]
fn node_ports_are_for_everybody() {
    in_namespace("outside::node_ports_are_for_everybody", || {
        need(&["curl", "dig"]);
        let world = World::new();
        uplink();
        let _one = Backend::start("", "one", ONE, 8080);
        world.service(
            "web",
            &["10.96.0.10"],
            &["a:80:8080", "b:81:8080", "c:82:8080", "d:83:8080"],
            &[ONE],
        );
        let text = std::fs::read_to_string(world.path("manifests/web.yaml")).unwrap();
        let text = text
            .replace("spec:\n", "spec:\n  type: NodePort\n  externalIPs: [192.0.2.5]\n")
            .replace("port: 80,", "port: 80, nodePort: 30080,")
            .replace("port: 81,", "port: 81, nodePort: 30081,")
            .replace("port: 82,", "port: 82, nodePort: 30090,")
            .replace("port: 83,", "port: 83, nodePort: 15053,");
        world.manifest("web", &text);
        let _hidden = listen("", "10.3.0.1:30081");
        let agent = Agent::start(&world);
        assert_eq!(curl("lan", "10.3.0.1:30080"), "", "not asked for");
        world.write("agent.yaml", &with_node_ports(&world));
        kill(agent.worker(), Signal::SIGHUP).unwrap();
        eventually("they are asked for", PATIENCE, || {
            let both = ["10.3.0.1:30080", "[fd03::1]:30080"];
            both.iter().all(|at| curl("lan", at) == "one").then_some(())
        });
        for (from, to, want) in NODE_PORTS {
            assert_eq!(curl(from, to), *want, "from `{from}` to {to}");
        }
        let lines = agent.lines("by NodePort", 1, |line| {
            line["destination"] == "10.1.0.1:30080"
                && line["client"].as_str().is_some_and(|client| client.starts_with("10.3.0.2:"))
        });
        assert_eq!(lines[0]["service"], "default/web");
        assert!(agent.log().contains("NodePort 30081 hides flows"), "{}", agent.log());
        let notes = agent.get("/v1/status")["capture"]["notes"].to_string();
        assert!(notes.contains("which listens on it too"), "{notes}");
        assert!(notes.contains("15053 of default/web is a port of the agent's own"), "{notes}");
        let by_tcp =
            "dig +tcp +short +time=2 +tries=1 -p 15053 @127.0.0.1 web.default.svc.cluster.local";
        assert_eq!(run("", by_tcp).out, "10.96.0.10\n", "the agent's own port is not hidden");
        // Gone with its Service.
        world.remove_manifest("web");
        eventually("the rules follow", PATIENCE, || {
            (!sh("iptables-save -t nat").contains("30080")).then_some(())
        });
        assert_eq!(curl("lan", "10.3.0.1:30080"), "");
    });
}

fn curl(from: &str, to: &str) -> String {
    run(from, &format!("curl -s -m 3 --noproxy '*' http://{to}/")).out
}

/// A server of datagrams that says its name.
fn datagrams(netns: &str, at: &str, name: &'static str) {
    let at: SocketAddr = at.parse().unwrap();
    let socket = within(netns, move || UdpSocket::bind(at).unwrap());
    std::thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((_, client)) = socket.recv_from(&mut buffer) {
            socket.send_to(name.as_bytes(), client).unwrap();
        }
    });
}

/// EdgeMesh's `hostname-udp.yaml`, in both families.
fn hostname_udp(backends: &[[&str; 2]]) -> String {
    let text = crate::world::service(
        "hostname-udp-svc",
        &["10.96.0.20", "fd10:96::20"],
        &["udp-0:12345:9376"],
        backends,
    );
    text.replace("name: \"udp-0\",", "name: \"udp-0\", protocol: UDP,")
        .replace("port: 12345,", "port: 12345, nodePort: 30123,")
}

/// Who answers `count` clients, each on a port of its own.
fn answers(from: &str, to: &str, count: u32) -> BTreeSet<String> {
    let script = format!("for i in $(seq {count}); do echo hi | nc -u -w 1 -W 1 {to}; echo; done");
    run(from, &script).out.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

/// A client of datagrams with a port of its own.
struct Steady(UdpSocket);

impl Steady {
    fn new(from: &str, to: &'static str) -> Self {
        Self(within(from, move || {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.connect(to).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket
        }))
    }

    fn ask(&self) -> String {
        self.0.send(b"hi").unwrap();
        let mut buffer = [0; 64];
        let length = self.0.recv(&mut buffer).expect("an answer");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }
}

#[test]
fn udp_services_are_served_by_the_kernel() {
    in_namespace("outside::udp_services_are_served_by_the_kernel", || udp("nft"));
}

#[test]
fn udp_services_are_served_by_legacy() {
    in_namespace("outside::udp_services_are_served_by_legacy", || {
        sh("iptables-legacy -A INPUT -j ACCEPT");
        udp("legacy");
    });
}

fn udp(backend: &'static str) {
    need(&["nc"]);
    let world = World::new();
    // As on every node with pods: without it no pod reaches another.
    sh("echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding");
    for (at, name) in [("10.4.0.1:9376", "one"), ("[fd04::1]:9376", "one")] {
        datagrams("", at, name);
    }
    for (at, name) in [("10.1.0.2:9376", "pod"), ("[fd01::2]:9376", "pod")] {
        datagrams("pod", at, name);
    }
    world.manifest("udp", &hostname_udp(&[ONE, POD]));
    let config = with_node_ports(&world);
    let agent = Agent::start_with(&world, &config);
    let both = BTreeSet::from(["one".to_owned(), "pod".to_owned()]);
    // Case 5: by name; from a Backend's own pod, too, where half of the flows come back home.
    let everywhere = |to: &str, expected: &BTreeSet<String>| {
        for from in ["", "pod", "bare"] {
            assert_eq!(answers(from, to, 24), *expected, "from `{from}` to {to}");
        }
    };
    everywhere("hostname-udp-svc 12345", &both);
    everywhere("10.96.0.20 12345", &both);
    everywhere("fd10:96::20 12345", &both);
    assert_eq!(answers("pod", "10.1.0.1 30123", 24), both);
    let capture = agent.get("/v1/status")["capture"].clone();
    assert_eq!((&capture["udpPorts"], &capture["udpElsewhere"]), (&1.into(), &0.into()));
    // Without a default route and with an uplink it is the same.
    uplink();
    everywhere("hostname-udp-svc 12345", &both);
    assert_eq!(answers("lan", "10.3.0.1 30123", 24), both);
    assert_eq!(answers("lan", "fd03::1 30123", 24), both);

    // A client that goes on sending from one port keeps its Backend, and loses it with it.
    let clients: Vec<_> = (0..24).map(|_| Steady::new("bare", "10.96.0.20:12345")).collect();
    let first: Vec<String> = clients.iter().map(Steady::ask).collect();
    assert_eq!(
        first.iter().cloned().collect::<BTreeSet<_>>(),
        both,
        "all alike, by chance: 1 in 8 million"
    );
    for (client, name) in clients.iter().zip(&first) {
        assert_eq!(client.ask(), *name);
    }
    // EdgeMesh's issue 567: its UDP ends after hundreds of datagrams.
    for _ in 0..1000 {
        assert_eq!(clients[0].ask(), first[0]);
    }

    let saved = || sh(&format!("iptables-{backend}-save -t nat; ip6tables-{backend}-save -t nat"));
    world.manifest("udp", &hostname_udp(&[POD]));
    eventually("the rules follow", PATIENCE, || {
        (!saved().contains("4.0.1:9376") && !saved().contains("[fd04::1]:9376")).then_some(())
    });
    everywhere("hostname-udp-svc 12345", &BTreeSet::from(["pod".to_owned()]));
    for client in &clients {
        assert_eq!(client.ask(), "pod");
    }
    assert!(answers("lan", "10.96.0.20 12345", 1).is_empty(), "inside only");
    // Case 5 again with a headless Service: its virtual address is served the same way.
    let headless = hostname_udp(&[ONE]).replace("\"10.96.0.20\"", "None");
    let headless = headless.replace("clusterIPs: [None, \"fd10:96::20\"]", "clusterIPs: [None]");
    world.manifest("udp", &headless);
    // Names are announced when the rules of both families are in place.
    eventually("names follow the rules", PATIENCE, || {
        let named = run("", "getent ahosts hostname-udp-svc").out;
        (named.contains("198.18.") && !named.contains("fd10:96::")).then_some(())
    });
    everywhere("hostname-udp-svc 12345", &BTreeSet::from(["one".to_owned()]));
    let mut agent = agent;
    agent.terminate();
    agent.wait();
    assert!(!saved().contains("EDGEMESH"), "{}", saved());
}

#[test]
fn backends_are_told_who_their_client_is() {
    in_namespace("outside::backends_are_told_who_their_client_is", || {
        need(&["nginx", "curl"]);
        let world = World::new();
        let _nginx = receiver(&world);
        let web = crate::world::service(
            "web",
            &["10.96.0.10", "fd10:96::10"],
            &["http-web:80:8080"],
            &[ONE],
        );
        let asks = "name: web, namespace: default";
        let web = web.replacen(
            asks,
            &format!("{asks}, annotations: {{ edgemesh.io/proxy-protocol: v2 }}"),
            1,
        );
        world.manifest("web", &web);
        let agent = Agent::start(&world);
        // Client, URL, and what the receiver saw: who, and where to.
        let rows = [
            ("pod", "http://web.default/", "-4", "10.1.0.2 10.96.0.10:80"),
            ("bare", "http://web.default/", "-4", "10.2.0.2 10.96.0.10:80"),
            ("pod", "http://web.default/", "-6", "fd01::2 fd10:96::10:80"),
            ("bare", "http://web.default/", "-6", "fd02::2 fd10:96::10:80"),
        ];
        for _ in 0..2 {
            for (from, url, family, want) in rows {
                let ran = run(from, &format!("curl -sS {family} {url} {url}"));
                assert_eq!(ran.out, format!("{want}\n{want}\n"), "{from} {family}: {ran:?}");
            }
        }
        let by_proxy = run("", "curl -sSi -x 127.0.0.1:15001 http://web.default/").out;
        assert!(by_proxy.contains("x-edgemesh-refusal: proxyProtocol"), "{by_proxy}");
        let tunnel = run("", "curl -sS -p -x 127.0.0.1:15001 http://web.default/");
        assert!(tunnel.out.starts_with("127.0.0.1 "), "{tunnel:?}");
        // Without the annotation the receiver would refuse what it hears.
        world.manifest("web", &web.replace(": v2", ": v1"));
        eventually("a remark", PATIENCE, || {
            let remarks = agent.get("/v1/status")["remarks"].to_string();
            remarks.contains("proxy-protocol").then_some(())
        });
    });
}

/// nginx, which insists on headers and says what they told.
fn receiver(world: &World) -> Running {
    let folder = world.folder().display();
    let config = format!(
        "daemon off; master_process off; user root; pid {folder}/pid; error_log stderr warn;
         events {{ }}
         http {{
           access_log off;
           client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3; uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
           server {{ listen 10.4.0.1:8080 proxy_protocol; listen [fd04::1]:8080 proxy_protocol;
             location / {{ return 200 \"$proxy_protocol_addr $proxy_protocol_server_addr:$proxy_protocol_server_port\\n\"; }} }}
         }}"
    );
    let file = world.write("receiver.conf", &config).display().to_string();
    let log = world.path("receiver.log");
    let running = Running::start("", &["nginx", "-e", "stderr", "-c", &file], &log);
    eventually("nginx listens", PATIENCE, || std::net::TcpStream::connect("10.4.0.1:8080").ok());
    running
}
