//! Every protocol, from the node and from both kinds of pod, over both families, with nothing
//! configured but manifests.

use std::collections::BTreeSet;

use crate::agent::Agent;
use crate::common::namespace::in_namespace;
use crate::common::run::run;
use crate::servers::{self, PEER};
use crate::world::{ONE, PLACES, POD, TWO, World};

/// What it is, the client, and what the client must print. In a script `$family` is `-4` or `-6`
/// and `$six` is empty or `6`, which ends the names of Services with an IPv6 address only.
type Row = (&'static str, &'static str, fn(&str) -> bool);

/// Runs each row from each place over each family.
fn check(world: &World, places: &[&str], rows: &[Row]) {
    for place in places {
        for (family, six) in [("-4", ""), ("-6", "6")] {
            for (what, script, right) in rows {
                let folder = world.folder().display();
                let script =
                    format!("family={family} six={six} f={folder} peer={PEER}; cd $f; {script}");
                let ran = run(place, &script);
                assert!(
                    ran.code == Some(0) && right(&ran.out),
                    "{what} from `{place}` over IPv{}: {ran:#?}\n{script}",
                    &family[1..]
                );
            }
        }
    }
}

/// A dual-stack Service and one of the same backends with an IPv6 address only.
fn both(world: &World, name: &str, number: u8, ports: &[&str], backends: &[[&str; 2]]) {
    let six = format!("fd10:96::{number}");
    world.service(name, &[&format!("10.96.0.{number}"), &six], ports, backends);
    world.service(&format!("{name}6"), &[&format!("fd10:96::6:{number}")], ports, backends);
}

const CLIENTS_FIRST: &[Row] = &[
    ("HTTP/1.1", "curl -sS $family http://web$six.default/", is_nginx),
    ("HTTP/2", "curl -sS $family --http2-prior-knowledge http://web$six.default:82/", is_nginx),
    ("HTTP/2 by nghttp", "nghttp http://web$six.default:82/", is_nginx),
    ("HTTPS", "curl -sS $family --cacert cert.pem https://web$six.default/", is_nginx),
    (
        "TLS",
        "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | openssl s_client -connect web$six.default:443 \
         -servername web.default -CAfile cert.pem -verify_return_error -quiet -ign_eof 2>/dev/null",
        |out| out.contains("200 OK") && is_nginx(out),
    ),
    (
        "redis",
        "redis-cli -h redis$six.default <<END\nSET key $six-value\nGET key\nDEL key\nEND",
        |out| out.starts_with("OK\n") && out.contains("-value\n1\n"),
    ),
    ("gRPC", "/usr/bin/python3 $peer call greeter$six.default:50051 20", is_balanced_grpc),
];

fn is_nginx(out: &str) -> bool {
    ["nginx-node\n", "nginx-pod\n"].iter().any(|name| out.ends_with(name))
}

/// Twenty calls on one channel reach both servers, ten each; streams are whole and in order.
fn is_balanced_grpc(out: &str) -> bool {
    let said: serde_json::Value = serde_json::from_str(out).unwrap_or_default();
    let from = |name: &str| {
        let unary = said["unary"].as_array().map_or(&[][..], |all| all);
        unary.iter().filter(|answer| **answer == format!("{name}:x")).count()
    };
    let tails = |key: &str| -> Vec<String> {
        let all = said[key].as_array().map_or(&[][..], |all| all);
        all.iter().filter_map(|a| Some(a.as_str()?.split_once(':')?.1.to_owned())).collect()
    };
    from("grpc-1") == 10
        && from("grpc-2") == 10
        && tails("down") == ["0", "1", "2"]
        && tails("both") == ["0", "1", "2"]
        && said["up"].as_str().is_some_and(|joined| joined.ends_with(":a+b"))
        && said["big"] == 2_000_000
}

#[test]
fn clients_that_speak_first() {
    in_namespace("protocols::clients_that_speak_first", || {
        let world = World::new();
        let _servers = [
            servers::nginx(&world, "", "nginx-node", ONE),
            servers::nginx(&world, "pod", "nginx-pod", POD),
            servers::redis(&world, "", ONE),
            servers::grpc(&world, "", "grpc-1", ONE),
            servers::grpc(&world, "", "grpc-2", TWO),
        ];
        both(&world, "web", 10, &["a:80:8080", "b:82:8082", "c:443:8443"], &[ONE, POD]);
        both(&world, "redis", 11, &[":6379:6379"], &[ONE]);
        both(&world, "greeter", 12, &[":50051:50051"], &[ONE, TWO]);
        let agent = Agent::start(&world);
        check(&world, &PLACES, CLIENTS_FIRST);
        let seen: BTreeSet<(String, String)> = agent
            .access()
            .iter()
            .map(|line| (line["service"].to_string(), line["protocol"].to_string()))
            .collect();
        for (service, protocol) in [
            ("web", "http1"),
            ("web", "http2"),
            ("web", "tls"),
            ("redis", "opaque"),
            ("greeter6", "http2"),
        ] {
            let want = (format!("\"default/{service}\""), format!("\"{protocol}\""));
            assert!(seen.contains(&want), "{want:?} is not among {seen:?}");
        }
        for line in agent.access() {
            // nginx closes without reading the client's close_notify, which is a reset on the wire.
            let reset = line["protocol"] == "tls" && line["outcome"] == "failed";
            assert!(line["outcome"] == "ok" || reset, "{line}");
        }
    });
}

const SERVERS_FIRST: &[Row] = &[
    ("MariaDB", "mariadb --no-defaults -h db$six.default -u root -N -e 'select 40+2'", |out| {
        out == "42\n"
    }),
    (
        "ssh",
        "cp -n key k; chmod 600 k; ssh -F none $family -i k -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null \
         -o LogLevel=ERROR runner@shell$six.default 'echo hi from $(id -u)'",
        |out| out == "hi from 1000\n",
    ),
];

#[test]
fn servers_that_speak_first() {
    in_namespace("protocols::servers_that_speak_first", || {
        let world = World::new();
        let _servers = [servers::mariadb(&world), servers::sshd(&world)];
        both(&world, "db", 20, &[":3306:3306"], &[ONE]);
        both(&world, "shell", 21, &[":22:2222"], &[ONE]);
        let agent = Agent::start(&world);
        check(&world, &PLACES, SERVERS_FIRST);
        check(&world, &PLACES, SERVERS_FIRST); // now the ports are known to be server-first
        // Both ask before they are asked; nobody may have waited for a time-out.
        for line in agent.lines("a line a flow", 2 * PLACES.len() * 2 * 2, |_| true) {
            assert_eq!(
                (&line["protocol"], &line["outcome"]),
                (&"opaque".into(), &"ok".into()),
                "{line}"
            );
            assert!(line["ms"].as_f64().unwrap() < 5000.0, "{line}");
        }
        assert!(agent.metric("edgemesh_dials_raced_total", "") >= 0.0);
    });
}
