//! What Rules lead to and from: HTTP applications, and the broker with its clients.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::PATIENCE;
use crate::common::namespace::within;
use crate::common::run::{Running, need, run};
use crate::common::wait::eventually;
use crate::world::World;

const APP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/router/app.py");

/// An HTTP application on one machine's loopback address.
#[derive(Debug)]
pub(crate) struct App {
    log: PathBuf,
    running: Option<Running>,
}

/// What arrived at an application.
#[derive(Clone, Debug)]
pub(crate) struct Arrived {
    pub(crate) method: String,
    pub(crate) uri: String,
    pub(crate) length: u64,
    pub(crate) sha256: String,
    /// The first four kilobytes.
    pub(crate) body: Vec<u8>,
    headers: Vec<(String, String)>,
}

impl Arrived {
    /// All values of a field, by its name in lower case.
    pub(crate) fn header(&self, name: &str) -> Vec<&str> {
        let of = self.headers.iter().filter(|(known, _)| known == name);
        of.map(|(_, value)| value.as_str()).collect()
    }
}

impl App {
    /// Starts it in `netns`, and waits until it accepts.
    pub(crate) fn start(world: &World, netns: &'static str, name: &str, port: u16) -> Self {
        let (log, said) =
            (world.path(&format!("{name}.jsonl")), world.path(&format!("{name}.log")));
        let (to, port_text) = (log.display().to_string(), port.to_string());
        let line = ["/usr/bin/python3", APP, name, &port_text, &to];
        let running = Running::start(netns, &line, &said);
        accepts(netns, port);
        Self { log, running: Some(running) }
    }

    /// Ends it.
    pub(crate) fn stop(&mut self) {
        self.running = None;
    }

    /// What arrived so far.
    pub(crate) fn arrived(&self) -> Vec<Arrived> {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        text.lines().map(arrived).collect()
    }

    /// What arrived after the first `known`, once that are `count`.
    #[track_caller]
    pub(crate) fn after(&self, known: usize, count: usize) -> Vec<Arrived> {
        eventually(&format!("{count} deliveries"), PATIENCE, || {
            let all = self.arrived();
            (all.len() >= known + count).then(|| all[known..].to_vec())
        })
    }
}

fn arrived(line: &str) -> Arrived {
    let value: Value = serde_json::from_str(line).unwrap();
    let text = |key: &str| value[key].as_str().unwrap().to_owned();
    let pair = |pair: &Value| (pair[0].as_str().unwrap().into(), pair[1].as_str().unwrap().into());
    Arrived {
        method: text("method"),
        uri: text("uri"),
        length: value["len"].as_u64().unwrap(),
        sha256: text("sha256"),
        body: STANDARD.decode(text("body")).unwrap(),
        headers: value["headers"].as_array().unwrap().iter().map(pair).collect(),
    }
}

/// Waits until something accepts on the loopback address of `netns`.
fn accepts(netns: &'static str, port: u16) {
    within(netns, move || {
        eventually(&format!("{netns} accepts on {port}"), PATIENCE, || {
            std::net::TcpStream::connect(("127.0.0.1", port)).ok()
        })
    });
}

/// mosquitto on one machine's loopback address, and a client there that hears everything.
#[derive(Debug)]
pub(crate) struct Broker {
    netns: &'static str,
    heard: PathBuf,
    _listening: Option<Running>,
    _running: Running,
}

impl Broker {
    /// Starts it at KubeEdge's port, with `more` lines of configuration.
    pub(crate) fn start(world: &World, netns: &'static str, more: &str) -> Self {
        need(&["mosquitto", "mosquitto_pub", "mosquitto_sub"]);
        let config = world.write(
            &format!("mosquitto-{netns}.conf"),
            &format!("listener 1883 127.0.0.1\nuser root\nmax_inflight_messages 20\n{more}\n"),
        );
        let config = config.display().to_string();
        let log = world.path(&format!("mosquitto-{netns}.log"));
        let running = Running::start(netns, &["mosquitto", "-v", "-c", &config], &log);
        accepts(netns, 1883);
        let heard = world.path(&format!("heard-{netns}"));
        let anonymous = more.contains("allow_anonymous true");
        let line = ["mosquitto_sub", "-t", "#", "-q", "1", "-F", "%t %q %r %l %x"];
        let listening = anonymous.then(|| Running::start(netns, &line, &heard));
        let broker = Self { netns, heard, _listening: listening, _running: running };
        if anonymous {
            eventually("the listener hears", PATIENCE, || {
                broker.publish("-t listener/probe -m x");
                (!broker.heard("listener/probe").is_empty()).then_some(())
            });
        }
        broker
    }

    /// Publishes with arguments of mosquitto_pub.
    #[track_caller]
    pub(crate) fn publish(&self, arguments: &str) {
        let ran = run(self.netns, &format!("mosquitto_pub {arguments}"));
        assert_eq!(ran.code, Some(0), "{arguments}: {ran:?}");
    }

    /// What was heard on topics that begin so: `topic qos retained length payload-in-hex`.
    pub(crate) fn heard(&self, topic: &str) -> Vec<String> {
        let text = std::fs::read_to_string(&self.heard).unwrap_or_default();
        let whole = &text[..text.rfind('\n').map_or(0, |at| at + 1)];
        whole.lines().filter(|line| line.starts_with(topic)).map(str::to_owned).collect()
    }

    /// The same, once there are `count` of them.
    #[track_caller]
    pub(crate) fn wait_heard(&self, topic: &str, count: usize) -> Vec<String> {
        eventually(&format!("{count} messages on {topic}"), PATIENCE, || {
            let heard = self.heard(topic);
            (heard.len() >= count).then_some(heard)
        })
    }
}
