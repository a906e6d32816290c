//! `v1 Pod` as a Workload record and `v1 Node` as a Node record.

use std::net::IpAddr;

use edgemesh_proto::record::{NamedPort, Node, NodeName, Workload};

use crate::manifests::field::{Fault, Field};
use crate::manifests::{field, service, syntax};

/// Names the zone of a Node.
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";
/// `cloud`: what runs on this Node is reached through the cloud process.
const REACH_LABEL: &str = "edgemesh.io/reach";

/// A Pod: a Workload, or why it is none.
pub(super) enum Pod {
    Runs(Workload),
    /// Not a fault: it has no place on the network now.
    Absent(&'static str),
}

/// Reads a Pod.
pub(super) fn pod(top: &Field<'_>, metadata: &Field<'_>) -> Result<Pod, Fault> {
    let Some(status) = top.get("status")? else {
        return Ok(Pod::Absent("the Pod has no address yet"));
    };
    let phase = status.maybe("phase", field::boxed)?;
    if matches!(phase.as_deref(), Some("Succeeded" | "Failed")) {
        return Ok(Pod::Absent("the Pod has ended"));
    }
    let addresses = pod_addresses(&status)?;
    if addresses.is_empty() {
        return Ok(Pod::Absent("the Pod has no address yet"));
    }
    let spec = top.need("spec")?;
    let mut ports = spec.each("containers", named_ports)?.concat();
    ports.extend(spec.each("initContainers", sidecar_ports)?.concat());
    Ok(Pod::Runs(Workload {
        addresses,
        node: spec.maybe("nodeName", node_name)?.flatten(),
        labels: metadata.maybe("labels", service::labels)?.unwrap_or_default(),
        ready: is_ready(&status)?,
        terminating: metadata.get("deletionTimestamp")?.is_some(),
        ports,
        owner: owner(metadata)?,
    }))
}

/// Reads a Node.
pub(super) fn node(top: &Field<'_>, metadata: &Field<'_>) -> Result<Node, Fault> {
    let labels = metadata.maybe("labels", service::labels)?.unwrap_or_default();
    let addresses = top.maybe("status", |status| status.each("addresses", internal_address))?;
    Ok(Node {
        addresses: addresses.unwrap_or_default().into_iter().flatten().collect(),
        zone: labels.get(ZONE_LABEL).filter(|zone| !zone.is_empty()).cloned(),
        agent: None,
        via_cloud: labels.get(REACH_LABEL).is_some_and(|reach| **reach == *"cloud"),
        labels,
    })
}

fn pod_addresses(status: &Field<'_>) -> Result<Vec<IpAddr>, Fault> {
    let listed = status.each("podIPs", |field| syntax::address(&field.need("ip")?))?;
    if !listed.is_empty() {
        return Ok(listed);
    }
    let one = status.maybe("podIP", |field| {
        if field.text()?.is_empty() { Ok(None) } else { syntax::address(field).map(Some) }
    })?;
    Ok(one.flatten().into_iter().collect())
}

fn node_name(field: &Field<'_>) -> Result<Option<NodeName>, Fault> {
    if field.text()?.is_empty() {
        return Ok(None);
    }
    syntax::subdomain(field).map(|name| Some(NodeName(name)))
}

fn is_ready(status: &Field<'_>) -> Result<bool, Fault> {
    let ready = status.each("conditions", |condition| {
        let kind = condition.need("type")?;
        Ok(kind.text()? == "Ready" && condition.need("status")?.text()? == "True")
    })?;
    Ok(ready.contains(&true))
}

fn named_ports(container: &Field<'_>) -> Result<Vec<NamedPort>, Fault> {
    let ports = container.each("ports", |field| {
        let name = service::port_name(field)?;
        if name.is_empty() {
            return Ok(None);
        }
        Ok(Some(NamedPort { name, port: syntax::port(&field.need("containerPort")?)? }))
    })?;
    Ok(ports.into_iter().flatten().collect())
}

/// An init container that stays (a sidecar) serves ports too.
fn sidecar_ports(container: &Field<'_>) -> Result<Vec<NamedPort>, Fault> {
    let policy = container.maybe("restartPolicy", field::boxed)?;
    if policy.as_deref() == Some("Always") { named_ports(container) } else { Ok(Vec::new()) }
}

fn owner(metadata: &Field<'_>) -> Result<Box<str>, Fault> {
    let owners = metadata.each("ownerReferences", |field| {
        if field.maybe("controller", field::boolean)? != Some(true) {
            return Ok(None);
        }
        let (kind, name) = (field.need("kind")?, field.need("name")?);
        Ok(Some(format!("{}/{}", kind.text()?, name.text()?)))
    })?;
    Ok(owners.into_iter().flatten().next().unwrap_or_default().into())
}

fn internal_address(field: &Field<'_>) -> Result<Option<IpAddr>, Fault> {
    if field.need("type")?.text()? != "InternalIP" {
        return Ok(None);
    }
    syntax::address(&field.need("address")?).map(Some)
}
