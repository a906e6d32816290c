//! The stage of the second act: two sites and a cloud, their agents, servers and records.

pub(crate) mod cloud;
pub(crate) mod journal;
pub(crate) mod network;
pub(crate) mod rules;
pub(crate) mod traffic;

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;

use crate::api::CloudLink;
use crate::api::CloudState;
use crate::cli::Feature;
use crate::demo::agent::Agent;
use crate::demo::agent::Setup;
use crate::demo::children::find;
use crate::demo::clients::Way;
use crate::demo::manifests::SERVICE_RANGES;
use crate::demo::manifests::Service;
use crate::demo::manifests::node;
use crate::demo::manifests::write;
use crate::demo::programs;
use crate::demo::programs::Real;
use crate::demo::servers;
use crate::demo::sites::cloud::Cloud;
use crate::demo::sites::network::A1;
use crate::demo::sites::network::A2;
use crate::demo::sites::network::B1;
use crate::demo::sites::network::B2;
use crate::demo::sites::network::C2;
use crate::demo::sites::network::CLOUD;
use crate::demo::sites::network::MACHINES;
use crate::demo::sites::network::Machine;
use crate::demo::sites::rules::ANSWERED;
use crate::demo::sites::rules::Rules;
use crate::demo::world::World;
use crate::say;

const REDIS: u16 = 6379;

/// Services: name, last byte of the address, port, where it is served, port there.
const SERVICES: &[(&str, u8, u16, Machine, u16)] = &[
    ("web-a1", 51, 80, A1, servers::HTTP),
    ("web-a2", 52, 80, A2, servers::HTTP),
    ("web-b1", 53, 80, B1, servers::HTTP),
    ("web-b2", 54, 80, B2, servers::HTTP),
    ("web-c2", 55, 80, C2, servers::HTTP),
    ("echo-b1", 56, 50051, B1, servers::GRPC),
    ("greeter-b1", 57, 3306, B1, servers::GREETER),
    ("redis-b1", 58, REDIS, B1, REDIS),
];
/// The Service that is told of while the cloud is away.
pub(crate) const LATE: &str = "late";

/// Everything that scenes of the second act use.
#[derive(Debug)]
pub(crate) struct Sites<'w> {
    pub(crate) world: &'w World,
    pub(crate) curl: Option<PathBuf>,
    /// `None` while it is away.
    pub(crate) cloud: Option<Cloud>,
    pub(crate) setups: BTreeMap<&'static str, Setup>,
    pub(crate) agents: BTreeMap<&'static str, Agent>,
    pub(crate) redis: Option<Real>,
    pub(crate) rules: Rules,
}

impl<'w> Sites<'w> {
    /// Builds the network, starts the servers and writes all records. No agent runs yet.
    pub(crate) fn set(world: &'w World) -> anyhow::Result<Self> {
        say::progress("building two sites and a cloud");
        network::build(world).context("cannot build the sites")?;
        fs::create_dir_all(world.folder.join(cloud::MANIFESTS))?;
        for machine in &MACHINES {
            let address = IpAddr::from(machine.address());
            servers::on(world, machine.place(), address, machine.name)?;
            let text = node(machine.name, &address.to_string(), machine.zone());
            write(&world.folder.join(cloud::MANIFESTS), machine.name, &text)?;
        }
        let at = SocketAddr::new(B1.address().into(), REDIS);
        let redis = programs::redis(world, B1.place(), at)?;
        let curl = find("curl");
        let rules = rules::set(world)?;
        let mut sites = Self {
            world,
            curl,
            cloud: None,
            setups: BTreeMap::new(),
            agents: BTreeMap::new(),
            redis,
            rules,
        };
        for (name, host, port, machine, target) in SERVICES {
            sites.tell(name, *host, *port, (*machine, *target))?;
        }
        sites.tell_nobody(ANSWERED)?;
        for machine in MACHINES.iter().filter(|machine| machine.agent) {
            let setup = Setup::on(world, machine.name, &sites.configuration(machine))?;
            sites.setups.insert(machine.name, setup);
        }
        Ok(sites)
    }

    fn configuration(&self, machine: &Machine) -> String {
        let (name, folder) = (machine.name, self.world.folder.display());
        let path = if self.world.lacks(Feature::Hub) { "direct" } else { "auto" };
        format!(
            "node: {name}\ndataDir: {folder}/{name}\nservices: {folder}/{name}-services\n\
             cloud: {{ servers: [\"{}:{}\"], tokenFile: {folder}/{name}.token }}\n\
             proxy: {{ include: [{}] }}\npeer: {{ path: {path} }}\n",
            CLOUD.address(),
            cloud::HUB_PORT,
            SERVICE_RANGES[0],
        )
    }

    /// Writes a Service of one Backend for the cloud.
    fn tell(
        &self,
        name: &str,
        host: u8,
        port: u16,
        (machine, target): (Machine, u16),
    ) -> anyhow::Result<()> {
        let (host, node) = (Some(host), machine.name);
        let service = Service { name, host, ipv6: false, port, node, policy: "" };
        let yaml = service.yaml(&[SocketAddr::new(machine.address().into(), target)]);
        write(&self.world.folder.join(cloud::MANIFESTS), name, &yaml)
    }

    /// Writes a Service that nobody serves.
    fn tell_nobody(&self, (name, host): (&str, u8)) -> anyhow::Result<()> {
        let (host, node) = (Some(host), "");
        let service = Service { name, host, ipv6: false, port: 80, node, policy: "" };
        write(&self.world.folder.join(cloud::MANIFESTS), name, &service.yaml(&[]))
    }

    /// Writes the Service that nobody knows yet.
    pub(crate) fn tell_late(&self) -> anyhow::Result<()> {
        if self.world.lacks(Feature::Sync) {
            return Ok(());
        }
        self.tell(LATE, 59, 80, (B1, servers::HTTP))
    }

    /// The agent of a machine, which an earlier scene may have lost.
    pub(crate) fn agent(&self, machine: Machine) -> anyhow::Result<&Agent> {
        self.agents.get(machine.name).with_context(|| format!("no agent runs on {}", machine.name))
    }

    /// How the Link of a machine to the cloud is.
    pub(crate) fn uplink(&self, name: &str) -> anyhow::Result<CloudLink> {
        let agent = self.agents.get(name).with_context(|| format!("no agent runs on {name}"))?;
        agent.status(self.world)?.links.cloud.context("it has no cloud")
    }

    /// Whether a machine is ready and has what the cloud has.
    pub(crate) fn is_in_step(&self, name: &str) -> anyhow::Result<bool> {
        let cloud = self.cloud.as_ref().context("there is no cloud")?.status(self.world)?;
        let agent = self.agents.get(name).with_context(|| format!("no agent runs on {name}"))?;
        let status = agent.status(self.world)?;
        let link = status.links.cloud.context("it has no cloud")?;
        let same = link.epoch == cloud.epoch && link.revision == cloud.revision;
        Ok(status.ready && link.state == CloudState::Linked && same)
    }

    /// How to look around from another terminal.
    pub(crate) fn hints(&self) -> anyhow::Result<String> {
        let (enter, exe) = (&self.world.enter, std::env::current_exe()?);
        let a1 = format!("{enter} ip netns exec {}", A1.name);
        Ok(format!("  {a1} curl http://web-b1.default/\n  {a1} {} status\n", exe.display()))
    }

    /// Calls from a machine, by the names of Services.
    pub(crate) const fn way(&self, from: Machine) -> Way {
        Way { from: from.place(), proxy: None }
    }
}

/// `1.23 ms`
pub(crate) fn millis(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1e3)
}
