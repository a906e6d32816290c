//! The network of the second act: three sites, each behind a router of its own, and between them an
//! internet.
//!
//! ```text
//!  a1 192.168.1.11 ┐                                        ┌ b1 10.92.1.11
//!  a2 192.168.1.12 ┴ ra, NAT ──────── internet ────────── rb ┴ b2 10.92.1.12, shielded
//!                                        │
//!                                        rc ── cloud 10.90.1.10, c1 .11, c2 .12
//! ```
//!
//! Each machine, each router and the internet is a network namespace of that name.

use std::fs;
use std::net::Ipv4Addr;
use std::process::Command;

use anyhow::Context;

use crate::cli::Feature;
use crate::demo::children::ask;
use crate::demo::children::find;
use crate::demo::world::Place;
use crate::demo::world::World;
use crate::demo::world::ip;

/// Between the routers.
const INTERNET: &str = "internet";

/// Machines behind one router.
#[derive(Debug)]
struct Site {
    zone: &'static str,
    router: &'static str,
    /// The first three bytes of its addresses, and of those between router and internet.
    lan: [u8; 3],
    wan: [u8; 3],
    inbound: Inbound,
}

/// Whom a router lets in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Inbound {
    Everybody,
    /// NAT: what belongs to a connection from inside.
    Nobody,
}

/// A machine of a site.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Machine {
    /// Its namespace, and the name of its Node.
    pub(crate) name: &'static str,
    site: &'static Site,
    host: u8,
    /// Whether an agent runs there.
    pub(crate) agent: bool,
}

const A: Site = Site {
    zone: "site-a",
    router: "ra",
    lan: [192, 168, 1],
    wan: [10, 91, 0],
    inbound: Inbound::Nobody,
};
const B: Site = Site {
    zone: "site-b",
    router: "rb",
    lan: [10, 92, 1],
    wan: [10, 92, 0],
    inbound: Inbound::Everybody,
};
const C: Site = Site {
    zone: "cloud",
    router: "rc",
    lan: [10, 90, 1],
    wan: [10, 90, 0],
    inbound: Inbound::Everybody,
};
const SITES: [&Site; 3] = [&A, &B, &C];

/// Behind NAT.
pub(crate) const A1: Machine = Machine { name: "a1", site: &A, host: 11, agent: true };
/// Beside it.
pub(crate) const A2: Machine = Machine { name: "a2", site: &A, host: 12, agent: true };
/// Behind a router that lets everybody in.
pub(crate) const B1: Machine = Machine { name: "b1", site: &B, host: 11, agent: true };
/// Beside it, but the router lets nobody in to this one.
pub(crate) const B2: Machine = Machine { name: "b2", site: &B, host: 12, agent: true };
/// Where `edgemesh cloud` runs.
pub(crate) const CLOUD: Machine = Machine { name: "cloud", site: &C, host: 10, agent: false };
/// A machine of the cloud with an agent, and one without.
pub(crate) const C1: Machine = Machine { name: "c1", site: &C, host: 11, agent: true };
pub(crate) const C2: Machine = Machine { name: "c2", site: &C, host: 12, agent: false };
/// Every one.
pub(crate) const MACHINES: [Machine; 7] = [A1, A2, B1, B2, CLOUD, C1, C2];

impl Machine {
    pub(crate) const fn place(&self) -> Place {
        Place::Machine(self.name)
    }

    pub(crate) const fn address(&self) -> Ipv4Addr {
        let [a, b, c] = self.site.lan;
        Ipv4Addr::new(a, b, c, self.host)
    }

    /// The zone of its Node.
    pub(crate) const fn zone(&self) -> &'static str {
        self.site.zone
    }
}

impl Site {
    fn lan(&self) -> String {
        subnet(self.lan)
    }

    fn wan(&self) -> String {
        subnet(self.wan)
    }

