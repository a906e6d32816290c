//! The stage that scenes play on: servers, manifests and an agent in the world, and the way calls take.

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;

use crate::cli::Feature;
use crate::demo::agent::Agent;
use crate::demo::agent::Setup;
use crate::demo::children::find;
use crate::demo::clients::Way;
use crate::demo::clock::pause;
use crate::demo::manifests::NODE;
use crate::demo::manifests::Service;
use crate::demo::manifests::route;
use crate::demo::manifests::write;
use crate::demo::programs;
use crate::demo::programs::Real;
use crate::demo::servers;
use crate::demo::servers::Backend;
use crate::demo::world::Place;
use crate::demo::world::World;
use crate::say;

/// The limit of the Service `limited`, calls a second and at once.
pub(crate) const LIMIT: u32 = 5;
/// Failures in a row after which a Backend of `flaky` is ejected.
pub(crate) const EJECT_AFTER: u32 = 3;

/// The header whose value the Service `keyed` balances by.
pub(crate) const KEY: &str = "x-user";

/// Everything that scenes use.
#[derive(Debug)]
pub(crate) struct Stage<'w> {
    pub(crate) world: &'w World,
    /// How long the load runs.
    pub(crate) load: Duration,
    pub(crate) curl: Option<PathBuf>,
    pub(crate) setup: Setup,
    /// `None` where it is stopped, or never came up.
    pub(crate) agent: Option<Agent>,
    /// One more than its Service has at first.
    pub(crate) hello: Vec<Backend>,
    pub(crate) flaky: Vec<Backend>,
    /// Backends of gRPC.
    pub(crate) echo: Vec<Backend>,
    pub(crate) redis: Option<Real>,
    pub(crate) db: Option<Real>,
    pub(crate) tls: Option<Real>,
    /// What else listens.
    others: Vec<Backend>,
}

/// Backends of `hello` at first; one more joins later.
pub(crate) const HELLOS: usize = 3;

impl<'w> Stage<'w> {
    /// Starts the servers and writes their manifests.
    pub(crate) fn set(world: &'w World, load: u32) -> anyhow::Result<Self> {
        say::progress("starting servers");
        let hello = servers::http(world, "hello", 11, HELLOS as u8 + 1, true)?;
        let flaky = servers::http(world, "flaky", 15, 3, false)?;
        let limited = servers::http(world, "limited", 18, 1, false)?;
        let notes = servers::http(world, "notes", 31, 1, false)?;
        let echo = servers::grpc(world, "echo", 21, 3)?;
        let mut stage = Self {
            world,
            load: Duration::from_secs(load.into()),
            curl: find("curl"),
            setup: Setup::write(world)?,
            agent: None,
            hello,
            flaky,
            echo,
            redis: None,
            db: None,
            tls: None,
            others: Vec::new(),
        };
        stage.programs()?;
        stage.records(&limited, &notes)?;
        stage.others.extend(limited.into_iter().chain(notes));
        Ok(stage)
    }

    /// What needs names and captured ports, behind walls; TLS goes through the proxy too.
    fn programs(&mut self) -> anyhow::Result<()> {
        let world = self.world;
        let at = |n, port| SocketAddr::new(world.address(n), port);
        let tls = at(42, if world.walls { 443 } else { free_port()? });
        self.tls = programs::tls(world, tls)?;
        self.tell("tls", 14, 443, "", &[tls])?;
        if !world.walls {
            return Ok(());
        }
        let (redis, db) = (at(40, 6379), at(41, 3306));
        self.redis = programs::redis(world, Place::Apps, redis)?;
        if self.redis.is_none() {
            self.others.push(servers::resp(world, redis.ip())?);
        }
        self.db = programs::mariadb(world, db)?;
        if self.db.is_none() {
            self.others.push(servers::banner(world, db.ip())?);
        }
        self.tell("redis", 12, 6379, "", &[redis])?;
        self.tell("db", 13, 3306, "", &[db])
    }

