//! What must hold for any request whose Backend is chosen by a key: no panic, and one key, one Backend.

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use edgemesh_core::manifests;
use edgemesh_core::plan::{Arrival, Destination, Head, Outcome, Purpose, Target, explain, plan};
use edgemesh_core::snapshot::{Builder, Change, Snapshot};
use edgemesh_proto::record::NodeName;
use http::Request;

/// Services by what their keys are taken from.
const KEYS: [(&str, &str); 3] = [("header", "x-user"), ("cookie", "sid"), ("query", "u")];

/// A method and a target in the first line, headers in the others.
pub(super) fn check(bytes: &[u8]) -> bool {
    let Some(request) = super::routes::request(bytes) else { return false };
    let (snapshot, now) = world();
    let mut some = false;
    for (from, name) in KEYS {
        let host = format!("{from}.default");
        let to = Target::Name { host: &host, port: Some(80), domain: "cluster.local" };
        let destination = Destination {
            request: Some(Head::of(&request)),
            ..Destination::new(to, Arrival::Captured, Purpose::Call)
        };
        let foretold = explain(snapshot, &destination, *now).verdict.map(|(address, _)| address);
        for _ in 0..2 {
            let hop = plan(snapshot, &destination, *now).expect("three Backends are well");
            // Without a key it goes by chance.
            if has_key(&request, from, name) {
                some = true;
                assert_eq!(foretold, Ok(hop.address()), "{from}");
            }
            hop.finish(Outcome::Good, *now);
        }
    }
    some
}

/// The same question, asked in another way.
fn has_key(request: &Request<()>, from: &str, name: &str) -> bool {
    let pairs = |text: &[u8], between: u8| {
        let text = String::from_utf8_lossy(text).into_owned();
        let pairs: Vec<String> = text.split(between as char).map(str::to_owned).collect();
        pairs
    };
    match from {
        "header" => request.headers().contains_key(name),
        "cookie" => request.headers().get_all("cookie").iter().any(|field| {
            let mut pairs = pairs(field.as_bytes(), b';').into_iter();
            let begins = format!("{name}=");
            pairs.any(|pair| pair.trim_matches([' ', '\t']).starts_with(&begins))
        }),
        _ => {
            let query = request.uri().query().unwrap_or_default();
            let mut pairs = pairs(query.as_bytes(), b'&').into_iter();
            pairs.any(|pair| pair.split('=').next() == Some(name))
        }
    }
}

fn world() -> &'static (Arc<Snapshot>, Instant) {
    static WORLD: OnceLock<(Arc<Snapshot>, Instant)> = OnceLock::new();
    WORLD.get_or_init(|| {
        let text: String = KEYS.iter().map(|(from, name)| service(from, name)).collect();
        let documents = manifests::parse(Path::new("keys.yaml"), &text).documents;
        let put = documents.into_iter().flat_map(|document| document.records).collect();
        #[expect(clippy::disallowed_methods, reason = "any Instant will do as the start of time")]
        let now = Instant::now();
        let mut builder = Builder::new(NodeName("edge-1".into()), None);
        (builder.apply(Change { put, ..Change::default() }, now), now)
    })
}

fn service(from: &str, name: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{ name: {from}, namespace: default }}\n\
         spec: {{ clusterIP: None, ports: [{{ port: 80 }}] }}\n---\n\
         apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata: {{ name: {from}, namespace: default, labels: {{ kubernetes.io/service-name: {from} }} }}\n\
         addressType: IPv4\nports: [{{ port: 80 }}]\n\
         endpoints: [{{ addresses: [10.1.0.1] }}, {{ addresses: [10.1.0.2] }}, {{ addresses: [10.1.0.3] }}]\n---\n\
         apiVersion: edgemesh.io/v1alpha1\nkind: TrafficPolicy\n\
         metadata: {{ name: {from}, namespace: default }}\nspec:\n  \
         targetRef: {{ kind: Service, name: {from} }}\n  \
         loadBalancer: {{ policy: consistentHash, consistentHash: {{ {from}: {name} }} }}\n"
    )
}