    /// What the internet knows of it: nothing of what is behind NAT.
    fn route(&self) -> String {
        match self.inbound {
            Inbound::Nobody => String::new(),
            Inbound::Everybody => {
                format!("route replace {}.0/24 via {}.2\n", self.lan(), self.wan())
            }
        }
    }
}

fn subnet([a, b, c]: [u8; 3]) -> String {
    format!("{a}.{b}.{c}")
}

/// Builds all of it.
pub(crate) fn build(world: &World) -> anyhow::Result<()> {
    let routers = SITES.iter().map(|site| site.router);
    let names = MACHINES.iter().map(|machine| machine.name).chain(routers).chain([INTERNET]);
    let names: Vec<_> = names.collect();
    ip(&names.iter().map(|name| format!("netns add {name}\n")).collect::<String>(), "")?;
    for name in names {
        ip("link set lo up\n", name)?;
    }
    forwards(world, INTERNET)?;
    for site in SITES {
        connect(world, site)?;
    }
    firewall(world)
}

fn connect(world: &World, site: &Site) -> anyhow::Result<()> {
    let Site { router, .. } = site;
    let (lan, wan) = (site.lan(), site.wan());
    ip(
        &format!(
            "link add {router} type veth peer name wan netns {router}\n\
             addr add {wan}.1/24 dev {router}\nlink set {router} up\n"
        ),
        INTERNET,
    )?;
    let mut text = format!(
        "addr add {wan}.2/24 dev wan\nlink set wan up\nroute add default via {wan}.1\n\
         link add lan type bridge\naddr add {lan}.1/24 dev lan\nlink set lan up\n"
    );
    let machines = || MACHINES.iter().filter(|machine| machine.site.router == *router);
    for Machine { name, .. } in machines() {
        text.push_str(&format!(
            "link add {name} type veth peer name eth0 netns {name}\n\
             link set {name} master lan up\n"
        ));
    }
    ip(&text, router)?;
    ip(&site.route(), INTERNET)?;
    forwards(world, router)?;
    for machine in machines() {
        let address = machine.address();
        let text = format!(
            "addr add {address}/24 dev eth0\nlink set eth0 up\nroute add default via {lan}.1\n"
        );
        ip(&text, machine.name)?;
    }
    Ok(())
}

/// Packets of others are passed on; who calls nowhere hears so at once, each time.
fn forwards(world: &World, name: &'static str) -> anyhow::Result<()> {
    world.within(Place::Machine(name), || {
        fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("ip_forward")?;
        fs::write("/proc/sys/net/ipv4/icmp_ratelimit", "0").context("icmp_ratelimit")
    })
}

fn firewall(world: &World) -> anyhow::Result<()> {
    let iptables = find("iptables").context("iptables is not installed")?;
    let apply = |site: &Site, rules: &[String]| {
        world.within(Place::Machine(site.router), || {
            for rule in rules {
                ask(Command::new(&iptables).args(rule.split(' '))).context("iptables")?;
            }
            Ok(())
        })
    };
    let established = "-A FORWARD -i wan -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT";
    for site in SITES.iter().filter(|site| site.inbound == Inbound::Nobody) {
        let masquerade = "-t nat -A POSTROUTING -o wan -j MASQUERADE";
        let rules = [masquerade, established, "-A FORWARD -i wan -j DROP"].map(str::to_owned);
        apply(site, &rules)?;
    }
    let shielded = match world.lacks(Feature::Direct) {
        false => format!(" -d {}", B2.address()),
        true => String::new(),
    };
    apply(&B, &[established.to_owned(), format!("-A FORWARD -i wan{shielded} -j DROP")])
}

/// Pulls the cable between the cloud's router and the internet.
pub(crate) fn pull() -> anyhow::Result<()> {
    ip(&format!("link set {} down\n", C.router), INTERNET)
}

/// Plugs it in again.
pub(crate) fn plug() -> anyhow::Result<()> {
    ip(&format!("link set {} up\n{}", C.router, C.route()), INTERNET)
}
