//! Cases 7a, 7b, 12 and 13 of EdgeMesh's own test list, by the names of their objects. The others
//! are in `flows`.

use crate::PATIENCE;
use crate::common::namespace::{in_namespace, sh};
use crate::common::run::{Running, need};
use crate::common::wait::{eventually, timed};
use crate::nodes::{Node, agent, agent_alone, agent_config, cloud};
use crate::raw::Raw;
use crate::world::{A1, A2, B1, C1, C2, Cable, Place, World};

/// What a server of `tcp-echo` says before it is asked.
fn banner(namespace: &str, name: &str, at: Place) -> String {
    format!(
        "Welcome, you are connected to node {}.\nRunning on Pod {name}-1.\n\
         In namespace {namespace}.\nWith IP address {}.\nService default.\n",
        at.name, at.ip
    )
}

/// `cloudzone.yaml` or `edgezone.yaml`: a Service that selects one Pod, whose server greets, then
/// echoes.
fn tcp_echo(world: &World, [namespace, name, ip]: [&str; 3], at: Place) -> Running {
    need(&["socat", "nc"]);
    let Place { name: node, ip: pod, .. } = at;
    world.manifest(
        &format!("{namespace}-{name}"),
        &format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{ name: {name}-svc, namespace: {namespace} }}\n\
             spec:\n  clusterIP: {ip}\n  selector: {{ app: {name} }}\n  \
             ports: [{{ name: tcp-0, port: 2701, protocol: TCP, targetPort: 2701 }}]\n\
             ---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}-1\n  namespace: {namespace}\n  \
             labels: {{ app: {name} }}\nspec:\n  nodeName: {node}\n  \
             containers: [{{ name: main, ports: [{{ containerPort: 2701 }}] }}]\n\
             status:\n  phase: Running\n  podIP: {pod}\n  conditions: [{{ type: Ready, status: 'True' }}]\n"
        ),
    );
    let said = banner(namespace, name, at);
    let script = world.write(&format!("{name}.sh"), &format!("cat <<'END'\n{said}END\nexec cat\n"));
    let (listen, run) = (
        format!("TCP-LISTEN:2701,bind={pod},fork,reuseaddr"),
        format!("EXEC:sh {}", script.display()),
    );
    let log = world.path(&format!("{name}.log"));
    let running = Running::start(node, &["socat", &listen, &run], &log);
    eventually("it accepts", PATIENCE, || Raw::try_connect(node, &format!("{pod}:2701")).ok());
    running
}

/// `telnet NAME 2701`, a word, and its echo; gives the way that was taken.
#[track_caller]
fn greets_and_echoes(from: &Node, name: &str, banner: &str) -> String {
    let before = from.access().len();
    let ran = from.sh(&format!("echo hello | nc -N {name} 2701"));
    assert_eq!(ran.out, format!("{banner}hello\n"), "{name} from {}: {ran:?}", from.place.name);
    // Its own line: that of a call from elsewhere may come just now.
    let (service, namespace) = name.split_once('.').unwrap();
    let service = format!("{namespace}/{service}");
    let lines = from.lines(name, before, 1, |line| line["service"] == *service);
    lines[0]["via"].as_str().unwrap_or_default().to_owned()
}

/// From the cloud to both kinds of site, and from both to the cloud, where no agent runs.
#[test]
fn case_7a_and_7b_between_cloud_and_edge() {
    in_namespace("cases::case_7a_and_7b_between_cloud_and_edge", || {
        let world = World::new();
        let (edge, nat) =
            (["edgezone", "tcp-echo-edge", "10.96.7.1"], ["edgezone", "tcp-echo-nat", "10.96.7.2"]);
        let there = ["cloudzone", "tcp-echo-cloud", "10.96.7.3"];
        let _servers =
            [tcp_echo(&world, edge, B1), tcp_echo(&world, nat, A1), tcp_echo(&world, there, C2)];
        let _cloud = cloud(&world);
        let (a1, b1, c1) = (agent(&world, A1), agent(&world, B1), agent(&world, C1));
        for _ in 0..2 {
            for ([namespace, name, _], at) in [(edge, B1), (nat, A1)] {
                let to = format!("{name}-svc.{namespace}");
                greets_and_echoes(&c1, &to, &banner(namespace, name, at)); // case 7a
            }
            for from in [&a1, &b1] {
                let banner = banner("cloudzone", "tcp-echo-cloud", C2);
                let via = greets_and_echoes(from, "tcp-echo-cloud-svc.cloudzone", &banner); // case 7b
                assert_eq!(via, "hub");
            }
        }
    });
}

