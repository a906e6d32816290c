//! What must hold for any request that meets Routes: no panic, one answer, and nothing that cannot be sent.

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use edgemesh_core::manifests;
use edgemesh_core::plan::{
    Arrival, Destination, Head, Outcome, Purpose, Target, explain, plan, redirection,
};
use edgemesh_core::refusal::Refusal;
use edgemesh_core::snapshot::{Builder, Change, Snapshot};
use edgemesh_proto::record::NodeName;
use http::{HeaderName, HeaderValue, Request};

/// Routes of every sort of match and edit.
const ROUTES: &str = r#"
apiVersion: v1
kind: Service
metadata: { name: hello, namespace: default }
spec: { clusterIP: 10.96.0.1, ports: [{ port: 80 }] }
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: { name: hello, namespace: default, labels: { kubernetes.io/service-name: hello } }
addressType: IPv4
ports: [{ port: 80 }]
endpoints: [{ addresses: [10.1.0.1] }]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: hello, namespace: default }
spec:
  parentRefs: [{ group: "", kind: Service, name: hello }]
  rules:
  - matches: [{ path: { value: /edit/ } }]
    filters:
    - { type: URLRewrite, urlRewrite: { hostname: a.example, path: { type: ReplacePrefixMatch, replacePrefixMatch: "" } } }
    - { type: RequestHeaderModifier, requestHeaderModifier: { set: [{ name: x-a, value: b }], add: [{ name: x-b, value: c }], remove: [cookie] } }
    backendRefs: [{ name: hello, port: 80 }]
  - matches: [{ path: { value: /old } }]
    filters: [{ type: RequestRedirect, requestRedirect: { path: { type: ReplacePrefixMatch, replacePrefixMatch: /new/ } } }]
  - matches: [{ path: { type: RegularExpression, value: "/re/[0-9]+/?" }, queryParams: [{ name: n, type: RegularExpression, value: "[0-9]*" }] }]
    backendRefs: [{ name: hello, port: 80, weight: 3 }, { name: nobody, port: 80 }]
  - matches: [{ headers: [{ name: version, type: RegularExpression, value: "(a|b|ab)*c?.*" }], method: OPTIONS }]
    backendRefs: [{ name: hello, port: 80 }]
"#;

/// A method and a target in the first line, headers in the others.
pub(super) fn check(bytes: &[u8]) -> bool {
    let Some(mut request) = request(bytes) else { return false };
    let (snapshot, now) = world();
    let to = Target::Name { host: "hello.default", port: Some(80), domain: "cluster.local" };
    let destination = Destination {
        request: Some(Head::of(&request)),
        ..Destination::new(to, Arrival::Captured, Purpose::Call)
    };
    let foretold = explain(snapshot, &destination, *now).verdict.map(|(address, _)| address);
    match plan(snapshot, &destination, *now) {
        Ok(hop) => {
            assert_eq!(foretold, Ok(hop.address()));
            let routed = hop.route().expect("its Service has Routes");
            let before = request.uri().path().to_owned();
            routed.edit_request(&mut request).expect("what came can leave");
            let after = request.uri().path();
            assert!(after == before || after.starts_with('/'), "{after}");
            hop.finish(Outcome::Good, *now);
        }
        Err(refusal) => {
            assert_eq!(foretold, Err(refusal));
            let to = redirection(snapshot, &destination);
            assert_eq!(to.is_some(), refusal == Refusal::Redirected);
            if let Some(to) = to {
                HeaderValue::from_str(&to.location).expect("it can be sent");
            }
        }
    }
    true
}

pub(super) fn request(bytes: &[u8]) -> Option<Request<()>> {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let (method, target) = std::str::from_utf8(lines.next()?).ok()?.split_once(' ')?;
    let mut request = Request::builder().method(method).uri(target).body(()).ok()?;
    for line in lines {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
        {
            request.headers_mut().append(name, value);
        }
    }
    Some(request)
}

fn world() -> &'static (Arc<Snapshot>, Instant) {
    static WORLD: OnceLock<(Arc<Snapshot>, Instant)> = OnceLock::new();
    WORLD.get_or_init(|| {
        let documents = manifests::parse(Path::new("routes.yaml"), ROUTES).documents;
        let put = documents.into_iter().flat_map(|document| document.records).collect();
        #[expect(clippy::disallowed_methods, reason = "any Instant will do as the start of time")]
        let now = Instant::now();
        let mut builder = Builder::new(NodeName("edge-1".into()), None);
        (builder.apply(Change { put, ..Change::default() }, now), now)
    })
}
