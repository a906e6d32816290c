//! Workers, an agent and clients as processes: the picture is the same byte for byte, whoever
//! computes it, and also while workers come and are killed.
//!
//! The test is also the agent that it tests with, by its first argument.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that cannot go on fails; it has no harness that would tell what passed"
)]

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

use edgemesh_daemon::config::{Environment, Flags, load_file};
use edgemesh_daemon::{agent, log};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// How long anything may take before the test fails.
const PATIENCE: Duration = Duration::from_secs(60);

type Test = (&'static str, fn(&World));

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if args.get(1).map(String::as_str) == Some("--as-agent") {
        return as_agent(Path::new(&args[2]));
    }
    let tests: [Test; 4] = [
        ("one_process_is_enough", one_process_is_enough),
        ("workers_come_and_are_killed_in_the_middle", workers_come_and_are_killed_in_the_middle),
        ("an_http_handler_gathers_too", an_http_handler_gathers_too),
        ("an_agent_may_go_and_come_back", an_agent_may_go_and_come_back),
    ];
    let world = World::new();
    for (name, test) in tests {
        test(&world);
        println!("test {name} ... ok");
    }
}

fn as_agent(config: &Path) {
    let read = || {
        let resolved = load_file(config, &Environment::default(), &Flags::default());
        resolved.map(|resolved| resolved.config)
    };
    let log = log::start(log::Format::Human, "warn").unwrap();
    let start = agent::Start { guarded: false, take_over: false };
    agent::run(read().unwrap(), &read, log, start).unwrap();
}

fn one_process_is_enough(world: &World) {
    let out = world.path("local.png");
    let ended = mandelbrot("local").arg(&out).args(["--workers", "3"]).output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    world.is_the_picture(&out);
}

fn workers_come_and_are_killed_in_the_middle(world: &World) {
    let agent = Agent::start(world);
    let mut workers: Vec<_> = (0..3).map(|_| agent.worker()).collect();
    let out = world.path("drawn.png");
    let mut client = Process::start(
        mandelbrot("draw").arg(&out).arg("--agent").arg(&agent.socket).args(["--width", "8"]),
    );
    client.says("64 of 256 tiles");
    // It stands still, with eight calls under way, while the world changes around it.
    client.signal(Signal::SIGSTOP);
    let before = agent.backends();
    drop(workers.drain(..2)); // kill -9: nobody signs them off
    let added: Vec<_> = (0..2).map(|_| agent.worker()).collect();
    assert_eq!((before.len(), agent.backends().difference(&before).count()), (3, 2));
    client.signal(Signal::SIGCONT);
    let said = client.ends_well();
    world.is_the_picture(&out);
    for worker in workers.iter().chain(&added) {
        let line = format!("worker {}: ", worker.id());
        assert!(said.contains(&line), "{line} is not in\n{said}");
    }
}

fn an_http_handler_gathers_too(world: &World) {
    let agent = Agent::start(world);
    let _workers: Vec<_> = (0..2).map(|_| agent.worker()).collect();
    let server = Server::start(&agent);
    assert!(server.picture() == world.picture);
}

/// Nobody needs the agent for what is known already, and all find back to it by themselves.
fn an_agent_may_go_and_come_back(world: &World) {
    let mut agent = Agent::start(world);
    let first = agent.worker();
    let server = Server::start(&agent);
    agent.stop();
    assert!(server.picture() == world.picture, "from the last known state");
    agent.start_again();
    let _second = agent.worker();
    drop(first);
    // Only who follows the new agent can know the second worker.
    eventually("the picture, by the second", || (server.picture() == world.picture).then_some(()));
}

/// The gather in an HTTP handler.
struct Server {
    _process: Process,
    address: String,
}

impl Server {
    fn start(agent: &Agent) -> Self {
        let mut process = Process::start(
            mandelbrot("serve").args(["--listen", "127.0.0.1:0", "--agent"]).arg(&agent.socket),
        );
        let url = process.says("http://");
        let (address, _) = url.trim_start_matches("http://").split_once('/').unwrap();
        Self { address: address.to_owned(), _process: process }
    }

    /// What `GET /picture.png` gives.
    fn picture(&self) -> Vec<u8> {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "GET /picture.png HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let head = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
        answer.split_off(head)
    }
}

