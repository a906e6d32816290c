//! The demo's network: a node, a pod that calls, a pod that serves, and one name server for all.
//!
//! The node is cut off: it has no default route and no uplink, as an edge site on a bad day.

use std::fs;
use std::fs::File;
use std::io::Write;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;

use anyhow::Context;
use anyhow::anyhow;
use anyhow::bail;
use nix::mount::MsFlags;
use nix::mount::mount;
use nix::sched::CloneFlags;
use nix::sched::setns;
use tokio::runtime::Runtime;

use crate::cli::Feature;

/// The name server that resolv.conf names. Nobody is there: the agent answers in its place.
pub(crate) const NAMESERVER: &str = "10.53.53.53";
/// Threads of the built-in servers and clients.
const WORKERS: usize = 2;

/// Somewhere to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// The node itself, where the agent runs too.
    Node,
    /// The pod that calls.
    Client,
    /// The pod that serves.
    Apps,
    /// A machine of the second act, a router, or the internet between them.
    Machine(&'static str),
}

impl Place {
    /// The name of its network namespace; `None`: the one that we are in.
    const fn netns(self) -> Option<&'static str> {
        match self {
            Self::Node => None,
            Self::Client => Some("client"),
            Self::Apps => Some("apps"),
            Self::Machine(name) => Some(name),
        }
    }
}

/// What the scenes play in.
#[derive(Debug)]
pub(crate) struct World {
    /// Everything that is written.
    pub(crate) folder: PathBuf,
    /// Whether there are namespaces.
    pub(crate) walls: bool,
    /// Whether the kernel has IPv6.
    pub(crate) ipv6: bool,
    /// What is broken on purpose.
    pub(crate) without: Option<Feature>,
    /// Drives built-in servers and clients.
    pub(crate) runtime: Runtime,
    /// The command that enters it from outside.
    pub(crate) enter: String,
}

impl World {
    /// Builds it in the namespaces that this process is in; without walls there is little to do.
    pub(crate) fn build(
        folder: &Path,
        walls: bool,
        without: Option<Feature>,
    ) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(WORKERS)
            .enable_all()
            .build()?;
        let enter = enter()?;
        let ipv6 = Path::new("/proc/sys/net/ipv6").exists();
        let world = Self { folder: folder.into(), walls, ipv6, without, runtime, enter };
        for name in ["manifests", "services", "data"] {
            fs::create_dir_all(world.folder.join(name))?;
        }
        if walls {
            links(ipv6).context("cannot build the network")?;
            names(folder).context("cannot give the world a resolv.conf")?;
            let flags = MsFlags::empty();
            // Where a container hides parts of /proc it cannot be mounted again, and need not be.
            let _ = mount(Some("proc"), "/proc", Some("proc"), flags, None::<&str>);
        }
        Ok(world)
    }

    /// Whether `feature` is left out.
    pub(crate) fn lacks(&self, feature: Feature) -> bool {
        self.without == Some(feature)
    }

    /// Runs `body` in `place`. Sockets and processes that it makes stay there.
    pub(crate) fn within<T: Send>(
        &self,
        place: Place,
        body: impl FnOnce() -> anyhow::Result<T> + Send,
    ) -> anyhow::Result<T> {
        let Some(netns) = place.netns().filter(|_| self.walls) else { return body() };
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                let path = format!("/run/netns/{netns}");
                let file = File::open(&path).context(path)?;
                setns(file, CloneFlags::CLONE_NEWNET).context("setns")?;
                body()
            });
            thread.join().map_err(|_| anyhow!("a thread panicked"))?
        })
    }

    /// The `n`th address of a Backend: in the serving pod, or loopback where there are no walls.
    pub(crate) fn address(&self, n: u8) -> IpAddr {
        if self.walls { Ipv4Addr::new(10, 244, 2, n).into() } else { Ipv4Addr::LOCALHOST.into() }
    }

    /// The same of IPv6, where there is any.
    pub(crate) fn address6(&self, n: u8) -> Option<IpAddr> {
        let address = Ipv6Addr::new(0xfd00, 0x244, 2, 0, 0, 0, 0, n.into());
        (self.walls && self.ipv6).then_some(address.into())
    }

    /// `wanted`, or any free port where the machine's own network is used.
    pub(crate) fn port(&self, wanted: u16) -> u16 {
        if self.walls { wanted } else { 0 }
    }
}

