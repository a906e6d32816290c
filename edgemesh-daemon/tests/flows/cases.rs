//! Cases 1 to 4 and 11 of EdgeMesh's own test list, by the names of their objects, from the node and
//! from pods. Case 5 is in `outside`, 6a to 6d are in `balance`.

use std::fmt::Write as _;
use std::net::TcpStream;

use crate::agent::{Agent, PATIENCE, config};
use crate::backend::Backend;
use crate::common::namespace::{in_namespace, sh};
use crate::common::run::{Running, need, need_python, run};
use crate::common::wait::eventually;
use crate::raw::Raw;
use crate::world::{ONE, PLACES, POD, TWO, World};

/// WebSockets, server and client.
const WS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/flows/ws.py");
/// What asks the mesh to leave a Service to others.
const LABEL: &str = "service.edgemesh.kubeedge.io/service-proxy-name";

/// A world whose resolver looks in the namespace of the incumbent's examples, as its Pods do.
fn world() -> World {
    let world = World::new();
    world.write(
        "resolv.conf",
        "nameserver 10.7.7.7\n\
         search edgemesh-test.svc.cluster.local svc.cluster.local cluster.local\n\
         options ndots:5 timeout:2 attempts:2\n",
    );
    world
}

/// A Service `name` in the incumbent's shape, with the address that an API server gives it, and
/// its Pods, `name-1` and on. `port` is `name:port:targetPort`.
fn objects(name: &str, ip: &str, labels: &str, port: &str, pods: &[&str]) -> String {
    let [port_name, port, target] = port.split(':').collect::<Vec<_>>().try_into().unwrap();
    let mut text = format!(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\n  namespace: edgemesh-test\n  \
         labels: {{ {labels} }}\nspec:\n  clusterIP: {ip}\n  selector:\n    app: {name}\n  ports:\n    \
         - name: {port_name}\n      port: {port}\n      protocol: TCP\n      targetPort: {target}\n"
    );
    for (number, pod) in (1..).zip(pods) {
        write!(
            text,
            "---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}-{number}\n  \
             namespace: edgemesh-test\n  labels:\n    app: {name}\nspec:\n  nodeName: node-1\n  \
             containers:\n    - name: main\n      ports:\n        - containerPort: {target}\n\
             status:\n  phase: Running\n  podIP: {pod}\n  \
             conditions: [{{type: Ready, status: 'True'}}]\n"
        )
        .unwrap();
    }
    text
}

/// Runs a client from everywhere, which must succeed, and gives what it printed each time.
#[track_caller]
fn everywhere(script: &str) -> Vec<String> {
    let from = |place: &&str| {
        let ran = run(place, script);
        assert_eq!(ran.code, Some(0), "from `{place}`: {ran:?}\n{script}");
        ran.out
    };
    PLACES.iter().map(from).collect()
}

/// Waits until something accepts there.
fn accepts(at: &str) {
    eventually(&format!("{at} accepts"), PATIENCE, || TcpStream::connect(at).ok());
}

/// `hostname.yaml`: the body is the name of the Pod.
#[test]
fn case_1_http() {
    in_namespace("cases::case_1_http", || {
        let world = world();
        let _pod = Backend::start("pod", "hostname-edge-84cb45ccf4-n7fzt", POD, 9376);
        world.manifest(
            "a",
            &objects("hostname-svc", "10.96.11.1", "", "http-0:12345:9376", &[POD[0]]),
        );
        let _agent = Agent::start(&world);
        for body in everywhere("curl -sS hostname-svc:12345") {
            assert_eq!(body, "hostname-edge-84cb45ccf4-n7fzt");
        }
    });
}