/// A folder, and the picture as one process computes it.
struct World {
    folder: TempDir,
    picture: Vec<u8>,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("alone.png");
        assert!(mandelbrot("alone").arg(&out).stderr(Stdio::null()).status().unwrap().success());
        let picture = fs::read(&out).unwrap();
        let docs = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/mandelbrot.png");
        assert!(
            fs::read(docs).unwrap() == picture,
            "the picture in the docs is another: cargo run -p edgemesh-examples --bin mandelbrot \
             alone docs/mandelbrot.png"
        );
        Self { folder, picture }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    #[track_caller]
    fn is_the_picture(&self, file: &Path) {
        let got = fs::read(file).unwrap();
        assert!(got == self.picture, "{} is another picture", file.display());
    }
}

/// An agent without capture, of the configuration that needs no root.
struct Agent {
    process: Option<Process>,
    folder: TempDir,
    socket: PathBuf,
    admin: SocketAddr,
}

impl Agent {
    fn start(world: &World) -> Self {
        let folder = tempfile::tempdir_in(world.folder.path()).unwrap();
        let [proxy, dns, admin, metrics] = free_ports();
        let socket = folder.path().join("data/mesh.sock");
        fs::create_dir(folder.path().join("manifests")).unwrap();
        let file = folder.path().join("agent.yaml");
        let text = format!(
            "node: here\ndataDir: {0}/data\nsource: {{ manifests: {0}/manifests }}\n\
             services: {0}/services\nproxy: {{ port: {proxy}, intercept: none }}\n\
             dns: {{ listen: [127.0.0.1:{dns}] }}\nadmin: {{ listen: 127.0.0.1:{admin} }}\n\
             metrics: {{ listen: 127.0.0.1:{metrics} }}\n",
            folder.path().display()
        );
        fs::write(&file, text).unwrap();
        let admin = ([127, 0, 0, 1], admin).into();
        let mut agent = Self { process: None, folder, socket, admin };
        agent.start_again();
        agent
    }

    fn start_again(&mut self) {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let file = self.folder.path().join("agent.yaml");
        self.process = Some(Process::start(command.arg("--as-agent").arg(file)));
        eventually("the agent answers", || self.get("/readyz").map(drop));
    }

    fn stop(&mut self) {
        let process = self.process.take().unwrap();
        process.signal(Signal::SIGTERM);
        process.ends_well();
    }

    /// A worker that is signed up.
    fn worker(&self) -> Process {
        let mut worker = Process::start(
            mandelbrot("worker").args(["--pause", "20", "--agent"]).arg(&self.socket),
        );
        worker.says("is signed up");
        worker
    }

    /// Addresses of the Backends that the agent knows.
    fn backends(&self) -> BTreeSet<String> {
        let page = self.get("/v1/backends").unwrap();
        let page: serde_json::Value = serde_json::from_str(&page).unwrap();
        let addresses = page.as_array().unwrap().iter();
        addresses.map(|backend| backend["address"].as_str().unwrap().to_owned()).collect()
    }

    fn get(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(self.admin).ok()?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n", self.admin).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        head.contains(" 200 ").then(|| body.to_owned())
    }
}

/// A child that is killed when it is dropped.
struct Process {
    child: Child,
    stderr: BufReader<ChildStderr>,
    said: String,
}

impl Process {
    fn start(command: &mut Command) -> Self {
        let mut child = command
            .env_remove("NODE_NAME")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        Self { child, stderr, said: String::new() }
    }

    fn id(&self) -> u32 {
        self.child.id()
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.id().try_into().unwrap()), signal).unwrap();
    }

    /// Waits until it says a line with `what`.
    #[track_caller]
    fn says(&mut self, what: &str) -> String {
        loop {
            let mut line = String::new();
            let more = self.stderr.read_line(&mut line).unwrap();
            assert!(more > 0, "it ended without `{what}`:\n{}", self.said);
            self.said.push_str(&line);
            if line.contains(what) {
                return line;
            }
        }
    }

    /// All that it said, once it has ended well.
    #[track_caller]
    fn ends_well(mut self) -> String {
        self.stderr.read_to_string(&mut self.said).unwrap();
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}:\n{}", self.said);
        std::mem::take(&mut self.said)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn mandelbrot(command: &str) -> Command {
    let mut mandelbrot = Command::new(env!("CARGO_BIN_EXE_mandelbrot"));
    mandelbrot.arg(command);
    mandelbrot
}

/// Ports that nobody listens on at this moment. All are held at once, so that they differ.
fn free_ports<const N: usize>() -> [u16; N] {
    let held = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    held.map(|listener| listener.local_addr().unwrap().port())
}

#[expect(clippy::disallowed_methods, reason = "other processes have real clocks")]
fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