    fn records(&self, limited: &[Backend], notes: &[Backend]) -> anyhow::Result<()> {
        let world = self.world;
        let count = if world.lacks(Feature::Balance) { 1 } else { HELLOS };
        let ipv6 = world.walls && world.ipv6 && !world.lacks(Feature::Ipv6);
        let robin = "loadBalancer: { policy: roundRobin }";
        let hello =
            Service { name: "hello", host: Some(10), ipv6, port: 80, node: NODE, policy: robin };
        let folder = world.folder.join("manifests");
        write(&folder, "hello", &hello.yaml(&addresses(&self.hello[..count])))?;
        let headless =
            Service { name: "notes", host: None, ipv6: false, port: 80, node: NODE, policy: "" };
        write(&folder, "notes", &headless.yaml(&addresses(notes)))?;
        let count = if world.lacks(Feature::Balance) { 1 } else { self.echo.len() };
        self.tell("echo", 11, 50051, robin, &addresses(&self.echo[..count]))?;
        let limit = format!("rateLimit: {{ client: {{ qps: {LIMIT}, burst: {LIMIT} }} }}");
        let limit = if world.lacks(Feature::Limit) { robin } else { &limit };
        self.tell("limited", 15, 80, limit, &addresses(limited))?;
        let breaker = format!(
            "circuitBreaker: {{ consecutiveFailures: {EJECT_AFTER}, ejectFor: 2s, maxEjectFor: 3s }}\n  \
             retries: {{ attempts: 0 }}"
        );
        let bare = "retries: { attempts: 0 }";
        let breaker = if world.lacks(Feature::Breaker) { bare } else { &breaker };
        self.tell("flaky", 16, 80, breaker, &addresses(&self.flaky))?;
        self.depth(robin)
    }

    /// A Service that only its Route leads on from, and one that is balanced by key.
    fn depth(&self, robin: &str) -> anyhow::Result<()> {
        self.tell("split", 17, 80, "", &[])?;
        if !self.world.lacks(Feature::Routes) {
            let folder = self.world.folder.join("manifests");
            write(&folder, "split-route", &route("split", &[("hello", 3), ("notes", 1)]))?;
        }
        let hash = format!("loadBalancer: {{ consistentHash: {{ header: {KEY} }} }}");
        let policy = if self.world.lacks(Feature::Keys) { robin } else { &hash };
        let v4 = self.hello[..HELLOS].iter().map(|backend| backend.addresses[0]);
        self.tell("keyed", 18, 80, policy, &v4.collect::<Vec<_>>())
    }

    fn tell(
        &self,
        name: &str,
        host: u8,
        port: u16,
        policy: &str,
        backends: &[SocketAddr],
    ) -> anyhow::Result<()> {
        let service = Service { name, host: Some(host), ipv6: false, port, node: NODE, policy };
        write(&self.world.folder.join("manifests"), name, &service.yaml(backends))
    }

    /// How scenes call that are about something else than the way.
    pub(crate) fn way(&self, from: Place) -> Way {
        let proxy = (!self.world.walls).then_some(self.setup.proxy);
        Way { from, proxy }
    }

    /// What `hello.default` should resolve to.
    pub(crate) fn hello_addresses(&self) -> Vec<IpAddr> {
        let v6 = self.world.ipv6 && !self.world.lacks(Feature::Ipv6);
        let mut both: Vec<IpAddr> = vec![Ipv4Addr::new(10, 96, 0, 10).into()];
        both.extend(v6.then(|| IpAddr::from(Ipv6Addr::new(0xfd10, 0x96, 0, 0, 0, 0, 0, 0xa))));
        both
    }

    /// The agent, which an earlier scene may have lost.
    pub(crate) fn agent(&self) -> anyhow::Result<&Agent> {
        self.agent.as_ref().context("no agent runs")
    }

    /// Says how to look around, and at what else there is; waits to be ended.
    pub(crate) fn keep(&mut self, more: &str) -> anyhow::Result<()> {
        if self.agent.is_none() {
            self.agent = Some(self.setup.start(self.world)?.0);
        }
        let url = self.setup.admin_url();
        let exe = std::env::current_exe()?;
        let exe = exe.display();
        if self.world.walls {
            let enter = &self.world.enter;
            say::answer(&format!(
                "\nthe world stands until Ctrl-C; from another terminal:\n  \
                 {enter} curl http://hello.default/\n  \
                 {enter} ip netns exec client curl http://hello.default/\n  \
                 {enter} {exe} status --admin {url}\n{more}"
            ))?;
        } else {
            let proxy = self.setup.proxy;
            say::answer(&format!(
                "\nthe world stands until Ctrl-C\n  curl -x http://{proxy} http://hello.default/\n  \
                 {exe} status --admin {url}\n"
            ))?;
        }
        loop {
            pause(Duration::from_secs(3600)); // ended from outside
        }
    }
}

/// All addresses of all Backends.
pub(crate) fn addresses(backends: &[Backend]) -> Vec<SocketAddr> {
    backends.iter().flat_map(|backend| backend.addresses.iter().copied()).collect()
}

fn free_port() -> anyhow::Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
