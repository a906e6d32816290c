//! Two sites and a cloud: each site behind a router of its own, one of them behind NAT that lets
//! nobody in.
//!
//! ```text
//!  a1 192.168.1.11 ┐                                       ┌ b1 10.92.1.11
//!  a2 192.168.1.12 ┴ ra (NAT) 10.91.0.2 ─ internet ─ rb ───┴ b2 10.92.1.12
//!                                            │
//!                    cloud 10.90.0.2, c1 10.90.0.3, c2 10.90.0.4
//! ```
//!
//! Everything is a network namespace of the test's own; "internet" is the one that the test is in.

use std::ops::Deref;

use crate::common::folder::Folder;
pub(crate) use crate::common::folder::listen;
use crate::common::namespace::sh;

/// A machine of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Its network namespace, and the name of the node.
    pub(crate) name: &'static str,
    /// Its address.
    pub(crate) ip: &'static str,
    /// The zone of its Node record.
    pub(crate) zone: &'static str,
}

const fn place(name: &'static str, ip: &'static str, zone: &'static str) -> Place {
    Place { name, ip, zone }
}

/// Behind NAT.
pub(crate) const A1: Place = place("a1", "192.168.1.11", "site-a");
/// Beside [`A1`].
pub(crate) const A2: Place = place("a2", "192.168.1.12", "site-a");
/// Behind a router that lets everybody in.
pub(crate) const B1: Place = place("b1", "10.92.1.11", "site-b");
/// Beside [`B1`].
pub(crate) const B2: Place = place("b2", "10.92.1.12", "site-b");
/// Where `edgemesh cloud` runs.
pub(crate) const CLOUD: Place = place("cloud", "10.90.0.2", "cloud");
/// A machine beside it, which may run an agent.
pub(crate) const C1: Place = place("c1", "10.90.0.3", "cloud");
/// Another one, which runs none.
pub(crate) const C2: Place = place("c2", "10.90.0.4", "cloud");
/// Every one.
pub(crate) const PLACES: [Place; 7] = [A1, A2, B1, B2, CLOUD, C1, C2];

/// Folders of one test: manifests of the cloud, data of each process, logs of servers.
#[derive(Debug)]
pub(crate) struct World {
    folder: Folder,
}

