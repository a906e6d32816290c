//! Nodes: where their records place a Backend, who calls it, and which Services a change concerns.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use edgemesh_proto::record::{Node, NodeName};

use crate::backends::NodeLive;
use crate::snapshot::builder::{Builder, Dirty, Seat};
use crate::snapshot::{Backend, Reach, Tier, rules};

impl Builder {
    /// For the cloud's own process: the Backends of nodes that are reached through the cloud are
    /// its to call, as if they ran here.
    #[must_use]
    pub fn covering_cloud(self) -> Self {
        Self { seat: Seat::Cloud, ..self }
    }

    /// For whoever has no Links: the address of every Backend elsewhere is dialled.
    #[must_use]
    pub fn without_links(self) -> Self {
        Self { seat: Seat::Application, ..self }
    }

    /// For an agent whose records come from the cloud: what Rules want of URLs is the cloud's to do.
    #[must_use]
    pub fn below_cloud(mut self, now: Instant) -> Self {
        self.numbered += 1;
        self.cloud = Some(Arc::new(NodeLive::new(self.numbered, now)));
        self
    }

    pub(super) fn rules_seat(&self) -> rules::Seat {
        rules::Seat {
            node: self.node.clone(),
            is_cloud: matches!(self.seat, Seat::Cloud),
            rest: self.cloud.clone().map_or(rules::Rest::Here, rules::Rest::Cloud),
        }
    }

    pub(super) fn put_node(&mut self, name: Box<str>, node: Node, dirty: &mut Dirty, now: Instant) {
        dirty.nodes = true;
        let is_led_to = (node.agent.is_some() || node.via_cloud) && *name != *self.node.0;
        if is_led_to && !self.lives.contains_key(&name) {
            self.numbered += 1;
            self.lives.insert(name.clone(), Arc::new(NodeLive::new(self.numbered, now)));
        }
        let place = |node: &Node| (node.zone.clone(), node.agent.is_some(), node.via_cloud);
        let places = place(&node);
        if self.nodes.insert(name.clone(), node).is_none_or(|before| place(&before) != places) {
            self.node_moved(name, dirty);
        }
    }

    pub(super) fn delete_node(&mut self, name: &str, dirty: &mut Dirty) {
        dirty.nodes = true;
        if self.nodes.remove(name).is_some() {
            self.lives.remove(name);
            self.node_moved(name.into(), dirty);
        }
    }

    fn node_moved(&self, name: Box<str>, dirty: &mut Dirty) {
        // All others are near or far as seen from this node's own zone.
        dirty.all |= *name == *self.node.0;
        dirty.moved.insert(name);
    }

    /// Marks the Services that have, or could have, a Backend on a node that moved.
    pub(super) fn mark_moved(&self, dirty: &mut Dirty) {
        if dirty.moved.is_empty() || dirty.all {
            return;
        }
        let moved = std::mem::take(&mut dirty.moved);
        let is_on = |node: &Option<NodeName>| node.as_ref().is_some_and(|n| moved.contains(&n.0));
        for (service, slices) in &self.slices {
            let mut backends = slices.iter().flat_map(|(_, slice)| &slice.backends);
            if backends.any(|backend| is_on(&backend.node)) {
                dirty.services.insert(service.clone());
            }
        }
        for (namespace, workloads) in &self.workloads {
            for workload in workloads.values().filter(|workload| is_on(&workload.node)) {
                self.selecting(namespace, workload, dirty);
            }
        }
    }

    /// The Backend at an address on `node`. Nobody but its node can call what listens on a
    /// loopback address: one of a node to which no Link leads is no Backend.
    pub(super) fn placed(
        &self,
        at: SocketAddr,
        node: Option<&NodeName>,
        zone: Option<&str>,
    ) -> Option<Backend> {
        let zone_of = |node: &NodeName| self.nodes.get(&node.0).and_then(|n| n.zone.as_deref());
        let zone = zone.or_else(|| node.and_then(zone_of));
        let own_zone = self.own_zone.as_deref().or_else(|| zone_of(&self.node));
        let reach = match node {
            Some(node) if *node == self.node => Reach::Here,
            None if at.ip().is_loopback() => Reach::Here,
            None => Reach::Plain,
            Some(node) => self.reach(node),
        };
        let tier = match reach {
            Reach::Here | Reach::Inbox => Tier::Node,
            Reach::Plain if at.ip().is_loopback() => return None,
            _ if zone.is_some() && zone == own_zone => Tier::Zone,
            Reach::Plain | Reach::Linked(_) | Reach::Cloud(_) => Tier::Anywhere,
        };
        let zone = zone.map(Into::into);
        Some(Backend { node: node.cloned(), zone, reach, ..Backend::new(at, tier) })
    }

    /// How another node's Backends are reached. An agent on a node in the cloud is an agent.
    fn reach(&self, node: &NodeName) -> Reach {
        let (Some(record), Some(live)) = (self.nodes.get(&node.0), self.lives.get(&node.0)) else {
            return Reach::Plain;
        };
        match (self.seat, record.agent.is_some(), record.via_cloud) {
            (Seat::Application, ..) | (Seat::Agent | Seat::Cloud, false, false) => Reach::Plain,
            (Seat::Agent | Seat::Cloud, true, _) => Reach::Linked(live.clone()),
            (Seat::Cloud, false, true) => Reach::Here,
            (Seat::Agent, false, true) => Reach::Cloud(live.clone()),
        }
    }
}
