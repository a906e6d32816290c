//! What accepted documents become.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use edgemesh_proto::record::{
    Backend, Body, NamedPort, Node, NodeName, Service, ServicePort, Slice, SlicePort, TargetPort,
    Transport, Workload,
};

use crate::manifests::tests::{body, records};
use crate::manifests::{Severity, parse};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn port(number: u16) -> ServicePort {
    ServicePort {
        name: "".into(),
        port: number.try_into().unwrap(),
        target: TargetPort::Same,
        transport: Transport::Tcp,
        app_protocol: None,
        node_port: None,
    }
}

fn pairs<const N: usize>(
    pairs: [(&str, &str); N],
) -> std::collections::BTreeMap<Box<str>, Box<str>> {
    pairs.into_iter().map(|(key, value)| (key.into(), value.into())).collect()
}

#[test]
fn services() {
    let head = "apiVersion: v1\nkind: Service\nmetadata: {name: hello}\nspec:\n";
    let plain = || Service { ports: vec![port(80)], ..Service::default() };
    let at = |text: &str| vec![ip(text)];
    let rows = [
        ("  ports: [{port: 80}]", plain()),
        (
            "  ports: [{port: 80, targetPort: 0, nodePort: 0, name: ''}]\n  clusterIP: ''\n  selector: null",
            plain(),
        ),
        (
            "  ports: [{port: 80}]\n  clusterIP: 10.0.0.1",
            Service { cluster_ips: at("10.0.0.1"), ..plain() },
        ),
        (
            "  ports: [{port: 80}]\n  clusterIP: '::ffff:10.0.0.1'",
            Service { cluster_ips: at("10.0.0.1"), ..plain() },
        ),
        (
            "  ports: [{port: 80}]\n  clusterIP: 10.0.0.1\n  clusterIPs: [10.0.0.1, 'fd00::1']",
            Service { cluster_ips: vec![ip("10.0.0.1"), ip("fd00::1")], ..plain() },
        ),
        (
            "  ports: [{port: 80}]\n  clusterIP: None\n  clusterIPs: [None]",
            Service { headless: true, ..plain() },
        ),
        ("  clusterIP: None", Service { headless: true, ..Service::default() }),
        (
            "  type: ExternalName\n  externalName: db.example.com.",
            Service { external_name: Some("db.example.com".into()), ..Service::default() },
        ),
        (
            "  type: LoadBalancer\n  ports: [{port: 80}]\n  externalIPs: [1.2.3.4]\n  selector: {app: a}\n  unknown: 1",
            Service { external_ips: at("1.2.3.4"), selector: pairs([("app", "a")]), ..plain() },
        ),
        (
            "  ports: [{port: 80}]\n  sessionAffinity: ClientIP\n  publishNotReadyAddresses: yes",
            Service {
                affinity: Some(Duration::from_secs(10_800)),
                publish_not_ready: true,
                ..plain()
            },
        ),
        (
            "  ports: [{port: 80}]\n  sessionAffinity: ClientIP\n  sessionAffinityConfig: {clientIP: {timeoutSeconds: 5}}",
            Service { affinity: Some(Duration::from_secs(5)), ..plain() },
        ),
        (
            "  ports:\n  - {name: http, port: 80, targetPort: web, appProtocol: kubernetes.io/h2c}\n  - {name: dns, port: 80, protocol: UDP, targetPort: 53, nodePort: 30053}",
            Service {
                ports: vec![
                    ServicePort {
                        name: "http".into(),
                        target: TargetPort::Name("web".into()),
                        app_protocol: Some("kubernetes.io/h2c".into()),
                        ..port(80)
                    },
                    ServicePort {
                        name: "dns".into(),
                        target: TargetPort::Number(53.try_into().unwrap()),
                        transport: Transport::Udp,
                        node_port: Some(30053.try_into().unwrap()),
                        ..port(80)
                    },
                ],
                ..Service::default()
            },
        ),
    ];
    for (spec, want) in rows {
        assert_eq!(body(&format!("{head}{spec}\n")), Body::Service(want), "{spec}");
    }
}

#[test]
fn identity() {
    for (head, want) in [
        ("v1, kind: Service, metadata: {name: a}", "service default/a"),
        ("v1, kind: Service, metadata: {name: a, namespace: b}", "service b/a"),
        ("v1, kind: Service, metadata: {name: a, namespace: ''}", "service default/a"),
        ("v1, kind: Node, metadata: {name: a.b, namespace: c}", "node a.b"),
    ] {
        let text = format!("{{apiVersion: {head}, spec: {{clusterIP: None}}}}\n");
        let keys: Vec<_> = records(&text).iter().map(|record| record.key().to_string()).collect();
        assert_eq!(keys, [want], "{text}");
    }
    let created = "{apiVersion: v1, kind: Service, spec: {clusterIP: None}, \
                   metadata: {name: a, creationTimestamp: 1970-01-01T00:01:00Z}}";
    let want = Service { headless: true, created: 60, ..Service::default() };
    assert_eq!(body(created), Body::Service(want));
    let asking = "{apiVersion: v1, kind: Service, spec: {clusterIP: None}, \
                  metadata: {name: a, annotations: {x: y, edgemesh.io/proxy-protocol: v2}}}";
    let want = Service { headless: true, proxy_protocol: true, ..Service::default() };
    assert_eq!(body(asking), Body::Service(want));
}

