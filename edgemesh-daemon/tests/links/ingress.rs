//! Callers in the cloud, who reach Services at the edge by the router's ingress.

use std::io::Read as _;
use std::net::Shutdown;

use bytes::Bytes;
use http::Request;
use serde_json::Value;

use crate::common::namespace::in_namespace;
use crate::common::run::{need, run};
use crate::flows::h2peer;
use crate::h2_from;
use crate::nodes::{Node, agent, cloud, cloud_config, cloud_with, token};
use crate::raw::{End, Raw};
use crate::servers::PEER;
use crate::ways::{PORTS, address, backends};
use crate::world::{A1, B1, CLOUD, Place, World};

/// Where the ingress listens, on the cloud's own machine.
const AT: &str = "127.0.0.1:9443";

fn curl(arguments: &str) -> String {
    let ran = run(CLOUD.name, &format!("curl -sS -m 10 --path-as-is {arguments}"));
    assert_eq!(ran.code, Some(0), "{arguments}: {ran:?}");
    ran.out
}

/// HTTP by every form.
fn http(place: Place) {
    let (name, path) =
        (format!("at-{}.default", place.name), format!("_svc/default/at-{}", place.name));
    assert_eq!(curl(&format!("-H 'Host: {name}' http://{AT}/")), place.name);
    assert_eq!(curl(&format!("http://{AT}/{path}:80/")), place.name);
    assert_eq!(curl(&format!("-x http://{AT} http://{name}/")), place.name, "as a proxy");
    let status = curl(&format!("-o /dev/null -w '%{{http_code}}' http://{AT}/{path}/status/429"));
    assert_eq!(status, "429", "a Backend's word");
    let echo = curl(&format!("-T - -X POST http://{AT}/{path}/echo < /dev/null"));
    assert_eq!(echo, "");
}

/// gRPC by its authority: an answer, trailers, a deadline that is missed.
fn grpc(place: Place) {
    let line = format!("/usr/bin/python3 {PEER} ends {AT} at-{}.default:50051", place.name);
    let ran = run(CLOUD.name, &line);
    let said: Value = serde_json::from_str(&ran.out).unwrap_or_else(|e| panic!("{e}: {ran:?}"));
    assert_eq!(said["unary"], format!("{}:x", place.name));
    assert_eq!(said["Bad"], serde_json::json!(["UNAVAILABLE", "asked to fail", "on purpose"]));
    assert_eq!(said["Slow"][0], "DEADLINE_EXCEEDED", "{said}");
}

/// Bytes by CONNECT, in HTTP/1.
fn bytes(place: Place) {
    let mut raw = tunnel(place, 7);
    let said = [0x00, 0xfe].repeat(100_000);
    raw.send(&said);
    raw.stream().shutdown(Shutdown::Write).unwrap();
    assert_eq!(raw.rest(), (format!("{} bytes", said.len()), End::Closed));
    let mut raw = tunnel(place, 2701);
    raw.expect(b"Welcome\n");
    raw.send(b"hello\n");
    raw.expect(b"hello\n");
    raw.stream().shutdown(Shutdown::Write).unwrap();
    assert_eq!(raw.rest().1, End::Closed);
}

fn tunnel(place: Place, port: u16) -> Raw {
    let mut raw = Raw::connect(CLOUD.name, AT);
    let to = format!("at-{}.default:{port}", place.name);
    raw.send(format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n\r\n").as_bytes());
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        raw.reader.read_exact(&mut byte).expect("an answer");
        head.extend(byte);
    }
    assert!(head.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&head));
    raw
}

/// The same in HTTP/2, ended and reset.
fn bytes_by_http2(place: Place) {
    h2peer::runtime().block_on(async {
        let sender = h2_from(CLOUD.name, AT).await;
        let connect = async |port: u16| {
            let to = format!("at-{}.default:{port}", place.name);
            let mut sender = sender.clone().ready().await.unwrap();
            let (answer, stream) =
                sender.send_request(Request::connect(to).body(()).unwrap(), false).unwrap();
            (answer, stream)
        };
        let (answer, mut stream) = connect(7).await;
        let (said, length) = (vec![0xfe; 300_000], 300_000);
        assert!(h2peer::push(&mut stream, said.into(), true).await);
        let answered = h2peer::answered(answer.await).await;
        assert_eq!(answered.body, format!("{length} bytes").into_bytes());
        assert_eq!((answered.status, answered.reset), (200, None));
        let (answer, mut stream) = connect(2701).await;
        let mut heard = answer.await.unwrap().into_body();
        assert_eq!(heard.data().await.unwrap().unwrap(), "Welcome\n");
        stream.send_data(Bytes::from_static(b"hello\n"), false).unwrap();
        assert_eq!(heard.data().await.unwrap().unwrap(), "hello\n");
        stream.send_reset(h2::Reason::CANCEL);
    });
}

