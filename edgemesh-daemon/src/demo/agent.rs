//! The agent under test: the same binary as a child process, its configuration and its admin API.

use std::fs;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use anyhow::bail;
use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::sys::wait::WaitPidFlag;
use nix::sys::wait::WaitStatus;
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use serde::de::DeserializeOwned;

use crate::api::BackendView;
use crate::api::Status;
use crate::cli::Feature;
use crate::client::Admin;
use crate::demo::children::Running;
use crate::demo::clock::now;
use crate::demo::clock::until;
use crate::demo::manifests::NODE;
use crate::demo::manifests::SERVICE_RANGES;
use crate::demo::world::Place;
use crate::demo::world::World;

/// How long an agent may take to be ready, in a debug build on a busy machine.
const READY_WITHIN: Duration = Duration::from_secs(10);
/// How long it may take to stop.
const STOP_WITHIN: Duration = Duration::from_secs(10);
/// Where an agent listens that has the ports for itself.
const PROXY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 15001);
const ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 15000);
/// How long it may take to answer a question.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// How one agent of this demo is started, where.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    /// What its logs and its configuration are called.
    name: String,
    place: Place,
    config: PathBuf,
    /// The explicit proxy.
    pub(crate) proxy: SocketAddr,
    admin: SocketAddr,
}

/// One agent, under its guard.
#[derive(Debug)]
pub(crate) struct Agent {
    guard: Running,
    place: Place,
    admin: Admin,
}

impl Setup {
    /// Writes the configuration of the first act's agent.
    pub(crate) fn write(world: &World) -> anyhow::Result<Self> {
        let (proxy, admin) = match world.walls {
            true => (PROXY, ADMIN),
            false => (free()?, free()?),
        };
        let captures = world.walls && !world.lacks(Feature::Capture);
        let dns = match (captures, world.lacks(Feature::Dns)) {
            (true, false) => "{ intercept: auto }",
            (true, true) => "{ intercept: off }",
            (false, _) => "{ listen: [], intercept: off }",
        };
        let folder = world.folder.display();
        let text = format!(
            "node: {NODE}\ndataDir: {folder}/data\nsource: {{ manifests: {folder}/manifests }}\n\
             services: {folder}/services\nproxy:\n  port: {}\n  intercept: {}\n  \
             include: [{}, \"{}\"]\ndns: {dns}\npeer: {{ listen: \"127.0.0.1:0\" }}\n\
             metrics: {{ listen: \"127.0.0.1:0\" }}\nadmin: {{ listen: \"{admin}\" }}\n",
            proxy.port(),
            if captures { "iptables" } else { "none" },
            SERVICE_RANGES[0],
            SERVICE_RANGES[1],
        );
        Self { proxy, admin, ..Self::of(world, "agent", Place::Node) }.with(&text)
    }

    /// Writes that of the agent of a machine, which has all ports for itself.
    pub(crate) fn on(world: &World, name: &'static str, text: &str) -> anyhow::Result<Self> {
        Self::of(world, name, Place::Machine(name)).with(text)
    }

    fn of(world: &World, name: &str, place: Place) -> Self {
        let config = world.folder.join(format!("{name}.yaml"));
        Self { name: name.into(), place, config, proxy: PROXY, admin: ADMIN }
    }

    fn with(self, text: &str) -> anyhow::Result<Self> {
        fs::write(&self.config, text)?;
        Ok(self)
    }

    /// Starts an agent and waits until it is ready; how long that took.
    ///
    /// # Errors
    /// When it ends, or says for too long what it still waits for.
    pub(crate) fn start(&self, world: &World) -> anyhow::Result<(Agent, Duration)> {
        let begin = now();
        let mut agent = self.spawn(world)?;
        let ready = until(READY_WITHIN, || match agent.status(world) {
            Ok(status) if status.ready => Some(true),
            Ok(_) | Err(_) if !agent.guard.runs() => Some(false),
            Ok(_) | Err(_) => None,
        });
        match ready {
            Some(true) => Ok((agent, now() - begin)),
            Some(false) => bail!("the agent ended: {}", last_words(world, &self.name)),
            None => match agent.status(world) {
                Ok(status) => bail!("the agent is not ready: {}", status.not_ready.join(", ")),
                Err(error) => Err(error).context("the agent does not get ready"),
            },
        }
    }

    /// Starts an agent; waits for nothing.
    pub(crate) fn spawn(&self, world: &World) -> anyhow::Result<Agent> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("agent").arg("--config").arg(&self.config).env_remove("NODE_NAME");
        let start = || Running::start(&mut command, &world.folder, &self.name);
        let guard = world.within(self.place, start)?;
        let admin = Admin::new(&self.admin_url())?.with_timeout(ANSWER_WITHIN);
        Ok(Agent { guard, place: self.place, admin })
    }

    /// For `--admin`.
    pub(crate) fn admin_url(&self) -> String {
        format!("http://{}", self.admin)
    }
}

impl Agent {
    /// `/v1/status`
    pub(crate) fn status(&self, world: &World) -> anyhow::Result<Status> {
        self.get(world, "/v1/status")
    }

