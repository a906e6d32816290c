//! Keeps an application in step with the agent of its node: what the agent streams becomes the
//! Snapshot, and nothing is stored, since the agent has it stored.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use edgemesh_proto::record::{Delta, Key, NodeName, Record, RuleName, ServiceName};

use crate::backends::Tally;
use crate::snapshot::{Builder, Change, Host, Snapshot};

/// The one writer of an application that follows an agent.
#[derive(Debug)]
pub struct Follower {
    builder: Builder,
    node: Option<(NodeName, Option<Box<str>>)>,
    known: BTreeSet<Key>,
    addressed: BTreeSet<ServiceName>,
    /// Services that have hosts.
    hosted: BTreeSet<ServiceName>,
    live: Arc<ArcSwap<Snapshot>>,
}

/// One step of the stream.
#[derive(Clone, Debug, Default)]
pub struct Step {
    /// The records.
    pub delta: Delta,
    /// Virtual addresses: all of each Service that is named, none = taken away. Those of a reset
    /// are all there are.
    pub addresses: Vec<(ServiceName, Vec<IpAddr>)>,
    /// Hosts, in the same way.
    pub hosts: Vec<(ServiceName, Vec<Host>)>,
    /// Node and zone of the agent, with a reset.
    pub node: Option<(NodeName, Option<Box<str>>)>,
}

impl Follower {
    /// Begins with nothing.
    pub fn new(live: Arc<ArcSwap<Snapshot>>) -> Self {
        Self {
            builder: Builder::new(NodeName("".into()), None).without_links(),
            node: None,
            known: BTreeSet::new(),
            addressed: BTreeSet::new(),
            hosted: BTreeSet::new(),
            live,
        }
    }

    /// For the cloud's own process, which calls for nodes in the cloud that run no agent.
    pub fn of_cloud(live: Arc<ArcSwap<Snapshot>>, node: NodeName, zone: Option<Box<str>>) -> Self {
        let builder = Builder::new(node, zone).covering_cloud();
        Self { builder, ..Self::new(live) }
    }

    /// What Rules counted in an earlier life; said before the first step.
    pub fn counted(&mut self, counted: Vec<(RuleName, Tally)>) {
        counted.into_iter().for_each(|(rule, tally)| self.builder.counted(rule, tally));
    }

    /// Makes a step visible. Returns how many of its records this version does not read; they are
    /// left out. A reset keeps the live state of what is still there.
    pub fn apply(&mut self, step: Step, now: Instant) -> usize {
        let Step { delta, mut addresses, mut hosts, node } = step;
        let Delta { epoch, to, put, mut delete, reset, .. } = delta;
        if node.is_some() && node != self.node {
            // Everybody is as far away as the new node says.
            if let Some((node, zone)) = &node {
                self.builder = Builder::new(node.clone(), zone.clone()).without_links();
            }
            (self.node, self.known) = (node, BTreeSet::new());
            (self.addressed, self.hosted) = (BTreeSet::new(), BTreeSet::new());
        }
        let count = put.len();
        let put: Vec<Record> = put.iter().filter_map(|put| put.record().ok()).collect();
        if reset {
            let kept: BTreeSet<Key> = put.iter().map(Record::key).collect();
            delete = std::mem::take(&mut self.known).difference(&kept).cloned().collect();
            add_gone(&self.addressed, &mut addresses);
            add_gone(&self.hosted, &mut hosts);
        }
        for key in &delete {
            self.known.remove(key);
        }
        self.known.extend(put.iter().map(Record::key));
        note(&mut self.addressed, &addresses);
        note(&mut self.hosted, &hosts);
        let left_out = count - put.len();
        let change = Change { epoch, revision: to, put, delete, addresses, hosts };
        self.live.store(self.builder.apply(change, now));
        left_out
    }
}

