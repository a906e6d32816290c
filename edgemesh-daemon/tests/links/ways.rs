//! The four ways, each by what clients speak, each direct and through the hub.

use std::path::Path;

use crate::common::namespace::in_namespace;
use crate::common::run::{Running, need};
use crate::nodes::{Node, agent, cloud};
use crate::world::{A1, A2, B1, C1, CLOUD, Place, World};

/// A web server and an echo that greets first, on a machine; both say where they are.
pub(crate) fn servers(world: &World, at: Place) -> [Running; 2] {
    let name = at.name;
    let script = format!(
        "while read -r line && [ \"$line\" != \"$(printf '\\r')\" ]; do :; done; printf 'HTTP/1.1 200 OK\\r\\nContent-Length: {}\\r\\n\\r\\n{name}'",
        name.len()
    );
    let answer = world.write(&format!("{name}-http.sh"), &script);
    let greeting =
        world.write(&format!("{name}-echo.sh"), &format!("echo 'hello from {name}'; exec cat"));
    let start = |port: u16, script: &Path| {
        let listen = format!("TCP-LISTEN:{port},bind={},reuseaddr,fork", at.ip);
        let run = format!("EXEC:sh {}", script.display());
        Running::start(name, &["socat", &listen, &run], &world.path(&format!("{name}-{port}.log")))
    };
    [start(8080, &answer), start(2701, &greeting)]
}

#[test]
fn nodes_join_and_are_in_step() {
    in_namespace("ways::nodes_join_and_are_in_step", || {
        let world = World::new();
        world.service("hello", "10.96.0.1", "http:80:8080", &[B1]);
        let cloud = cloud(&world);
        let (a1, b1) = (agent(&world, A1), agent(&world, B1));
        for node in [&a1, &b1] {
            let services = node.get("/v1/services");
            assert_eq!(services[0]["name"], "hello", "{services:#}");
        }
        let nodes = cloud.get("/v1/nodes");
        let b2 = nodes.as_array().unwrap().iter().find(|node| node["name"] == "b2").unwrap();
        assert_eq!((b2["zone"].as_str(), b2["agent"].as_bool()), (Some("site-b"), Some(false)));
        let certificate = &a1.get("/v1/status")["links"]["cloud"]["certificate"];
        assert_eq!(certificate["node"], "a1");
    });
}

/// The way that the last call of `node` took.
fn via(node: &Node) -> String {
    let lines = node.access();
    lines.last().and_then(|line| line["via"].as_str()).unwrap_or("none").to_owned()
}

#[test]
fn calls_reach_every_node() {
    in_namespace("ways::calls_reach_every_node", || {
        need(&["socat", "curl"]);
        let world = World::new();
        let at = [A1, A2, B1, C1];
        let ports = ["10.96.1.1", "10.96.1.2", "10.96.1.3", "10.96.1.4"];
        for (place, ip) in at.iter().zip(ports) {
            world.service(place.name, ip, "http:80:8080", &[*place]);
            world.service(
                &format!("echo-{}", place.name),
                ip.replace("10.96.1", "10.96.2").as_str(),
                "tcp:2701:2701",
                &[*place],
            );
        }
        let _servers: Vec<_> = at.iter().map(|place| servers(&world, *place)).collect();
        let _cloud = cloud(&world);
        let (a1, a2, b1) = (agent(&world, A1), agent(&world, A2), agent(&world, B1));
        for (from, to, ip) in [
            (&a1, B1, ports[2]),
            (&b1, A1, ports[0]),
            (&a1, A2, ports[1]),
            (&a1, A1, ports[0]),
            (&a1, C1, ports[3]),
            (&b1, C1, ports[3]),
            (&a2, B1, ports[2]),
        ] {
            for round in 0..3 {
                let ran = from.sh(&format!("curl -sS -m 5 http://{ip}/"));
                println!(
                    "{} -> {}: {} {} {}",
                    from.place.name,
                    to.name,
                    ran.out,
                    ran.err,
                    via(from)
                );
                let echo = from.sh(&format!(
                    "echo ping | socat -t 2 - TCP:{}:2701",
                    ip.replace("10.96.1", "10.96.2")
                ));
                println!("   echo {:?} {}", echo.out, echo.err);
                let _ = round;
            }
        }
        println!("{:#}", a1.get("/v1/nodes"));
        println!("{}", a1.log());
        let _ = CLOUD;
        panic!("look");
    });
}