/// `nginx-https/`: what the client and the server settle between them stays theirs.
#[test]
fn case_2_and_2b_https() {
    in_namespace("cases::case_2_and_2b_https", || {
        let world = world();
        let _nginx = nginx(&world);
        world.manifest("a", &objects("nginx-https", "10.96.11.2", "", "https:443:443", &[ONE[0]]));
        let hosts = world.write("hosts", "127.0.0.1 localhost\n10.96.11.2 my-nginx.com\n");
        sh(&format!("mount --bind {} /etc/hosts", hosts.display()));
        let agent = Agent::start(&world);
        let f = world.folder().display();
        let identity = format!("--cert {f}/client.crt --key {f}/client.key");
        let welcome = "Welcome to nginx! Your certificate is CN=client\n";
        for page in everywhere(&format!("curl -sS -k {identity} https://nginx-https")) {
            assert_eq!(page, welcome, "case 2");
        }
        let verified = format!("curl -sS {identity} --cacert {f}/ca.crt https://my-nginx.com");
        for page in everywhere(&verified) {
            assert_eq!(page, welcome, "case 2b");
        }
        // The certificates are looked at, on both sides.
        for page in everywhere("curl -sS -k https://nginx-https") {
            assert!(page.contains("No required SSL certificate was sent"), "{page}");
        }
        let stranger = format!("curl -sS {identity} --cacert {f}/client.crt https://my-nginx.com");
        assert_eq!(run("pod", &stranger).code, Some(60), "curl does not know that authority");
        let lines = agent.lines("TLS", 10, |line| line["service"] == "edgemesh-test/nginx-https");
        assert!(lines.iter().all(|line| line["protocol"] == "tls"), "{lines:#?}");
    });
}

