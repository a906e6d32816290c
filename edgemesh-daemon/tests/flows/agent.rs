//! The agent under test: started as a child, watched by its own pages and logs, ended by its id.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use serde_json::Value;

use crate::common::wait::eventually;
use crate::world::World;

/// How long a start, a stop or a change may take before the test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// Where readiness is asked.
const PROBES: &str = "127.0.0.1:15020";
/// Where the rest is asked.
const ADMIN: &str = "127.0.0.1:15000";

/// A running agent. Dropped, it and its child are killed.
#[derive(Debug)]
pub(crate) struct Agent {
    child: Child,
    out: Lines,
    err: Lines,
    readers: Vec<JoinHandle<()>>,
}

type Lines = Arc<Mutex<Vec<String>>>;

/// The configuration that users begin with: nothing but where the manifests are.
pub(crate) fn config(world: &World) -> String {
    format!(
        "node: node-1\ndataDir: {}\nsource: {{ manifests: {} }}\nservices: {}\n",
        world.path("data").display(),
        world.path("manifests").display(),
        world.path("services").display(),
    )
}

impl Agent {
    /// Starts an agent with [`config`] and waits until it is ready.
    #[track_caller]
    pub(crate) fn start(world: &World) -> Self {
        Self::start_with(world, &config(world))
    }

    /// Starts an agent with this configuration and waits until it is ready.
    #[track_caller]
    pub(crate) fn start_with(world: &World, config: &str) -> Self {
        let mut agent = Self::spawn(world, config, &[]);
        agent.wait_ready();
        agent
    }

    /// Starts an agent, behind `wrapper` (such as `setpriv …`), and waits for nothing.
    pub(crate) fn spawn(world: &World, config: &str, wrapper: &[&str]) -> Self {
        let file = world.write("agent.yaml", config);
        let line = wrapper.iter().map(|word| (*word).to_owned());
        let line: Vec<_> = line.chain([env!("CARGO_BIN_EXE_edgemesh").to_owned()]).collect();
        let mut command = Command::new(&line[0]);
        command.args(&line[1..]).args(["agent", "--config"]).arg(file);
        let mut child = command
            .env_remove("NODE_NAME")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0) // so that one signal reaches the guard and its child
            .spawn()
            .unwrap();
        let (out, err) = (Lines::default(), Lines::default());
        let readers = vec![
            collect(child.stdout.take().unwrap(), &out),
            collect(child.stderr.take().unwrap(), &err),
        ];
        Self { child, out, err, readers }
    }

    /// Waits until the agent says that it is ready.
    #[track_caller]
    pub(crate) fn wait_ready(&mut self) {
        let err = self.err.clone();
        let child = &mut self.child;
        eventually("the agent is ready", PATIENCE, || {
            if let Some(status) = child.try_wait().unwrap() {
                panic!("the agent ended, {status}:\n{}", text(&err));
            }
            (http(PROBES, "/readyz")?.0 == 200).then_some(())
        });
    }

    /// Waits for its end and gives its exit code and what it said on stderr.
    #[track_caller]
    pub(crate) fn ended(mut self) -> (Option<i32>, String) {
        let status = self.wait();
        // Its last words may still be in the pipe.
        for reader in self.readers.drain(..) {
            reader.join().unwrap();
        }
        (status.code(), self.log())
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let err = self.err.clone();
        let child = &mut self.child;
        let status = eventually_or(PATIENCE, || child.try_wait().unwrap());
        status.unwrap_or_else(|| panic!("the agent did not end:\n{}", text(&err)))
    }

    /// Asks it to stop, as service managers do.
    pub(crate) fn terminate(&self) {
        kill(self.id(), Signal::SIGTERM).unwrap();
    }

    /// The process that was started: the guard, where there is one.
    pub(crate) fn id(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap())
    }

    /// The process that serves: the guard's child.
    #[track_caller]
    pub(crate) fn worker(&self) -> Pid {
        eventually("the guard has a child", PATIENCE, || self.children().first().copied())
    }

    /// Kills both at once, as a power cut would.
    pub(crate) fn kill_all(mut self) {
        self.kill_group();
    }

    /// The guard first, so that it starts nothing again; then its child, which is in a process
    /// group of its own, at once, before it can clean up.
    fn kill_group(&mut self) {
        let worker = self.children();
        killpg(self.id(), Signal::SIGKILL).ok();
        for worker in worker {
            kill(worker, Signal::SIGKILL).ok();
            eventually("the agent is dead", PATIENCE, || kill(worker, None).is_err().then_some(()));
        }
        self.child.wait().ok();
    }

    /// The guard's children, oldest first.
    pub(crate) fn children(&self) -> Vec<Pid> {
        let all = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.id()));
        all.unwrap_or_default()
            .split_whitespace()
            .map(|id| Pid::from_raw(id.parse().unwrap()))
            .collect()
    }

    /// What it said on stderr so far.
    pub(crate) fn log(&self) -> String {
        text(&self.err)
    }

    /// The lines of the access log so far.
    pub(crate) fn access(&self) -> Vec<Value> {
        let lines = self.out.lock().unwrap();
        lines
            .iter()
            .map(|line| serde_json::from_str(line).expect("one JSON object a line"))
            .collect()
    }

    /// Waits for `count` lines of the access log for which `wanted` holds; more are a failure.
    #[track_caller]
    pub(crate) fn lines(
        &self,
        what: &str,
        count: usize,
        wanted: impl Fn(&Value) -> bool,
    ) -> Vec<Value> {
        let found =
            || -> Vec<_> { self.access().into_iter().filter(|line| wanted(line)).collect() };
        let enough = eventually_or(PATIENCE, || (found().len() >= count).then_some(()));
        let found = found();
        assert!(
            enough.is_some() && found.len() == count,
            "{what}: wanted {count} lines, got {found:#?}"
        );
        found
    }

    /// A page of the admin API.
    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Value {
        let (status, body) = http(ADMIN, path).unwrap_or_else(|| panic!("{path} has no answer"));
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap_or_else(|error| panic!("{path}: {error}: {body}"))
    }

    /// The metrics page.
    pub(crate) fn metrics(&self) -> String {
        http(PROBES, "/metrics").expect("the metrics page").1
    }

    /// The sum of all samples of a metric whose labels contain `label`.
    pub(crate) fn metric(&self, name: &str, label: &str) -> f64 {
        let page = self.metrics();
        let samples = page.lines().filter(|line| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
                && line.contains(label)
        });
        samples.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Resident memory of the process that serves, in KiB.
    pub(crate) fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.worker())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.kill_group();
        if std::thread::panicking() {
            eprintln!("--- the agent's log ---\n{}", self.log());
            let lines = self.out.lock().unwrap();
            eprintln!(
                "--- its access log, the end ---\n{}",
                lines[lines.len().saturating_sub(40)..].join("\n")
            );
        }
    }
}

fn eventually_or<T>(patience: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let mut found = None;
    crate::common::wait::throughout(patience, || {
        found = look();
        found.is_none()
    });
    found
}

fn text(lines: &Lines) -> String {
    lines.lock().unwrap().join("\n")
}

fn collect(from: impl Read + Send + 'static, into: &Lines) -> JoinHandle<()> {
    let into = into.clone();
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            into.lock().unwrap().push(line);
        }
    })
}

/// Status and body of a page, or `None` when nobody answers.
pub(crate) fn http(at: &str, path: &str) -> Option<(u16, String)> {
    let mut stream =
        TcpStream::connect_timeout(&at.parse().unwrap(), Duration::from_secs(2)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {at}\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}