/// Whom the ingress does not understand, it tells what it tried.
fn nobody() {
    for (path, status, says) in [
        ("/a1/default/x", "404", "no Rule of namespace `default`"),
        ("/_any/default/x", "404", "no Rule of namespace `default`"),
        ("/a9/default/x", "404", "first segment `a9` is neither reserved nor a known node"),
    ] {
        let said = curl(&format!("-w ' %{{http_code}}' http://{AT}{path}"));
        assert!(said.contains(says) && said.ends_with(status), "{path}: {said}");
    }
}

fn services(world: &World) -> Vec<crate::common::run::Running> {
    let mut running = Vec::new();
    for place in [A1, B1] {
        world.service(&format!("at-{}", place.name), &address(place), PORTS, &[place]);
        running.extend(backends(world, place));
    }
    running
}

/// Each call has a line at both ends, of the same Message.
fn told(cloud: &Node, far: &Node, protocol: &str, client: impl FnOnce(Place)) {
    let before = cloud.access().len();
    println!("cloud to {}: {protocol}", far.place.name);
    client(far.place);
    for line in cloud.lines("a caller", before, 1, |line| line["protocol"] == protocol) {
        assert_eq!(line["via"], "direct", "the cloud is the hub: {line}");
        let there = far.lines("the Message", 0, 1, |there| there["message"] == line["message"]);
        assert_eq!((there.len(), &there[0]["from"]), (1, &"cloud".into()), "{there:#?}");
        for same in ["service", "backend", "outcome", "up", "down"] {
            // Who is late is told by whoever notices first.
            if line["path"] != "/t.T/Slow" {
                assert_eq!(line.get(same), there[0].get(same), "{same}: {line}\n{}", there[0]);
            }
        }
    }
}

#[test]
fn callers_in_the_cloud_reach_the_edge() {
    in_namespace("ingress::callers_in_the_cloud_reach_the_edge", || {
        need(&["nginx", "curl"]);
        let world = World::new();
        let _running = services(&world);
        let cloud = cloud(&world);
        for node in [agent(&world, A1), agent(&world, B1)] {
            told(&cloud, &node, "http1", http);
            told(&cloud, &node, "http2", grpc);
            told(&cloud, &node, "opaque", bytes);
            told(&cloud, &node, "opaque", bytes_by_http2);
        }
        nobody();
    });
}

/// From other machines: TLS, and a token.
#[test]
fn strangers_show_a_token() {
    in_namespace("ingress::strangers_show_a_token", || {
        need(&["nginx", "curl", "openssl"]);
        let world = World::new();
        let _running = services(&world);
        let (cert, key) = (world.path("cert.pem"), world.path("key.pem"));
        let file = world.write("router.token", "s3cret\n");
        let open = "router: { listen: \"127.0.0.1:9443\" }";
        let config = cloud_config(&world);
        assert!(config.contains(open), "{config}");
        let config = config.replace(
            open,
            &format!(
                "router: {{ listen: \"0.0.0.0:9443\", tls: {{ certFile: {}, keyFile: {} }}, auth: {{ tokenFile: {} }} }}",
                cert.display(),
                key.display(),
                file.display()
            ),
        );
        let cloud = cloud_with(&world, &config);
        world.write("token", &token(&world, ""));
        let _node = agent(&world, A1);
        let at = format!("{}:9443", CLOUD.ip);
        let from = |arguments: &str| {
            let tls = format!("--cacert {0} --proxy-cacert {0}", cert.display());
            let named = format!("--resolve web.default:9443:{}", CLOUD.ip);
            run(B1.name, &format!("curl -sS -m 10 {tls} {named} {arguments}"))
        };
        let bearer = "'Authorization: Bearer s3cret'";
        for version in ["--http1.1", "--http2"] {
            let path = "https://web.default:9443/_svc/default/at-a1/";
            assert_eq!(from(&format!("{version} -H {bearer} {path}")).out, "a1", "{version}");
            let said = from(&format!("{version} -w %{{http_code}} {path}")).out;
            assert!(said.ends_with("401"), "{version}: {said}");
        }
        // TLS through a tunnel in TLS; the Backend's certificate has the same name.
        let tunnel = "-x https://web.default:9443 \
             --connect-to web.default:443:at-a1.default:443 https://web.default/";
        assert_eq!(from(&format!("--proxy-header {bearer} {tunnel}")).out, "a1\n");
        let refused = from(tunnel);
        assert!(refused.err.contains("401"), "{refused:?}");
        world.write("router.token", "another\n");
        cloud.signal(nix::sys::signal::Signal::SIGHUP);
        crate::common::wait::eventually("the new token counts", crate::PATIENCE, || {
            let said = from(&format!(
                "-H 'Authorization: Bearer another' https://{at}/_svc/default/at-a1/ -k"
            ));
            (said.out == "a1").then_some(())
        });
    });
}