    /// `/v1/backends` of one Service.
    pub(crate) fn backends(
        &self,
        world: &World,
        service: &str,
    ) -> anyhow::Result<Vec<BackendView>> {
        let mut all: Vec<BackendView> = self.get(world, "/v1/backends")?;
        all.retain(|backend| backend.service == service);
        Ok(all)
    }

    /// A page of its admin API.
    pub(crate) fn get<T>(&self, world: &World, path: &str) -> anyhow::Result<T>
    where
        T: DeserializeOwned + Send,
    {
        page(world, self.place, &self.admin, path)
    }

    /// The process behind the guard.
    pub(crate) fn guarded(&self) -> anyhow::Result<Pid> {
        child_of(self.guard.id())?.context("the guard has no child")
    }

    /// SIGKILL to the agent; its guard lives on.
    pub(crate) fn kill(&self) -> anyhow::Result<()> {
        kill(self.guarded()?, Signal::SIGKILL).context("kill -9")
    }

    /// SIGUSR2 to the guard: it starts an agent that takes over.
    pub(crate) fn renew(&self) -> anyhow::Result<()> {
        kill(self.guard.id(), Signal::SIGUSR2).context("SIGUSR2")
    }

    /// SIGKILL to the guard.
    pub(crate) fn kill_guard(&self) -> anyhow::Result<()> {
        kill(self.guard.id(), Signal::SIGKILL).context("kill -9 of the guard")
    }

    /// SIGKILL to both, as a power cut would: neither may notice the end of the other.
    pub(crate) fn power_cut(self) -> anyhow::Result<()> {
        let agent = self.guarded()?;
        kill(self.guard.id(), Signal::SIGSTOP).context("SIGSTOP")?;
        kill(agent, Signal::SIGKILL).context("kill -9")?;
        drop(self);
        // Its parent is now process 1, which is us.
        let ended = until(STOP_WITHIN, || {
            let alive = waitpid(agent, Some(WaitPidFlag::WNOHANG)) == Ok(WaitStatus::StillAlive);
            (!alive).then_some(())
        });
        ended.context("it lives on after SIGKILL")
    }

    /// SIGTERM, and waits for the end.
    pub(crate) fn stop(self) -> anyhow::Result<Duration> {
        let begin = now();
        self.guard.stop(STOP_WITHIN).context("the agent")?;
        Ok(now() - begin)
    }
}

/// A page of an admin API in `place`: the connection is made on the thread that enters it.
pub(crate) fn page<T>(world: &World, place: Place, admin: &Admin, path: &str) -> anyhow::Result<T>
where
    T: DeserializeOwned + Send,
{
    world.within(place, || Ok(world.runtime.block_on(admin.get(path))?))
}

/// The child of `parent`. /proc may be that of another process namespace, in which all have other
/// ids: what `NSpid` ends with is the id here.
fn child_of(parent: Pid) -> anyhow::Result<Option<Pid>> {
    let own = fs::read_to_string("/proc/self/status")?;
    let own = field(&own, "Pid").context("/proc/self/status has no Pid")?.to_owned();
    let all = processes()?;
    let here = |process: &&Process| process.parent == own && process.here == parent.as_raw();
    let Some(guard) = all.iter().find(here) else { return Ok(None) };
    let child = all.iter().find(|process| process.parent == guard.id);
    Ok(child.map(|child| Pid::from_raw(child.here)))
}

struct Process {
    id: String,
    parent: String,
    here: i32,
}

fn processes() -> anyhow::Result<Vec<Process>> {
    let mut all = Vec::new();
    for entry in fs::read_dir("/proc")? {
        // What cannot be read has ended meanwhile.
        let Ok(text) = fs::read_to_string(entry?.path().join("status")) else { continue };
        let here = field(&text, "NSpid").and_then(|ids| ids.split_whitespace().last());
        let id = field(&text, "Pid");
        if let (Some(id), Some(parent), Some(Ok(here))) =
            (id, field(&text, "PPid"), here.map(str::parse))
        {
            all.push(Process { id: id.into(), parent: parent.into(), here });
        }
    }
    Ok(all)
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = status.lines();
    lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

/// The last that a process said, for people.
pub(crate) fn last_words(world: &World, name: &str) -> String {
    let log = fs::read_to_string(world.folder.join(format!("{name}.log"))).unwrap_or_default();
    // What it says to people comes first; else whatever it logged last.
    let said = log.lines().rev().find_map(|line| line.strip_prefix("edgemesh: "));
    said.or_else(|| log.lines().last()).unwrap_or("it said nothing").to_owned()
}

/// A port that nobody holds at this moment.
fn free() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_is_found() {
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 60 & wait"]);
        let folder = tempfile::tempdir().unwrap();
        let parent = Running::start(&mut command, folder.path(), "parent").unwrap();
        let child = until(Duration::from_secs(10), || child_of(parent.id()).unwrap());
        let child = child.expect("sh starts sleep");
        assert_ne!(child, parent.id());
        kill(child, Signal::SIGKILL).unwrap();
    }

    #[test]
    fn fields_are_whole_words() {
        let status = "Name:\tsh\nPPid:\t4\nPid:\t7\nNSpid:\t7\t1\n";
        assert_eq!(field(status, "Pid"), Some("7"));
        assert_eq!(field(status, "NSpid"), Some("7\t1"));
        assert_eq!(field(status, "Nothing"), None);
    }
}