fn backend(address: &str) -> Backend {
    Backend {
        addresses: vec![ip(address)],
        ready: true,
        serving: true,
        terminating: false,
        hostname: None,
        node: None,
        zone: None,
        workload: None,
        weight: None,
    }
}

fn slice_port(name: &str, number: u16) -> SlicePort {
    let (name, port) = (name.into(), number.try_into().unwrap());
    SlicePort { name, port, transport: Transport::Tcp, app_protocol: None }
}

#[test]
fn slices() {
    let text = "
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: hello-x, labels: {kubernetes.io/service-name: hello}}
addressType: IPv4
ports:
- {name: http, port: 8080, protocol: TCP, appProtocol: http}
- {port: 53, protocol: UDP}
endpoints:
- addresses: [10.1.0.1]
- addresses: [10.1.0.2, 10.1.0.3]
  conditions: {ready: false, serving: true, terminating: true}
  hostname: db-0
  nodeName: edge-1
  zone: site-a
  targetRef: {kind: Pod, name: db-0}
- addresses: [10.1.0.4]
  conditions: {ready: null}
  targetRef: {kind: Node, name: edge-2}
- addresses: [10.1.0.5]
  conditions: {ready: false}
";
    let want = Slice {
        service: "hello".into(),
        ports: vec![
            SlicePort { app_protocol: Some("http".into()), ..slice_port("http", 8080) },
            SlicePort { transport: Transport::Udp, ..slice_port("", 53) },
        ],
        backends: vec![
            backend("10.1.0.1"),
            Backend {
                addresses: vec![ip("10.1.0.2"), ip("10.1.0.3")],
                ready: false,
                terminating: true,
                hostname: Some("db-0".into()),
                node: Some(NodeName("edge-1".into())),
                zone: Some("site-a".into()),
                workload: Some("db-0".into()),
                ..backend("10.1.0.2")
            },
            backend("10.1.0.4"),
            Backend { ready: false, serving: false, ..backend("10.1.0.5") },
        ],
    };
    assert_eq!(body(text), Body::Slice(want));
}

#[test]
fn endpoints() {
    let head = "apiVersion: v1\nkind: Endpoints\nmetadata: {name: hello, namespace: shop}\n";
    let one = "- addresses: [{ip: 10.1.0.1, nodeName: edge-1, hostname: h, targetRef: {kind: Pod, name: p}}]
  notReadyAddresses: [{ip: 10.1.0.2}]
  ports: [{name: http, port: 8080}]\n";
    let other = "- addresses: [{ip: 10.1.0.3}]\n";
    let first = Slice {
        service: "hello".into(),
        ports: vec![slice_port("http", 8080)],
        backends: vec![
            Backend {
                node: Some(NodeName("edge-1".into())),
                hostname: Some("h".into()),
                workload: Some("p".into()),
                ..backend("10.1.0.1")
            },
            Backend { ready: false, serving: false, ..backend("10.1.0.2") },
        ],
    };
    let second =
        Slice { service: "hello".into(), ports: vec![], backends: vec![backend("10.1.0.3")] };
    let empty = Slice { backends: vec![], ..second.clone() };
    for (subsets, want) in [
        (String::new(), vec![("hello", empty)]),
        (format!("subsets:\n{one}"), vec![("hello", first.clone())]),
        (
            format!("subsets:\n{one}{other}"),
            vec![("hello-0", first.clone()), ("hello-1", second.clone())],
        ),
    ] {
        let records = records(&format!("{head}{subsets}"));
        let got: Vec<_> = records
            .into_iter()
            .map(|record| (record.namespace, record.name, record.body))
            .collect();
        let want: Vec<_> = want
            .into_iter()
            .map(|(name, slice)| (Box::from("shop"), Box::from(name), Body::Slice(slice)))
            .collect();
        assert_eq!(got, want);
    }
}