/// Takes away what a reset does not name any more.
fn add_gone<T>(known: &BTreeSet<ServiceName>, all: &mut Vec<(ServiceName, Vec<T>)>) {
    let named: BTreeSet<&ServiceName> = all.iter().map(|(name, _)| name).collect();
    let gone = known.iter().filter(|name| !named.contains(name));
    let gone: Vec<_> = gone.map(|name| (name.clone(), Vec::new())).collect();
    all.extend(gone);
}

/// Remembers who has some.
fn note<T>(known: &mut BTreeSet<ServiceName>, given: &[(ServiceName, Vec<T>)]) {
    for (name, given) in given {
        match given.is_empty() {
            true => known.remove(name),
            false => known.insert(name.clone()),
        };
    }
}

#[cfg(test)]
mod tests {
    use edgemesh_proto::record::{Body, Put, Service, ServicePort, TargetPort, Transport};

    use super::*;
    use crate::io::now;

    fn service(name: &str) -> Put {
        let port = ServicePort {
            name: "".into(),
            port: 80.try_into().unwrap(),
            target: TargetPort::Same,
            transport: Transport::Tcp,
            app_protocol: None,
            node_port: None,
        };
        let body = Service { ports: vec![port], headless: true, ..Service::default() };
        let body = Body::Service(body);
        Put::from(&Record { namespace: "default".into(), name: name.into(), body })
    }

    fn names(live: &ArcSwap<Snapshot>) -> Vec<(String, usize)> {
        let snapshot = live.load();
        let of = |s: &Arc<crate::snapshot::Service>| (s.name.name.to_string(), s.addresses.len());
        snapshot.services().iter().map(of).collect()
    }

    /// Services that have hosts.
    fn hosted(live: &ArcSwap<Snapshot>) -> Vec<String> {
        let snapshot = live.load();
        let hosting = snapshot.services().iter().filter(|service| !service.hosts.is_empty());
        hosting.map(|service| service.name.name.to_string()).collect()
    }

    #[test]
    fn steps_and_resets_lead_to_the_same_records() {
        let live = Arc::<ArcSwap<Snapshot>>::default();
        let mut follower = Follower::new(live.clone());
        let at = |name: &str| {
            (ServiceName::new("default", name), vec!["198.18.0.1".parse::<IpAddr>().unwrap()])
        };
        let node = Some((NodeName("edge-1".into()), None));
        let delta = |to, put, delete, reset| Delta { to, put, delete, reset, ..Delta::default() };
        let first = delta(1, vec![service("a"), service("b")], Vec::new(), true);
        let host = Host { name: "a-0".into(), addresses: vec![] };
        let first = Step {
            delta: first,
            addresses: vec![at("a"), at("b")],
            hosts: vec![(ServiceName::new("default", "a"), vec![host])],
            node: node.clone(),
        };
        follower.apply(first, now());
        assert_eq!(names(&live), [("a".into(), 1), ("b".into(), 1)]);
        assert_eq!(live.load().services()[0].host("a-0"), Some(0));

        let second = delta(2, vec![service("c")], vec![service("b").key], false);
        let addresses = vec![(ServiceName::new("default", "b"), Vec::new())];
        follower.apply(Step { delta: second, addresses, ..Step::default() }, now());
        assert_eq!(names(&live), [("a".into(), 1), ("c".into(), 0)]);
        assert_eq!(hosted(&live), ["a"]);
        let kept = live.load().services()[0].live.clone();

        let third = delta(9, vec![service("a")], Vec::new(), true);
        follower.apply(Step { delta: third, node: node.clone(), ..Step::default() }, now());
        assert_eq!(names(&live), [("a".into(), 0)]);
        assert_eq!(live.load().services()[0].host("a-0"), None, "a reset names all there are");
        assert_eq!(live.load().revision, 9);
        assert!(Arc::ptr_eq(&kept, &live.load().services()[0].live), "live state survives");

        let mut strange = service("x");
        strange.body = vec![0xff].into();
        let fourth = delta(10, vec![strange, service("d")], Vec::new(), false);
        let left_out = follower.apply(Step { delta: fourth, ..Step::default() }, now());
        assert_eq!((left_out, names(&live).len()), (1, 2), "a bad record harms only itself");
    }
}
