//! The cloud of the second act: the same binary as a child process, and the commands beside it.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use anyhow::bail;

use crate::api::Status;
use crate::client::Admin;
use crate::demo::agent::last_words;
use crate::demo::agent::page;
use crate::demo::children::Running;
use crate::demo::children::ask;
use crate::demo::clock::now;
use crate::demo::clock::until;
use crate::demo::sites::network::CLOUD;
use crate::demo::world::World;

/// How long it may take to be ready, in a debug build on a busy machine.
const READY_WITHIN: Duration = Duration::from_secs(10);
/// How long it may take to answer a question.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// Where agents find it.
pub(crate) const HUB_PORT: u16 = 10000;
/// Its ingress, for callers on its own machine.
pub(crate) const INGRESS: &str = "127.0.0.1:9443";
const ADMIN: &str = "http://127.0.0.1:15010";
/// Folder of what it is told, in the demo's folder.
pub(crate) const MANIFESTS: &str = "cloud-manifests";
/// Its configuration, and what another cloud would have.
const CONFIG: &str = "cloud.yaml";
const OTHER: &str = "other.yaml";

/// The process. Dropped, it is killed.
#[derive(Debug)]
pub(crate) struct Cloud {
    process: Running,
    admin: Admin,
}

impl Cloud {
    /// Starts it and waits until it is ready; how long that took.
    pub(crate) fn start(world: &World) -> anyhow::Result<(Self, Duration)> {
        configure(world, CLOUD.name, CONFIG)?;
        let begin = now();
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("cloud").arg("--config").arg(world.folder.join(CONFIG));
        let start = || Running::start(&mut command, &world.folder, CLOUD.name);
        let process = world.within(CLOUD.place(), start)?;
        let mut cloud = Self { process, admin: Admin::new(ADMIN)?.with_timeout(ANSWER_WITHIN) };
        let ready = until(READY_WITHIN, || match cloud.status(world) {
            Ok(status) if status.ready => Some(true),
            Ok(_) | Err(_) if !cloud.process.runs() => Some(false),
            Ok(_) | Err(_) => None,
        });
        match ready {
            Some(true) => Ok((cloud, now() - begin)),
            Some(false) => bail!("the cloud ended: {}", last_words(world, CLOUD.name)),
            None => bail!("the cloud is not ready after {} s", READY_WITHIN.as_secs()),
        }
    }

    /// `/v1/status`
    pub(crate) fn status(&self, world: &World) -> anyhow::Result<Status> {
        page(world, CLOUD.place(), &self.admin, "/v1/status")
    }

    /// A page of its admin API.
    pub(crate) fn get<T>(&self, world: &World, path: &str) -> anyhow::Result<T>
    where
        T: serde::de::DeserializeOwned + Send,
    {
        page(world, CLOUD.place(), &self.admin, path)
    }

    /// SIGKILL, and waits for the end.
    pub(crate) fn kill(self) {
        drop(self.process);
    }
}

fn configure(world: &World, folder: &str, name: &str) -> anyhow::Result<()> {
    let all = world.folder.display();
    let text = format!(
        "dataDir: {all}/{folder}\nsource: {{ manifests: {all}/{MANIFESTS} }}\n\
         hub: {{ listen: \"0.0.0.0:{HUB_PORT}\", names: [\"{}\"] }}\n\
         router: {{ listen: \"{INGRESS}\" }}\n",
        CLOUD.address()
    );
    fs::write(world.folder.join(name), text).context(name.to_owned())
}

/// A token by which nodes join.
pub(crate) fn token(world: &World) -> anyhow::Result<String> {
    command(world, &["token", "create"], CONFIG)
}

/// A token by which they join another cloud.
pub(crate) fn other_token(world: &World) -> anyhow::Result<String> {
    configure(world, "other", OTHER)?;
    command(world, &["token", "create"], OTHER)
}

/// `edgemesh node remove`
pub(crate) fn remove(world: &World, node: &str) -> anyhow::Result<String> {
    command(world, &["node", "remove", node], CONFIG)
}

fn command(world: &World, words: &[&str], config: &str) -> anyhow::Result<String> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(words).arg("--config").arg(world.folder.join(config));
    let said = ask(&mut command).with_context(|| format!("edgemesh {}", words.join(" ")))?;
    Ok(said.trim().to_owned())
}
