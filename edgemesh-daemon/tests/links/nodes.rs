//! The processes under test: a cloud, and agents on nodes; started as children, ended by their ids.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::PATIENCE;
use crate::common::namespace::within;
use crate::common::run::{self, Ran};
use crate::common::wait::eventually;
use crate::world::{CLOUD, Place, World};

/// The program.
pub(crate) const EDGEMESH: &str = env!("CARGO_BIN_EXE_edgemesh");
/// What is logged for operators.
const LOG: &str = "info,message=debug";
/// Where agents answer questions, in their namespace.
const AGENT_ADMIN: &str = "127.0.0.1:15000";
/// Where the cloud does.
const CLOUD_ADMIN: &str = "127.0.0.1:15010";

/// One process: the cloud, or an agent under its guard.
#[derive(Debug)]
pub(crate) struct Node {
    /// Where it runs.
    pub(crate) place: Place,
    child: Child,
    admin: &'static str,
    out: PathBuf,
    err: PathBuf,
}

/// `cloud.yaml` of this world.
pub(crate) fn cloud_config(world: &World) -> String {
    format!(
        "dataDir: {}\nsource: {{ manifests: {} }}\nhub: {{ listen: \"0.0.0.0:10000\", names: [\"{}\"] }}\n\
         router: {{ listen: \"127.0.0.1:9443\" }}\n",
        world.path("cloud").display(),
        world.path("manifests").display(),
        CLOUD.ip,
    )
}

/// `agent.yaml` of a node: joins with the token in the file `token`.
pub(crate) fn agent_config(world: &World, place: Place) -> String {
    format!(
        "node: {0}\ndataDir: {1}/{0}\ncloud: {{ servers: [\"{2}:10000\"], tokenFile: {1}/token }}\n\
         services: {1}/{0}-services\nproxy: {{ include: [10.96.0.0/16] }}\n",
        place.name,
        world.folder().display(),
        CLOUD.ip,
    )
}

/// A new join token, which `more` arguments may narrow.
#[track_caller]
pub(crate) fn token(world: &World, more: &str) -> String {
    let file = world.path("cloud.yaml");
    let line = format!("{EDGEMESH} token create --config {} {more}", file.display());
    let made = run::run(CLOUD.name, &line);
    assert_eq!(made.code, Some(0), "{}", made.err);
    made.out.trim().to_owned()
}

/// Starts the cloud, waits until it answers, and writes a join token to the file `token`.
#[track_caller]
pub(crate) fn cloud(world: &World) -> Node {
    let node = cloud_with(world, &cloud_config(world));
    world.write("token", &token(world, ""));
    node
}

/// Starts the cloud once more, with the configuration that it had.
#[track_caller]
pub(crate) fn cloud_again(world: &World) -> Node {
    cloud_with(world, &std::fs::read_to_string(world.path("cloud.yaml")).unwrap())
}

/// Starts the cloud with this configuration and waits until it answers.
#[track_caller]
pub(crate) fn cloud_with(world: &World, config: &str) -> Node {
    cloud_behind(world, &[], config)
}

/// The same, behind `wrapper` (such as `env …`).
#[track_caller]
pub(crate) fn cloud_behind(world: &World, wrapper: &[&str], config: &str) -> Node {
    let file = world.write("cloud.yaml", config);
    let file = file.display().to_string();
    let mut node = Node::spawn(world, CLOUD, wrapper, &["cloud", "--log", LOG, "--config", &file]);
    node.wait_ready();
    node
}

/// Starts an agent and waits until it is ready and in step with the cloud.
#[track_caller]
pub(crate) fn agent(world: &World, place: Place) -> Node {
    agent_with(world, place, "")
}

/// The same, with `more` lines in its configuration.
#[track_caller]
pub(crate) fn agent_with(world: &World, place: Place, more: &str) -> Node {
    let mut node = agent_alone(world, place, &format!("{}{more}\n", agent_config(world, place)));
    node.wait_ready();
    node.wait_linked();
    node
}

/// Starts an agent once more, with the configuration that it had, and waits until it is ready.
#[track_caller]
pub(crate) fn agent_again(world: &World, place: Place) -> Node {
    let file = world.path(&format!("{}.yaml", place.name));
    let mut node = agent_alone(world, place, &std::fs::read_to_string(file).unwrap());
    node.wait_ready();
    node
}

/// Starts an agent with this configuration; waits for nothing.
pub(crate) fn agent_alone(world: &World, place: Place, config: &str) -> Node {
    agent_behind(world, place, &[], config)
}

/// The same, behind `wrapper` (such as `env …`).
pub(crate) fn agent_behind(world: &World, place: Place, wrapper: &[&str], config: &str) -> Node {
    let file = world.write(&format!("{}.yaml", place.name), config);
    Node::spawn(
        world,
        place,
        wrapper,
        &["agent", "--log", LOG, "--config", &file.display().to_string()],
    )
}