/// The relay at one address is gone while two sites talk through it. This version has one hub, so
/// the second relay is another address of it.
#[test]
fn case_12_another_relay() {
    in_namespace("cases::case_12_another_relay", || {
        let world = World::new();
        let edge = ["edgezone", "tcp-echo-edge", "10.96.7.1"];
        let _server = tcp_echo(&world, edge, B1);
        sh("ip -n cloud addr add 10.90.0.12/24 dev eth0");
        let _cloud = cloud(&world);
        let start = |place| {
            let config = agent_config(&world, place)
                .replace("[\"10.90.0.2:10000\"]", "[\"10.90.0.2:10000\", \"10.90.0.12:10000\"]");
            let mut node = agent_alone(&world, place, &format!("{config}peer: {{ path: hub }}\n"));
            node.wait_ready();
            node.wait_linked();
            node
        };
        let (a1, b1) = (start(A1), start(B1));
        let server = |node: &Node| {
            node.get("/v1/status")["links"]["cloud"]["server"]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        };
        let said = banner("edgezone", "tcp-echo-edge", B1);
        let mut here = "10.90.0.2";
        for next in ["10.90.0.12", "10.90.0.2"] {
            assert_eq!(greets_and_echoes(&a1, "tcp-echo-edge-svc.edgezone", &said), "hub");
            assert_eq!(
                (server(&a1), server(&b1)),
                (format!("{here}:10000"), format!("{here}:10000"))
            );
            let mut talk = Raw::connect("a1", "10.96.7.1:2701");
            talk.expect(said.as_bytes());
            sh(&format!(
                "iptables -I FORWARD -d {here} -j DROP; iptables -I FORWARD -s {here} -j DROP"
            ));
            let ((), took) = timed(|| {
                eventually("they talk again", PATIENCE, || {
                    let mut raw = Raw::try_connect("a1", "10.96.7.1:2701").ok()?;
                    raw.stream().set_read_timeout(Some(std::time::Duration::from_secs(1))).unwrap();
                    raw.send(b"hello\n");
                    let mut first = [0; 7];
                    std::io::Read::read_exact(&mut raw.reader, &mut first).ok()?;
                    (&first == b"Welcome").then_some(())
                });
            });
            println!("{here} is gone: they talk again after {took:?}");
            assert_ne!(talk.rest().1, crate::raw::End::Open, "who talked by it is told");
            eventually("both use the other one", PATIENCE, || {
                let other = format!("{next}:10000");
                (server(&a1) == other && server(&b1) == other).then_some(())
            });
            sh(&format!(
                "iptables -D FORWARD -d {here} -j DROP; iptables -D FORWARD -s {here} -j DROP"
            ));
            here = next;
        }
    });
}

/// The cloud is cut off; the nodes of a LAN go on, whether or not they had called each other.
#[test]
fn case_13_autonomy_of_a_lan() {
    in_namespace("cases::case_13_autonomy_of_a_lan", || {
        let world = World::new();
        let (one, two) =
            (["edgezone", "tcp-echo-one", "10.96.7.1"], ["edgezone", "tcp-echo-two", "10.96.7.2"]);
        let _servers = [tcp_echo(&world, one, A1), tcp_echo(&world, two, A2)];
        let _cloud = cloud(&world);
        let (a1, a2) = (agent(&world, A1), agent(&world, A2));
        greets_and_echoes(
            &a1,
            "tcp-echo-two-svc.edgezone",
            &banner("edgezone", "tcp-echo-two", A2),
        );
        Cable::Cloud.drop_packets();
        for _ in 0..3 {
            for (from, name, at) in [(&a1, "tcp-echo-two", A2), (&a2, "tcp-echo-one", A1)] {
                let via = greets_and_echoes(
                    from,
                    &format!("{name}-svc.edgezone"),
                    &banner("edgezone", name, at),
                );
                assert_eq!(via, "direct", "{name}");
            }
        }
        Cable::Cloud.pass_packets();
    });
}
