//! Follows the agent of this node: one stream of changes, taken up again whenever it ends.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use edgemesh_proto::record::{Delta, NodeName, ServiceName};
use http::Method;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use crate::io::now;
use crate::mesh::agent::{Agent, AgentError};
use crate::mesh::status::Cell;
use crate::snapshot::Host;
use crate::sync::{Follower, FollowerStep};

/// The stream.
const RECORDS: &str = "/v1/records?follow=1";
/// An agent that says nothing for this long is dead: it promises a sign of life every 5 s.
const SILENCE: Duration = Duration::from_secs(15);
/// Longest line, in bytes.
const MAX_LINE: usize = 256 << 20;
/// Pause before the stream is asked for again, doubled with every failure up to the second.
const PAUSE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// A node's agent that is followed.
#[derive(Debug)]
pub(super) struct Followed {
    agent: Agent,
    follower: Follower,
    status: Arc<Cell>,
    lines: Option<Lines>,
}

/// One line of the stream.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Line {
    delta: Option<String>,
    addresses: Vec<Addresses>,
    hosts: Vec<Hosts>,
    node: Option<String>,
    zone: Option<String>,
}

/// The virtual addresses of one Service.
#[derive(Debug, Deserialize)]
struct Addresses {
    namespace: String,
    name: String,
    addresses: Vec<IpAddr>,
}

/// The hosts of one Service.
#[derive(Debug, Deserialize)]
struct Hosts {
    namespace: String,
    name: String,
    hosts: Vec<NamedHost>,
}

/// A host with its virtual addresses.
#[derive(Debug, Deserialize)]
struct NamedHost {
    name: String,
    addresses: Vec<IpAddr>,
}

impl Followed {
    /// Connects, and makes visible what the agent serves at this moment.
    pub(super) async fn begin(
        agent: Agent,
        follower: Follower,
        status: Arc<Cell>,
    ) -> Result<Self, AgentError> {
        let mut followed = Self { agent, follower, status, lines: None };
        followed.connect().await?;
        Ok(followed)
    }

    /// Follows until `stop`. While there is no agent, the last Snapshot stays.
    pub(super) async fn follow(mut self, stop: CancellationToken) {
        stop.run_until_cancelled(async {
            let mut pause = PAUSE.0;
            loop {
                let Err(error) = self.step().await else {
                    pause = PAUSE.0;
                    continue;
                };
                self.lines = None;
                let trouble = format!("{error}; the last records stay in force");
                tracing::warn!(error = &error as &dyn std::error::Error, "{trouble}");
                self.status.update(|status| status.source_trouble = Some(trouble));
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE.1);
            }
        })
        .await;
    }

    async fn step(&mut self) -> Result<(), AgentError> {
        match self.lines {
            Some(_) => self.line().await,
            None => self.connect().await,
        }
    }

    async fn connect(&mut self) -> Result<(), AgentError> {
        let response = self.agent.ask(Method::GET, RECORDS, Bytes::new()).await?;
        self.lines = Some(Lines { body: response.into_body(), read: BytesMut::new(), looked: 0 });
        self.line().await
    }

    async fn line(&mut self) -> Result<(), AgentError> {
        let Some(lines) = &mut self.lines else { return Ok(()) };
        let line = tokio::time::timeout(SILENCE, lines.next())
            .await
            .map_err(|_| self.agent.silent())?
            .map_err(|error| self.agent.broken(error))?;
        let line: Line = serde_json::from_slice(&line).map_err(|error| self.agent.broken(error))?;
        let step = step(line).map_err(|error| self.agent.broken(error))?;
        let changed = step.is_some();
        if let Some(step) = step {
            let revision = step.delta.to;
            let left_out = self.follower.apply(step, now());
            tracing::debug!(revision, left_out, "the agent's records changed");
        }
        self.status.update(|status| {
            status.source_trouble = None;
            status.read_at = Some(now());
            status.has_records = true;
        });
        if changed {
            self.status.records_changed();
        }
        Ok(())
    }
}

/// What a line says; a sign of life says nothing.
fn step(line: Line) -> Result<Option<FollowerStep>, Box<dyn std::error::Error + Send + Sync>> {
    let Line { delta, addresses, hosts, node, zone } = line;
    let Some(delta) = delta else { return Ok(None) };
    let (delta, bad) = Delta::decode(STANDARD.decode(delta)?.into())?;
    for bad in bad {
        tracing::warn!(error = &bad as &dyn std::error::Error, "the agent sent a bad record");
    }
    let name = |a: &Addresses| ServiceName::new(&a.namespace, &a.name);
    let addresses = addresses.into_iter().map(|a| (name(&a), a.addresses)).collect();
    let host = |h: NamedHost| Host { name: h.name.into(), addresses: h.addresses };
    let hosts = hosts.into_iter().map(|of| {
        let service = ServiceName::new(&of.namespace, &of.name);
        (service, of.hosts.into_iter().map(host).collect())
    });
    let hosts = hosts.collect();
    let node = node.map(|node| (NodeName(node.into()), zone.map(Into::into)));
    Ok(Some(FollowerStep { delta, addresses, hosts, node }))
}

/// Lines of a body, cut at line feeds.
#[derive(Debug)]
struct Lines {
    body: Incoming,
    read: BytesMut,
    /// How far there is no line feed.
    looked: usize,
}

impl Lines {
    /// The next line; safe to cancel.
    async fn next(&mut self) -> Result<Bytes, Box<dyn std::error::Error + Send + Sync>> {
        loop {
            if let Some(end) = self.read[self.looked..].iter().position(|b| *b == b'\n') {
                let line = self.read.split_to(self.looked + end + 1);
                self.looked = 0;
                return Ok(line.freeze());
            }
            self.looked = self.read.len();
            if self.looked > MAX_LINE {
                return Err(format!("a line of more than {MAX_LINE} bytes").into());
            }
            let frame = self.body.frame().await.ok_or("the stream ended")??;
            if let Some(data) = frame.data_ref() {
                self.read.extend_from_slice(data);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_whole_or_refused() {
        let delta = STANDARD.encode(Delta { to: 7, reset: true, ..Delta::default() }.encode());
        let whole = format!(
            r#"{{"delta":"{delta}","addresses":[{{"namespace":"default","name":"a","addresses":["198.18.0.1","fd96::1"]}}],"hosts":[{{"namespace":"default","name":"a","hosts":[{{"name":"db-0","addresses":["198.18.0.2"]}}]}}],"node":"edge-1","zone":"z","new":1}}"#
        );
        let read = |line: &[u8]| step(serde_json::from_slice(line).ok()?).ok()?;
        let all = read(whole.as_bytes()).expect("a step");
        assert_eq!((all.delta.to, all.addresses.len(), all.addresses[0].1.len()), (7, 1, 2));
        assert_eq!((&*all.hosts[0].1[0].name, all.hosts[0].1[0].addresses.len()), ("db-0", 1));
        assert_eq!(all.node, Some((NodeName("edge-1".into()), Some("z".into()))));
        assert!(read(br#"{"heartbeat":7}"#).is_none(), "a sign of life");
        // An agent of before there were hosts.
        let old = read(format!(r#"{{"delta":"{delta}","addresses":[]}}"#).as_bytes());
        assert!(old.is_some_and(|step| step.hosts.is_empty()));
        for cut in 0..whole.len() {
            assert!(read(&whole.as_bytes()[..cut]).is_none(), "cut at {cut}");
            for bit in 0..8 {
                let mut damaged = whole.clone().into_bytes();
                damaged[cut] ^= 1 << bit;
                let _ = read(&damaged); // another step, or none; never a panic
            }
        }
    }
}
