//! What the agent is told: Services, Slices and Policies as Kubernetes users write them.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::Context;

/// Name of the node that everything of the first act runs on.
pub(crate) const NODE: &str = "demo-node";
/// Captured beside the mesh's own virtual addresses.
pub(crate) const SERVICE_RANGES: [&str; 2] = ["10.96.0.0/16", "fd10:96::/112"];

/// One Service to be written down.
#[derive(Clone, Debug)]
pub(crate) struct Service<'a> {
    pub(crate) name: &'a str,
    /// Last byte of its addresses in [`SERVICE_RANGES`]; `None`: headless.
    pub(crate) host: Option<u8>,
    /// Whether it has an IPv6 address too.
    pub(crate) ipv6: bool,
    pub(crate) port: u16,
    /// Where its Backends are.
    pub(crate) node: &'a str,
    /// `spec` of its TrafficPolicy below `targetRef`; empty: it has none.
    pub(crate) policy: &'a str,
}

impl Service<'_> {
    /// Service, one Slice a Backend, and the TrafficPolicy, as one file.
    pub(crate) fn yaml(&self, backends: &[SocketAddr]) -> String {
        let Self { name, port, .. } = self;
        let addresses = match (self.host, self.ipv6) {
            (None, _) => "clusterIP: None".into(),
            (Some(n), false) => format!("clusterIP: 10.96.0.{n}"),
            (Some(n), true) => format!(
                "clusterIP: 10.96.0.{n}\n  clusterIPs: [10.96.0.{n}, \"fd10:96::{n:x}\"]\n  \
                 ipFamilies: [IPv4, IPv6]\n  ipFamilyPolicy: PreferDualStack"
            ),
        };
        let mut text = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{ name: {name}, namespace: default }}\n\
             spec:\n  {addresses}\n  ports: [{{ port: {port} }}]\n"
        );
        for (index, backend) in backends.iter().enumerate() {
            text.push_str(&slice(name, &(index + 1).to_string(), *backend, self.node));
        }
        if !self.policy.is_empty() {
            text.push_str(&format!(
                "---\napiVersion: edgemesh.io/v1alpha1\nkind: TrafficPolicy\n\
                 metadata: {{ name: {name}, namespace: default }}\n\
                 spec:\n  targetRef: {{ kind: Service, name: {name} }}\n  {}\n",
                self.policy
            ));
        }
        text
    }
}

/// A Slice of one Backend on `node`, as a document to append.
pub(crate) fn slice(service: &str, id: &str, backend: SocketAddr, node: &str) -> String {
    let family = if backend.is_ipv4() { "IPv4" } else { "IPv6" };
    format!(
        "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata:\n  name: {service}-{id}\n  namespace: default\n  \
         labels: {{ kubernetes.io/service-name: {service} }}\n\
         addressType: {family}\nports: [{{ port: {} }}]\n\
         endpoints: [{{ addresses: [\"{}\"], nodeName: {node} }}]\n",
        backend.port(),
        backend.ip()
    )
}

/// An HTTPRoute that splits the calls of one Service over others, by weight.
pub(crate) fn route(service: &str, backends: &[(&str, u32)]) -> String {
    let backends: Vec<_> = backends
        .iter()
        .map(|(name, weight)| format!("{{ name: {name}, port: 80, weight: {weight} }}"))
        .collect();
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n\
         metadata: {{ name: {service}, namespace: default }}\n\
         spec:\n  parentRefs: [{{ group: \"\", kind: Service, name: {service} }}]\n  \
         rules: [{{ backendRefs: [{}] }}]\n",
        backends.join(", ")
    )
}

/// A machine, its address, and the zone that it is in.
pub(crate) fn node(name: &str, address: &str, zone: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Node\n\
         metadata: {{ name: {name}, labels: {{ topology.kubernetes.io/zone: {zone} }} }}\n\
         status: {{ addresses: [{{ type: InternalIP, address: {address} }}] }}\n"
    )
}

/// Writes `NAME.yaml` whole or not at all.
pub(crate) fn write(folder: &Path, name: &str, text: &str) -> anyhow::Result<()> {
    let written = folder.join(format!(".{name}.new"));
    let done = folder.join(format!("{name}.yaml"));
    fs::write(&written, text)
        .and_then(|()| fs::rename(&written, &done))
        .with_context(|| done.display().to_string())
}

#[cfg(test)]
mod tests {
    use edgemesh_core::manifests::parse;

    use super::*;

    #[test]
    fn the_mesh_accepts_every_document() {
        let backends = ["10.244.2.11:8080", "[fd00:244:2::b]:8080"].map(|b| b.parse().unwrap());
        let policy = "rateLimit: { client: { qps: 5, burst: 5 } }";
        for (host, ipv6, policy, documents) in
            [(Some(10), true, policy, 4), (Some(10), false, "", 3), (None, false, "", 3)]
        {
            let service = Service { name: "hello", host, ipv6, port: 80, node: "b1", policy };
            let parsed = parse(Path::new("hello.yaml"), &service.yaml(&backends));
            assert_eq!(parsed.remarks, []);
            assert_eq!(parsed.documents.len(), documents);
        }
        let parsed = parse(Path::new("route.yaml"), &route("a", &[("b", 3), ("c", 1)]));
        assert_eq!((parsed.remarks.len(), parsed.documents.len()), (0, 1));
        let parsed = parse(Path::new("node.yaml"), &node("b1", "10.92.1.11", "site-b"));
        assert_eq!((parsed.remarks.len(), parsed.documents.len()), (0, 1));
    }
}