#[test]
fn pods() {
    let text = "
apiVersion: v1
kind: Pod
metadata:
  name: web-1
  labels: {app: web}
  deletionTimestamp: 2026-01-01T00:00:00Z
  ownerReferences:
  - {kind: Other, name: x}
  - {kind: ReplicaSet, name: web-6d4f, controller: true}
spec:
  hostNetwork: true
  nodeName: edge-1
  initContainers:
  - ports: [{name: once, containerPort: 1}]
  - {restartPolicy: Always, ports: [{name: side, containerPort: 2}]}
  containers:
  - ports: [{name: http, containerPort: 8080}, {containerPort: 9}]
  - name: b
status:
  phase: Running
  podIP: 10.1.0.1
  podIPs: [{ip: 10.1.0.1}, {ip: 'fd00::1'}]
  conditions: [{type: Initialized, status: 'False'}, {type: Ready, status: 'True'}]
";
    let named =
        |name: &str, port: u16| NamedPort { name: name.into(), port: port.try_into().unwrap() };
    let want = Workload {
        addresses: vec![ip("10.1.0.1"), ip("fd00::1")],
        node: Some(NodeName("edge-1".into())),
        labels: pairs([("app", "web")]),
        ready: true,
        terminating: true,
        ports: vec![named("http", 8080), named("side", 2)],
        owner: "ReplicaSet/web-6d4f".into(),
    };
    assert_eq!(body(text), Body::Workload(want));
    let bare = "{apiVersion: v1, kind: Pod, metadata: {name: a, deletionTimestamp: null}, spec: {}, status: {podIP: 10.1.0.1}}";
    let want = Workload { addresses: vec![ip("10.1.0.1")], ..Workload::default() };
    assert_eq!(body(bare), Body::Workload(want));
}

#[test]
fn nodes() {
    let text = "
apiVersion: v1
kind: Node
metadata: {name: edge-1, labels: {topology.kubernetes.io/zone: site-a}}
status:
  addresses:
  - {type: Hostname, address: edge-1}
  - {type: InternalIP, address: 192.168.0.5}
  - {type: InternalIP, address: 'fd00::5'}
";
    let want = Node {
        addresses: vec![ip("192.168.0.5"), ip("fd00::5")],
        zone: Some("site-a".into()),
        labels: pairs([("topology.kubernetes.io/zone", "site-a")]),
        ..Node::default()
    };
    assert_eq!(body(text), Body::Node(want));
    assert_eq!(
        body("{apiVersion: v1, kind: Node, metadata: {name: a}}"),
        Body::Node(Node::default())
    );
}

#[test]
fn lists_and_json() {
    let item = |name: &str| {
        format!(
            "{{\"apiVersion\":\"v1\",\"kind\":\"Service\",\"metadata\":{{\"name\":\"{name}\"}},\n\t\"spec\":{{\"clusterIP\":\"None\"}}}}"
        )
    };
    let list = format!(
        "{{\n\t\"apiVersion\": \"v1\",\n\t\"kind\": \"List\",\n\t\"items\": [\n\t{},\n\t{},\n\t{}]}}\n",
        item("a"),
        item("B"),
        item("c")
    );
    let parsed = parse(Path::new("x.json"), &list);
    let lines: Vec<_> =
        parsed.documents.iter().map(|document| (&*document.object, document.line)).collect();
    assert_eq!(lines, [("Service default/a", 5), ("Service default/c", 9)]);
    let [remark] = &parsed.remarks[..] else { panic!("{:?}", parsed.remarks) };
    assert_eq!(
        (remark.severity, remark.line, &*remark.object, &*remark.field),
        (Severity::Rejected, 7, "Service default/B", "metadata.name")
    );
    // The same in YAML, after another document: lines are the file's.
    let parsed = parse(Path::new("x.yaml"), &format!("---\n# nothing\n---\n{list}"));
    assert_eq!((parsed.documents[1].line, parsed.remarks[0].line), (12, 10));
    let nested = "{apiVersion: v1, kind: List, items: [{apiVersion: v1, kind: List}, null]}";
    assert_eq!(parse(Path::new("x.yaml"), nested), crate::manifests::Parsed::default());
}

#[test]
fn aliases_and_merges() {
    let text = "{apiVersion: v1, kind: Service, metadata: {name: a, labels: &l {app: a}}, \
                spec: {clusterIP: None, selector: {<<: *l, tier: b}}}";
    let want = Service {
        headless: true,
        selector: pairs([("app", "a"), ("tier", "b")]),
        ..Service::default()
    };
    assert_eq!(body(text), Body::Service(want));
}

#[test]
fn long_annotations_are_no_trouble() {
    // As `kubectl apply` leaves them: longer than YAML lets a key be.
    let long = "{\\\"spec\\\": \\\"x: y\\\"} ".repeat(1000);
    let want = Body::Service(Service { headless: true, ..Service::default() });
    let flow = format!(
        "{{\"apiVersion\":\"v1\",\"kind\":\"Service\",\"spec\":{{\"clusterIP\":\"None\"}},\
         \"metadata\":{{\"annotations\":{{\"a/b\":\"{long}\"}},\"name\":\"a\"}}}}"
    );
    let block = format!(
        "apiVersion: v1\nkind: Service\nmetadata:\n  annotations:\n    a/b: \"{long}\"\n    c: |\n      {long}\n\
         \x20 name: a\nspec:\n  clusterIP: None\n"
    );
    for text in [flow, block] {
        assert_eq!(body(&text), want);
    }
}
