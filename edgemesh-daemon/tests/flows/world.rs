//! A node with two pods and no uplink: interfaces, resolver, manifests.

use std::fmt::Write as _;
use std::ops::Deref;

use crate::common::folder::Folder;
pub(crate) use crate::common::folder::listen;
use crate::common::namespace::sh;

/// Where clients are: the node itself, a pod whose veth has addresses on the node's side, and one
/// whose veth has none there, as Calico makes them.
pub(crate) const PLACES: [&str; 3] = ["", "pod", "bare"];

/// Addresses of the node at which backends listen; both families of the same number belong
/// together.
pub(crate) const ONE: [&str; 2] = ["10.4.0.1", "fd04::1"];
/// See [`ONE`].
pub(crate) const TWO: [&str; 2] = ["10.4.0.2", "fd04::2"];
/// See [`ONE`]; this one is in `pod`.
pub(crate) const POD: [&str; 2] = ["10.1.0.2", "fd01::2"];

/// Folders of one test: manifests, data, logs of servers.
#[derive(Debug)]
pub(crate) struct World {
    folder: Folder,
}

impl World {
    /// Makes interfaces and namespaces.
    pub(crate) fn new() -> Self {
        sh("ip netns add pod; ip netns add bare
            for a in 10.4.0.1 10.4.0.2 10.4.0.3; do ip addr add $a/32 dev lo; done
            for a in fd04::1 fd04::2 fd04::3; do ip addr add $a/128 dev lo nodad; done
            ip link add pod0 type veth peer name eth0 netns pod
            ip addr add 10.1.0.1/24 dev pod0; ip addr add fd01::1/64 dev pod0 nodad; ip link set pod0 up
            ip -n pod addr add 10.1.0.2/24 dev eth0; ip -n pod addr add fd01::2/64 dev eth0 nodad
            ip -n pod link set eth0 up; ip -n pod link set lo up
            ip -n pod route add default via 10.1.0.1; ip -n pod route add default via fd01::1
            ip link add bare0 address 02:00:00:00:02:01 type veth peer name eth0 address 02:00:00:00:02:02 netns bare
            ip link set bare0 addrgenmode none; ip link set bare0 up
            ip route add 10.2.0.2 dev bare0; ip route add fd02::2 dev bare0
            ip neigh add 10.2.0.2 lladdr 02:00:00:00:02:02 dev bare0
            ip neigh add fd02::2 lladdr 02:00:00:00:02:02 dev bare0
            ip -n bare addr add 10.2.0.2/32 dev eth0; ip -n bare addr add fd02::2/128 dev eth0 nodad
            ip -n bare link set eth0 up; ip -n bare link set lo up
            ip -n bare route add 10.2.0.1 dev eth0; ip -n bare route add fd02::1 dev eth0
            ip -n bare neigh add 10.2.0.1 lladdr 02:00:00:00:02:01 dev eth0
            ip -n bare neigh add fd02::1 lladdr 02:00:00:00:02:01 dev eth0
            ip -n bare route add default via 10.2.0.1; ip -n bare route add default via fd02::1");
        Self { folder: Folder::new() }
    }

    /// Puts [`service`] in place.
    pub(crate) fn service(&self, name: &str, ips: &[&str], ports: &[&str], backends: &[[&str; 2]]) {
        self.manifest(name, &service(name, ips, ports, backends));
    }
}

impl Deref for World {
    type Target = Folder;

    fn deref(&self) -> &Folder {
        &self.folder
    }
}

/// A Service and a Slice for each family. A port is `name:port:targetPort`; the name may be empty
/// where there is one port. `ips` are cluster IPs; `None` makes it headless.
pub(crate) fn service(name: &str, ips: &[&str], ports: &[&str], backends: &[[&str; 2]]) -> String {
    let parts: Vec<[&str; 3]> = ports
        .iter()
        .map(|port| port.split(':').collect::<Vec<_>>().try_into().expect("name:port:targetPort"))
        .collect();
    let mut text = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{ name: {name}, namespace: default }}\nspec:\n  \
         clusterIP: \"{}\"\n  clusterIPs: {ips:?}\n  ports:\n",
        ips[0]
    );
    for [port_name, port, target] in &parts {
        writeln!(text, "  - {{ name: \"{port_name}\", port: {port}, targetPort: {target} }}")
            .unwrap();
    }
    for (at, family) in ["IPv4", "IPv6"].iter().enumerate() {
        write!(
            text,
            "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
             metadata: {{ name: {name}-{}, namespace: default, labels: {{ kubernetes.io/service-name: {name} }} }}\n\
             addressType: {family}\nports:\n",
            family.to_lowercase()
        )
        .unwrap();
        for [port_name, _, target] in &parts {
            writeln!(text, "- {{ name: \"{port_name}\", port: {target} }}").unwrap();
        }
        let here = backends.iter().map(|both| both[at]).filter(|address| !address.is_empty());
        let here: Vec<_> = here
            .map(|a| {
                format!(
                    "{{ addresses: [\"{a}\"], conditions: {{ ready: true }}, nodeName: node-1 }}"
                )
            })
            .collect();
        writeln!(text, "endpoints: [{}]", here.join(", ")).unwrap();
    }
    text
}