impl Node {
    fn spawn(world: &World, place: Place, wrapper: &[&str], args: &[&str]) -> Self {
        let (out, err) = (format!("{}.out", place.name), format!("{}.err", place.name));
        let (out, err) = (world.path(&out), world.path(&err));
        // A process that is started again goes on in the same files.
        let open = |path| std::fs::File::options().create(true).append(true).open(path).unwrap();
        let line = run::within(place.name);
        let child = Command::new(line[0])
            .args(&line[1..])
            .args(wrapper)
            .arg(EDGEMESH)
            .args(args)
            .env_remove("NODE_NAME")
            .stdin(Stdio::null())
            .stdout(open(&out))
            .stderr(open(&err))
            .spawn()
            .unwrap();
        let admin = if args[0] == "cloud" { CLOUD_ADMIN } else { AGENT_ADMIN };
        Self { place, child, admin, out, err }
    }

    /// Waits until it says that it is ready.
    #[track_caller]
    pub(crate) fn wait_ready(&mut self) {
        eventually(&format!("{} is ready", self.place.name), PATIENCE, || {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("{} ended, {status}", self.place.name);
            }
            (self.http("/readyz")?.0 == 200).then_some(())
        });
    }

    /// Waits until its Link to the cloud stands and its records are those of the cloud.
    #[track_caller]
    pub(crate) fn wait_linked(&self) {
        eventually(&format!("{} is linked", self.place.name), PATIENCE, || {
            let status = self.try_get("/v1/status")?;
            let linked = status["links"]["cloud"]["state"] == "linked";
            (linked && status["services"].as_u64() > Some(0)).then_some(())
        });
    }

    /// A page of its admin API.
    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Value {
        self.try_get(path).unwrap_or_else(|| panic!("{}: {path} has no answer", self.place.name))
    }

    /// The same, while it may be away.
    pub(crate) fn try_get(&self, path: &str) -> Option<Value> {
        let (status, body) = self.http(path)?;
        (status == 200).then(|| serde_json::from_str(&body).unwrap())
    }

    fn http(&self, path: &str) -> Option<(u16, String)> {
        let (admin, path) = (self.admin, path.to_owned());
        within(self.place.name, move || {
            let to = admin.parse().unwrap();
            let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(2)).ok()?;
            stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            write!(stream, "GET {path} HTTP/1.0\r\nHost: {admin}\r\n\r\n").ok()?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).ok()?;
            let (head, body) = answer.split_once("\r\n\r\n")?;
            Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
        })
    }

    /// Runs a shell script on its machine to its end.
    #[track_caller]
    pub(crate) fn sh(&self, script: &str) -> Ran {
        run::run(self.place.name, script)
    }

    /// What it logged so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.err).unwrap_or_default()
    }

    /// The lines of its access log so far.
    pub(crate) fn access(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.out).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Waits for `count` lines of its access log, from the `after`th on, for which `wanted` holds.
    #[track_caller]
    pub(crate) fn lines(
        &self,
        what: &str,
        after: usize,
        count: usize,
        wanted: impl Fn(&Value) -> bool,
    ) -> Vec<Value> {
        eventually(&format!("{}: {count} lines, {what}", self.place.name), PATIENCE, || {
            let all = self.access().into_iter().skip(after);
            let found: Vec<_> = all.filter(|line| wanted(line)).collect();
            (found.len() >= count).then_some(found)
        })
    }

    /// Resident memory of the process that serves, in KiB.
    pub(crate) fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.worker()));
        let status = status.unwrap_or_default();
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or_default()
    }

    /// The process that serves: the guard's child, or the only one.
    pub(crate) fn worker(&self) -> Pid {
        self.children().first().copied().unwrap_or_else(|| self.id())
    }

    fn children(&self) -> Vec<Pid> {
        let all = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.id()));
        let all = all.unwrap_or_default();
        all.split_whitespace().map(|id| Pid::from_raw(id.parse().unwrap())).collect()
    }

    /// Sends a signal to the process that serves.
    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.worker(), signal).unwrap();
    }

    /// Kills it and its child, as a power cut would.
    pub(crate) fn kill(mut self) {
        self.kill_all();
    }

    /// Asks it to stop, and waits.
    #[track_caller]
    pub(crate) fn stop(mut self) {
        kill(self.id(), Signal::SIGTERM).unwrap();
        let child = &mut self.child;
        let ended = eventually("it stops", PATIENCE, || child.try_wait().unwrap());
        assert!(ended.success(), "{ended}");
    }

    fn id(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap())
    }

    /// The guard first, so that it starts nothing again.
    fn kill_all(&mut self) {
        let children = self.children();
        kill(self.id(), Signal::SIGKILL).ok();
        for child in children {
            kill(child, Signal::SIGKILL).ok();
            eventually("the agent is dead", PATIENCE, || kill(child, None).is_err().then_some(()));
        }
        self.child.wait().ok();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill_all();
        if std::thread::panicking() {
            const LAST: usize = 6000;
            let log = self.log();
            let log: Vec<_> = log.lines().filter(|line| !line.contains("DEBUG message")).collect();
            for (what, text) in [("log", log.join("\n")), ("access", read(&self.out))] {
                let from = text.len().saturating_sub(LAST);
                eprintln!(
                    "--- {} {what} ---\n{}",
                    self.place.name,
                    text.get(from..).unwrap_or(&text)
                );
            }
        }
    }
}

fn read(path: &std::path::Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}