/// Asked before /proc is mounted anew: there this process has the id that the outside knows.
fn enter() -> anyhow::Result<String> {
    let id = fs::read_link("/proc/self").context("/proc/self")?;
    let map = fs::read_to_string("/proc/self/uid_map").context("/proc/self/uid_map")?;
    // One user is mapped where we made the user namespace, all of them where root needed none.
    let own_users = map.split_whitespace().last() == Some("1");
    let user = if own_users { " --preserve-credentials -U" } else { "" };
    Ok(format!("nsenter -t {}{user} -m -n", id.display()))
}

/// `.1` is the node's end of a pod's link, `.2` the pod's; Backends have addresses of their own.
fn links(ipv6: bool) -> anyhow::Result<()> {
    ip("link set lo up\nnetns add client\nnetns add apps\n", "")?;
    for (pod, subnet) in [("client", 1), ("apps", 2)] {
        let v4 = format!("10.244.{subnet}");
        let mut node = format!(
            "link add {pod}0 type veth peer name eth0 netns {pod}\n\
             addr add {v4}.1/24 dev {pod}0\n"
        );
        let mut inside = format!("link set lo up\naddr add {v4}.2/24 dev eth0\n");
        if ipv6 {
            node.push_str(&format!("addr add fd00:244:{subnet}::1/64 dev {pod}0 nodad\n"));
            inside.push_str(&format!("addr add fd00:244:{subnet}::2/64 dev eth0 nodad\n"));
        }
        if pod == "apps" {
            for n in crate::demo::servers::ADDRESSES {
                inside.push_str(&format!("addr add {v4}.{n}/24 dev eth0\n"));
                if ipv6 {
                    inside.push_str(&format!("addr add fd00:244:2::{n:x}/64 dev eth0 nodad\n"));
                }
            }
        }
        node.push_str(&format!("link set {pod}0 up\n"));
        inside.push_str(&format!("link set eth0 up\nroute add default via {v4}.1\n"));
        if ipv6 {
            inside.push_str(&format!("route add default via fd00:244:{subnet}::1\n"));
        }
        ip(&node, "")?;
        ip(&inside, pod)?;
    }
    // So that pods reach each other without the mesh, as they do on a node.
    fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("ip_forward")?;
    // So that each call to nowhere fails at once, not one a second.
    fs::write("/proc/sys/net/ipv4/icmp_ratelimit", "0").context("icmp_ratelimit")?;
    if ipv6 {
        fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1").context("forwarding")?;
        fs::write("/proc/sys/net/ipv6/icmp/ratelimit", "0").context("icmp/ratelimit")?;
    }
    Ok(())
}

/// `ip -batch` in a namespace; empty: in this one.
pub(crate) fn ip(script: &str, netns: &str) -> anyhow::Result<()> {
    let mut command = Command::new("ip");
    if !netns.is_empty() {
        command.args(["-n", netns]);
    }
    let mut child = command
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("ip; install iproute2")?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(script.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    bail!("ip: {}", String::from_utf8_lossy(&output.stderr).trim())
}

/// Puts our resolv.conf in the place of the machine's, in this mount namespace only.
fn names(folder: &Path) -> anyhow::Result<()> {
    let text = format!(
        "nameserver {NAMESERVER}\nsearch default.svc.cluster.local svc.cluster.local\n\
         options ndots:5 timeout:1 attempts:1\n"
    );
    let ours = folder.join("resolv.conf");
    fs::write(&ours, &text)?;
    let theirs = Path::new("/etc/resolv.conf");
    match theirs.canonicalize() {
        Ok(target) => {
            mount(Some(&ours), &target, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
        }
        // A link into /run, which is empty now and ours.
        Err(_) => {
            let target = Path::new("/etc").join(fs::read_link(theirs)?);
            let target = PathBuf::from(target.display().to_string().replace("/etc/../", "/"));
            fs::create_dir_all(target.parent().unwrap_or_else(|| Path::new("/run")))?;
            fs::write(target, &text)?;
        }
    }
    Ok(())
}
