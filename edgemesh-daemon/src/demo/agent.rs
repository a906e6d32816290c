//! The agent under test: the same binary as a child process, its configuration and its admin API.

use std::fs;
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
use crate::demo::world::World;

/// How long an agent may take to be ready, in a debug build on a busy machine.
const READY_WITHIN: Duration = Duration::from_secs(10);
/// How long it may take to stop.
const STOP_WITHIN: Duration = Duration::from_secs(10);
/// How long it may take to answer a question.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// How agents of this demo are started.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    config: PathBuf,
    /// The explicit proxy.
    pub(crate) proxy: SocketAddr,
    admin: SocketAddr,
}

/// One agent, under its guard.
#[derive(Debug)]
pub(crate) struct Agent {
    guard: Running,
    admin: Admin,
}

impl Setup {
    /// Writes the configuration.
    pub(crate) fn write(world: &World) -> anyhow::Result<Self> {
        let loopback = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let (proxy, admin) = match world.walls {
            true => (loopback(15001), loopback(15000)),
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
        let config = world.folder.join("agent.yaml");
        fs::write(&config, text)?;
        Ok(Self { config, proxy, admin })
    }

    /// Starts an agent and waits until it is ready; how long that took.
    ///
    /// # Errors
    /// When it ends, or says for too long what it still waits for.
    pub(crate) fn start(&self, world: &World) -> anyhow::Result<(Agent, Duration)> {
        let begin = now();
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("agent").arg("--config").arg(&self.config).env_remove("NODE_NAME");
        let guard = Running::start(&mut command, &world.folder, "agent")?;
        let admin = Admin::new(&self.admin_url())?.with_timeout(ANSWER_WITHIN);
        let mut agent = Agent { guard, admin };
        let ready = until(READY_WITHIN, || match agent.status(world) {
            Ok(status) if status.ready => Some(true),
            Ok(_) | Err(_) if !agent.guard.runs() => Some(false),
            Ok(_) | Err(_) => None,
        });
        match ready {
            Some(true) => Ok((agent, now() - begin)),
            Some(false) => bail!("the agent ended: {}", last_words(world)),
            None => match agent.status(world) {
                Ok(status) => bail!("the agent is not ready: {}", status.not_ready.join(", ")),
                Err(error) => Err(error).context("the agent does not get ready"),
            },
        }
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

    fn get<T: DeserializeOwned>(&self, world: &World, path: &str) -> anyhow::Result<T> {
        Ok(world.runtime.block_on(self.admin.get(path))?)
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

    /// SIGTERM, and waits for the end.
    pub(crate) fn stop(self) -> anyhow::Result<Duration> {
        let begin = now();
        self.guard.stop(STOP_WITHIN).context("the agent")?;
        Ok(now() - begin)
    }
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

fn last_words(world: &World) -> String {
    let log = fs::read_to_string(world.folder.join("agent.log")).unwrap_or_default();
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
