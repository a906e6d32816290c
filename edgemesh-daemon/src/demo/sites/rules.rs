//! What the scenes of Rules need: the records, applications on loopback addresses, a broker.

use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use parking_lot::Mutex;

use crate::cli::Feature;
use crate::demo::manifests::write;
use crate::demo::programs;
use crate::demo::programs::Real;
use crate::demo::servers;
use crate::demo::sites::cloud::MANIFESTS;
use crate::demo::sites::network::A1;
use crate::demo::sites::network::CLOUD;
use crate::demo::world::World;

/// Where the broker of the edge listens.
const BROKER: u16 = 1883;
/// Where the REST target in the cloud listens.
const TARGET: u16 = 7777;

/// The Service of the edge that a Rule answers from the cloud, and the last byte of its address.
pub(crate) const ANSWERED: (&str, u8) = ("answered", 61);

/// The Rules, and what carries their messages.
#[derive(Debug)]
pub(crate) struct Rules {
    /// mosquitto on the edge, where it is installed.
    pub(crate) broker: Option<Real>,
    /// What the REST target in the cloud got.
    pub(crate) got: Arc<Mutex<Vec<String>>>,
}

/// Writes the records and starts the programs.
pub(crate) fn set(world: &World) -> anyhow::Result<Rules> {
    let loopback = Ipv4Addr::LOCALHOST;
    servers::on(world, A1.place(), loopback.into(), A1.name)?;
    let at = SocketAddr::new(loopback.into(), TARGET);
    let got = servers::inbox(world, CLOUD.place(), at)?;
    let broker = programs::mosquitto(world, A1.place(), SocketAddr::new(loopback.into(), BROKER));
    let broker = broker.context("mosquitto")?;
    if !world.lacks(Feature::Rules) {
        write(&world.folder.join(MANIFESTS), "rules", &records())?;
    }
    Ok(Rules { broker, got })
}

fn records() -> String {
    let endpoint = |name: &str, kind: &str, properties: &str| {
        format!(
            "apiVersion: rules.kubeedge.io/v1\nkind: RuleEndpoint\n\
             metadata: {{ name: {name}, namespace: default }}\n\
             spec: {{ ruleEndpointType: {kind}, properties: {{ {properties} }} }}\n"
        )
    };
    let rule = |name: &str, source: [&str; 2], target: [&str; 2]| {
        format!(
            "apiVersion: rules.kubeedge.io/v1\nkind: Rule\n\
             metadata: {{ name: {name}, namespace: default }}\n\
             spec: {{ source: {}, sourceResource: {{ {} }}, target: {}, targetResource: {{ {} }} }}\n",
            source[0], source[1], target[0], target[1]
        )
    };
    let port = format!("service_port: \"{}\"", servers::HTTP);
    let sensors = format!("topic: sensors/+, node_name: {}", A1.name);
    let url = format!("resource: \"http://127.0.0.1:{TARGET}/events\"");
    [
        endpoint("rest", "rest", ""),
        endpoint("app", "servicebus", &port),
        endpoint("bus", "eventbus", ""),
        endpoint(ANSWERED.0, "service", ""),
        endpoint("in-the-cloud", "service", "service: web-c2"),
        rule("to-app", ["rest", "path: /app"], ["app", "path: /"]),
        rule("events", ["bus", &sensors], ["rest", &url]),
        rule(ANSWERED.0, [ANSWERED.0, ""], ["in-the-cloud", ""]),
    ]
    .join("---\n")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use edgemesh_core::manifests::parse;

    use super::*;

    #[test]
    fn the_mesh_accepts_every_record() {
        let parsed = parse(Path::new("rules.yaml"), &records());
        assert_eq!((parsed.remarks.len(), parsed.documents.len()), (0, 8), "{:?}", parsed.remarks);
    }
}
