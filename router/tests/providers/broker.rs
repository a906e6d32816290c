//! A real mosquitto, and the real clients that publish and subscribe there.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use edgemesh_proto::record::NodeName;
use edgemesh_router::providers::eventbus::{BrokerConfig, EventBus};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use crate::world::{NODE, PATIENCE, World, connect, nobody, until};

/// See the module. It ends with the test.
pub(crate) struct Broker {
    pub(crate) at: SocketAddr,
    folder: TempDir,
    child: Option<Child>,
}

/// `mosquitto_sub`, which is subscribed.
pub(crate) struct Subscriber {
    lines: Lines<BufReader<ChildStdout>>,
    _child: Child,
}

impl Broker {
    /// For everybody.
    pub(crate) async fn start() -> Self {
        Self::with("allow_anonymous true\n").await
    }

    /// With these lines of configuration; `{}` stands for its folder.
    pub(crate) async fn with(config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = nobody();
        let mut text = format!("listener {} 127.0.0.1\n", at.port());
        text.push_str(&config.replace("{}", folder.path().to_str().unwrap()));
        // As root it would become a user who may not read the folder.
        writeln!(text, "user root\nlog_dest stderr").unwrap();
        std::fs::write(folder.path().join("conf"), text).unwrap();
        let mut broker = Self { at, folder, child: None };
        broker.run().await;
        broker
    }

    /// Starts it (again).
    pub(crate) async fn run(&mut self) {
        let log = std::fs::File::options().create(true).append(true).open(self.log_file()).unwrap();
        let child = program("mosquitto")
            .args(["-v", "-c"])
            .arg(self.folder.path().join("conf"))
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn();
        self.child = Some(child.unwrap_or_else(|error| missing(&error)));
        let end = tokio::time::Instant::now() + PATIENCE;
        while TcpStream::connect(self.at).await.is_err() {
            assert!(tokio::time::Instant::now() < end, "mosquitto: {}", self.log());
            tokio::task::yield_now().await;
        }
    }

    /// Ends it, as a machine that stops does.
    pub(crate) async fn end(&mut self) {
        let mut child = self.child.take().unwrap();
        let id = child.id().unwrap().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().await.unwrap().success());
        timeout(PATIENCE, child.wait()).await.unwrap().unwrap();
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// What it said.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// Waits until it has said this so often.
    pub(crate) async fn says(&self, text: &str, times: usize) {
        until(text, || self.log().matches(text).count() >= times).await;
    }

    /// Publishes by `mosquitto_pub`, which `options` are for.
    pub(crate) async fn publish(&self, topic: &str, payload: &[u8], options: &[&str]) {
        let input = if payload.is_empty() { "-n" } else { "-s" };
        self.publisher(topic, payload, &[options, &[input]].concat()).await;
    }

    /// Publishes each line, over one connection.
    pub(crate) async fn publish_lines(&self, topic: &str, lines: &str, qos: &str) {
        self.publisher(topic, lines.as_bytes(), &["-q", qos, "-l"]).await;
    }

    async fn publisher(&self, topic: &str, payload: &[u8], options: &[&str]) {
        let mut child = program("mosquitto_pub")
            .args(["-h", "127.0.0.1", "-p", &self.at.port().to_string(), "-t", topic])
            .args(options)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| missing(&error));
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(payload).await.unwrap();
        drop(stdin);
        assert!(timeout(PATIENCE, child.wait()).await.unwrap().unwrap().success());
    }

    /// Subscribes by `mosquitto_sub`, with QoS 1.
    pub(crate) async fn subscribe(&self, filter: &str) -> Subscriber {
        let before = self.log().matches("Sending SUBACK").count();
        let mut child = program("mosquitto_sub")
            .args(["-h", "127.0.0.1", "-p", &self.at.port().to_string(), "-q", "1"])
            .args(["-t", filter, "-F", "%t q%q r%r %l %x"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| missing(&error));
        self.says("Sending SUBACK", before + 1).await;
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Subscriber { lines, _child: child }
    }

    /// Its URL.
    pub(crate) fn config(&self) -> BrokerConfig {
        BrokerConfig { url: format!("mqtt://{}", self.at).into(), ..BrokerConfig::default() }
    }

    /// A client for the node of `world`.
    pub(crate) fn client(&self, world: &World) -> EventBus {
        client(world, self.config())
    }

    /// The same, which takes messages of the world's Rules, and has asked for them.
    pub(crate) async fn listened(&self, world: &World) -> EventBus {
        let eventbus = self.client(world);
        eventbus.follow(world.here());
        self.says("Sending SUBACK to edgemesh-edge-1", 1).await;
        eventbus
    }
}

/// A client of that broker for the node of `world`.
pub(crate) fn client(world: &World, config: BrokerConfig) -> EventBus {
    let node = NodeName(NODE.into());
    EventBus::new(&node, config, connect(), &world.tasks, world.stop.clone()).unwrap()
}

impl Subscriber {
    /// The next message: `topic q1 r0 length hex`.
    pub(crate) async fn next(&mut self) -> String {
        timeout(PATIENCE, self.lines.next_line()).await.expect("a message").unwrap().unwrap()
    }
}

/// Adds a line to a file of passwords.
pub(crate) async fn hash_password(file: &Path, name: &str, password: &str) {
    let mut command = program("mosquitto_passwd");
    let done = command.args(["-b", "-c"]).arg(file).args([name, password]).status().await;
    assert!(done.unwrap_or_else(|error| missing(&error)).success());
}

fn program(name: &str) -> Command {
    // Debian keeps servers where only root's PATH leads.
    let sbin = PathBuf::from("/usr/sbin").join(name);
    let mut command = Command::new(if sbin.exists() { sbin } else { name.into() });
    command.kill_on_drop(true);
    command
}

fn missing(error: &std::io::Error) -> ! {
    panic!("mosquitto cannot be started ({error}): apt-get install mosquitto mosquitto-clients")
}