impl World {
    /// Builds the network.
    pub(crate) fn new() -> Self {
        sh("sysctl -qw net.ipv4.ip_forward=1 net.ipv4.icmp_ratelimit=0
            for n in a1 a2 b1 b2 cloud c1 c2 ra rb; do ip netns add $n; ip -n $n link set lo up; done
            ip link add br0 type bridge; ip link set br0 up; ip addr add 10.90.0.1/24 dev br0
            for n in cloud:2 c1:3 c2:4; do
              ip link add v-${n%:*} type veth peer name eth0 netns ${n%:*}
              ip link set v-${n%:*} master br0 up
              ip -n ${n%:*} addr add 10.90.0.${n#*:}/24 dev eth0; ip -n ${n%:*} link set eth0 up
              ip -n ${n%:*} route add default via 10.90.0.1
            done
            for r in ra:10.91.0:192.168.1 rb:10.92.0:10.92.1; do
              IFS=: read name wan lan <<X
$r
X
              ip link add wan-$name type veth peer name wan netns $name
              ip addr add $wan.1/24 dev wan-$name; ip link set wan-$name up
              ip -n $name addr add $wan.2/24 dev wan; ip -n $name link set wan up
              ip -n $name route add default via $wan.1
              ip netns exec $name sysctl -qw net.ipv4.ip_forward=1
              ip -n $name link add lan type bridge; ip -n $name addr add $lan.1/24 dev lan
              ip -n $name link set lan up
              for i in 1 2; do
                n=${name#r}$i
                ip -n $name link add $n type veth peer name eth0 netns $n
                ip -n $name link set $n master lan up
                ip -n $n addr add $lan.1$i/24 dev eth0; ip -n $n link set eth0 up
                ip -n $n route add default via $lan.1
              done
            done
            ip route add 10.92.1.0/24 via 10.92.0.2
            ip netns exec ra iptables -t nat -A POSTROUTING -o wan -j MASQUERADE
            ip netns exec ra iptables -A FORWARD -i wan -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
            ip netns exec ra iptables -A FORWARD -i wan -j DROP");
        let world = Self { folder: Folder::new() };
        for place in PLACES {
            world.manifest(&format!("node-{}", place.name), &node(place));
        }
        world
    }

    /// Puts a Service in place whose Backends are at `backends`; `ports` are `name:port:targetPort`
    /// with blanks between.
    pub(crate) fn service(&self, name: &str, ip: &str, ports: &str, backends: &[Place]) {
        self.manifest(name, &service(name, ip, ports, backends));
    }
}

impl Deref for World {
    type Target = Folder;

    fn deref(&self) -> &Folder {
        &self.folder
    }
}

/// A cable that can be pulled.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cable {
    /// Between site A's router and the internet.
    SiteA,
    /// Between site B's router and the internet.
    SiteB,
    /// Between the cloud and the internet.
    Cloud,
}

impl Cable {
    const fn interface(self) -> &'static str {
        match self {
            Self::SiteA => "wan-ra",
            Self::SiteB => "wan-rb",
            Self::Cloud => "v-cloud",
        }
    }

    /// Packets vanish without a word.
    pub(crate) fn drop_packets(self) {
        let interface = self.interface();
        match self {
            Self::SiteA | Self::SiteB => sh(&format!(
                "iptables -I FORWARD -i {interface} -j DROP; iptables -I FORWARD -o {interface} -j DROP"
            )),
            Self::Cloud => sh(
                "iptables -I FORWARD -d 10.90.0.2 -j DROP; iptables -I FORWARD -s 10.90.0.2 -j DROP",
            ),
        };
    }

    /// Undoes [`Cable::drop_packets`].
    pub(crate) fn pass_packets(self) {
        let interface = self.interface();
        match self {
            Self::SiteA | Self::SiteB => sh(&format!(
                "iptables -D FORWARD -i {interface} -j DROP; iptables -D FORWARD -o {interface} -j DROP"
            )),
            Self::Cloud => sh(
                "iptables -D FORWARD -d 10.90.0.2 -j DROP; iptables -D FORWARD -s 10.90.0.2 -j DROP",
            ),
        };
    }

    /// Pulls it.
    pub(crate) fn pull(self) {
        sh(&format!("ip link set {} down", self.interface()));
    }

    /// Plugs it in again.
    pub(crate) fn plug(self) {
        sh(&format!("ip link set {} up", self.interface()));
        match self {
            Self::SiteB => drop(sh("ip route replace 10.92.1.0/24 via 10.92.0.2")),
            Self::SiteA | Self::Cloud => {}
        }
    }
}

fn node(place: Place) -> String {
    let Place { name, ip, zone } = place;
    format!(
        "apiVersion: v1\nkind: Node\nmetadata: {{ name: {name}, labels: {{ topology.kubernetes.io/zone: {zone} }} }}\n\
         status: {{ addresses: [{{ type: InternalIP, address: {ip} }}] }}\n"
    )
}

/// A Service and its Slice; `ports` are `name:port:targetPort` with blanks between.
pub(crate) fn service(name: &str, ip: &str, ports: &str, backends: &[Place]) -> String {
    let (mut outer, mut inner) = (Vec::new(), Vec::new());
    for port in ports.split(' ') {
        let parts: Vec<_> = port.split(':').collect();
        let [name, port, target] = parts[..] else { panic!("name:port:targetPort: {port}") };
        outer.push(format!("{{ name: \"{name}\", port: {port}, targetPort: {target} }}"));
        inner.push(format!("{{ name: \"{name}\", port: {target} }}"));
    }
    let backend = |place: &Place| {
        format!(
            "{{ addresses: [\"{}\"], conditions: {{ ready: true }}, nodeName: {}, zone: {} }}",
            place.ip, place.name, place.zone
        )
    };
    let backends: Vec<_> = backends.iter().map(backend).collect();
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{ name: {name}, namespace: default }}\nspec:\n  \
         clusterIP: {ip}\n  ports: [{}]\n\
         ---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata: {{ name: {name}-1, namespace: default, labels: {{ kubernetes.io/service-name: {name} }} }}\n\
         addressType: IPv4\nports: [{}]\n\
         endpoints: [{}]\n",
        outer.join(", "),
        inner.join(", "),
        backends.join(", ")
    )
}