/// nginx that insists on a certificate of the client.
fn nginx(world: &World) -> Running {
    need(&["nginx", "openssl", "curl"]);
    let f = world.folder().display();
    sh(&format!(
        "cd {f}; new='openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes'
         {{ $new -x509 -days 30 -keyout ca.key -out ca.crt -subj /CN=ca
         sign='openssl x509 -req -days 30 -CA ca.crt -CAkey ca.key -CAcreateserial'
         echo subjectAltName=DNS:my-nginx.com > san
         $new -keyout server.key -out server.csr -subj /CN=my-nginx.com
         $sign -in server.csr -out server.crt -extfile san
         $new -keyout client.key -out client.csr -subj /CN=client
         $sign -in client.csr -out client.crt; }} 2>&1"
    ));
    let file = world.write(
        "nginx.conf",
        &format!(
            "daemon off; master_process off; user root; pid {f}/pid; error_log stderr warn;
             events {{ }}
             http {{
               access_log off; default_type text/plain;
               client_body_temp_path {f}/t1; proxy_temp_path {f}/t2; fastcgi_temp_path {f}/t3; uwsgi_temp_path {f}/t4; scgi_temp_path {f}/t5;
               server {{ listen 10.4.0.1:443 ssl;
                 ssl_certificate {f}/server.crt; ssl_certificate_key {f}/server.key;
                 ssl_client_certificate {f}/ca.crt; ssl_verify_client on;
                 location / {{ return 200 \"Welcome to nginx! Your certificate is $ssl_client_s_dn\\n\"; }} }}
             }}"
        ),
    );
    let (file, log) = (file.display().to_string(), world.path("nginx.log"));
    let running = Running::start("", &["nginx", "-e", "stderr", "-c", &file], &log);
    accepts("10.4.0.1:443");
    running
}

/// What the server of case 3 says before it is asked.
const BANNER: &str = "Welcome, you are connected to node node-1.\nRunning on Pod tcp-echo-1.\n\
                      In namespace edgemesh-test.\nWith IP address 10.4.0.1.\nService default.\n";

/// `tcp-echo-service.yaml`: the server speaks first, then echoes. Also where the name of the port
/// does not say that it is TCP.
#[test]
fn case_3_tcp() {
    in_namespace("cases::case_3_tcp", || {
        need(&["socat", "nc"]);
        let world = world();
        let script = format!("#!/bin/sh\ncat <<'END'\n{BANNER}END\nexec cat\n");
        let script = world.write("echo.sh", &script).display().to_string();
        sh(&format!("chmod +x {script}"));
        let run_it = format!("EXEC:{script}");
        let line = ["socat", "TCP-LISTEN:2701,bind=10.4.0.1,fork,reuseaddr", &run_it];
        let _server = Running::start("", &line, &world.path("socat.log"));
        accepts("10.4.0.1:2701");
        let services =
            [("tcp-echo-service", "10.96.11.3", "tcp-0"), ("unnamed", "10.96.11.4", "\"\"")];
        for (name, ip, port) in services {
            world.manifest(name, &objects(name, ip, "", &format!("{port}:2701:2701"), &[ONE[0]]));
        }
        let _agent = Agent::start(&world);
        for (name, ip, _) in services {
            for place in PLACES {
                // A client that says nothing until it was greeted.
                let mut raw = Raw::connect(place, &format!("{ip}:2701"));
                raw.expect(BANNER.as_bytes());
                raw.send(b"hello\n");
                raw.expect(b"hello\n");
            }
            for said in everywhere(&format!("echo hello | nc -N {name} 2701")) {
                assert_eq!(said, format!("{BANNER}hello\n"), "{name}");
            }
        }
    });
}

/// `websocket.yaml`: one echoed frame a second.
#[test]
fn case_4_websocket() {
    in_namespace("cases::case_4_websocket", || {
        need_python("websockets", "python3-websockets");
        let world = world();
        let line = ["/usr/bin/python3", WS, "serve", "10.4.0.2", "12348"];
        let _server = Running::start("", &line, &world.path("ws.log"));
        accepts("10.4.0.2:12348");
        world.manifest("a", &objects("ws-svc", "10.96.11.5", "", "http-0:12348:12348", &[TWO[0]]));
        let agent = Agent::start(&world);
        let client = format!("/usr/bin/python3 {WS} call ws://ws-svc:12348/echo 3");
        for said in everywhere(&client) {
            assert_eq!(said, "frame 0\nframe 1\nframe 2\n");
        }
        let lines = agent.lines("a line each", PLACES.len(), |line| line["path"] == "/echo");
        for line in lines {
            assert_eq!((&line["status"], &line["outcome"]), (&101.into(), &"ok".into()), "{line}");
            assert!(line["ms"].as_f64().unwrap() >= 2000.0, "one connection for all: {line}");
        }
    });
}

/// The Services of case 11, with the label and without.
const FILTERED: [(&str, &str, bool); 2] =
    [("hostname-svc", "10.96.11.1", false), ("hostname-labelled-svc", "10.96.200.9", true)];

/// `service-proxy-name`: what is filtered is served by whoever served it without the mesh, here by
/// a server that has the ClusterIP, and its name leads there still.
#[test]
fn case_11_service_filter() {
    in_namespace("cases::case_11_service_filter", || {
        let world = world();
        let _pod = Backend::start("", "mesh", ONE, 9376);
        for (at, (name, ip, labelled)) in FILTERED.into_iter().enumerate() {
            let six = ["fd96::11:1", "fd96::11:2"][at];
            sh(&format!("ip addr add {ip}/32 dev lo; ip addr add {six}/128 dev lo nodad"));
            Backend::start("", "others", [ip, six], 12345);
            let labels = if labelled { format!("{LABEL}: ''") } else { String::new() };
            world.manifest(name, &objects(name, ip, &labels, "http-0:12345:9376", &[ONE[0]]));
        }
        for (mode, labelled_are_filtered) in [
            ("", true),
            ("proxy: { serviceFilterMode: FilterIfLabelExists }", true),
            ("proxy: { serviceFilterMode: FilterIfLabelDoesNotExists }", false),
        ] {
            let mut agent = Agent::start_with(&world, &format!("{}{mode}\n", config(&world)));
            let rules = sh("iptables-save -t nat");
            for (name, ip, labelled) in FILTERED {
                let filtered = labelled == labelled_are_filtered;
                assert_eq!(rules.contains(ip), !filtered, "{mode}: a rule for {name}?\n{rules}");
                for body in everywhere(&format!("curl -sS {name}:12345")) {
                    let want = if filtered { "others" } else { "mesh" };
                    assert_eq!(body, want, "{mode}: {name}");
                }
            }
            assert_eq!(agent.get("/v1/status")["remarks"].to_string(), "[]", "{mode}");
            agent.terminate();
            agent.wait();
        }
    });
}
