//! `discovery.k8s.io/v1 EndpointSlice` and `v1 Endpoints` as Slice records.

use std::net::IpAddr;

use edgemesh_proto::record::{Backend, NodeName, Slice, SlicePort};

use crate::manifests::field::{Fault, Field};
use crate::manifests::{field, service, syntax};

/// Names the Service of an EndpointSlice.
const SERVICE_LABEL: &str = "kubernetes.io/service-name";
/// Kubernetes' bound of the addresses of one entry.
const MAX_ADDRESSES: usize = 100;

#[derive(Clone, Copy, PartialEq)]
enum Family {
    V4,
    V6,
    Name,
}

/// Reads an EndpointSlice.
pub(super) fn slice(top: &Field<'_>, metadata: &Field<'_>) -> Result<Slice, Fault> {
    const FAMILIES: &[(&str, Family)] =
        &[("IPv4", Family::V4), ("IPv6", Family::V6), ("FQDN", Family::Name)];
    let service = service_of(metadata)?;
    let field = top.need("addressType")?;
    let family = field.word(FAMILIES)?;
    if family == Family::Name {
        return Err(field.fault(
            "FQDN is not served; list addresses (IPv4 or IPv6), or use a Service of type ExternalName",
        ));
    }
    let Some(list) = top.get("ports")? else {
        let reason = "is null, which means all ports; the mesh does not serve that, list the ports";
        return Err(top.missing("ports", reason));
    };
    let ports = ports(&list)?;
    let backends = top.each("endpoints", |field| backend(field, family))?;
    Ok(Slice { service, ports, backends })
}

fn service_of(metadata: &Field<'_>) -> Result<Box<str>, Fault> {
    let reason = format!("has no label {SERVICE_LABEL}; add it, so that the slice has a Service");
    let Some(labels) = metadata.get("labels")? else {
        return Err(metadata.fault(reason));
    };
    match labels.get(SERVICE_LABEL)? {
        Some(field) => syntax::label(&field),
        None => Err(labels.fault(reason)),
    }
}

fn ports(list: &Field<'_>) -> Result<Vec<SlicePort>, Fault> {
    let mut ports: Vec<SlicePort> = Vec::new();
    for field in list.items()? {
        let Some(number) = field.get("port")? else {
            return Err(field.fault(
                "has no port, which means all ports; the mesh does not serve that, add `port`",
            ));
        };
        let port = SlicePort {
            name: service::port_name(&field)?,
            port: syntax::port(&number)?,
            transport: service::transport(&field)?,
            app_protocol: field.maybe("appProtocol", field::boxed)?,
        };
        if let Some(at) = ports.iter().position(|other| other.name == port.name) {
            let reason = format!("has the name of ports[{at}], `{}`; rename one", port.name);
            return Err(field.fault(reason));
        }
        ports.push(port);
    }
    Ok(ports)
}

fn backend(field: &Field<'_>, family: Family) -> Result<Backend, Fault> {
    let list = field.need("addresses")?;
    let addresses = list.items()?.map(|item| family_address(&item, family));
    let addresses = addresses.collect::<Result<Vec<_>, _>>()?;
    if addresses.is_empty() || addresses.len() > MAX_ADDRESSES {
        return Err(list.fault(format!("must have 1 to {MAX_ADDRESSES} addresses")));
    }
    let condition = |key: &str| -> Result<Option<bool>, Fault> {
        Ok(field.maybe("conditions", |conditions| conditions.maybe(key, field::boolean))?.flatten())
    };
    // What nobody knows counts as ready, says the API.
    let ready = condition("ready")?.unwrap_or(true);
    Ok(Backend {
        addresses,
        ready,
        serving: condition("serving")?.unwrap_or(ready),
        terminating: condition("terminating")?.unwrap_or(false),
        hostname: field.maybe("hostname", syntax::label)?,
        node: node(field)?,
        zone: field.maybe("zone", field::boxed)?,
        workload: workload(field)?,
        weight: None,
    })
}

fn family_address(field: &Field<'_>, family: Family) -> Result<IpAddr, Fault> {
    let address = syntax::address(field)?;
    let fits = match family {
        Family::V4 => address.is_ipv4(),
        Family::V6 => address.is_ipv6(),
        Family::Name => false,
    };
    if fits {
        return Ok(address);
    }
    Err(field.fault("is of another family than `addressType`; use one slice for each family"))
}

fn node(field: &Field<'_>) -> Result<Option<NodeName>, Fault> {
    Ok(field.maybe("nodeName", syntax::subdomain)?.map(NodeName))
}

/// The Pod behind an address; other kinds of target are no Workloads.
fn workload(field: &Field<'_>) -> Result<Option<Box<str>>, Fault> {
    let name = field.maybe("targetRef", |target| {
        let kind = target.maybe("kind", field::boxed)?;
        match kind.as_deref() {
            None | Some("Pod") => target.maybe("name", syntax::subdomain),
            Some(_) => Ok(None),
        }
    })?;
    Ok(name.flatten())
}

/// Reads Endpoints: one Slice for each subset, one empty Slice where there is none.
pub(super) fn endpoints(top: &Field<'_>, name: &str) -> Result<Vec<Slice>, Fault> {
    let mut slices = top.each("subsets", |subset| subset_slice(subset, name))?;
    if slices.is_empty() {
        let service = name.into();
        slices.push(Slice { service, ports: Vec::new(), backends: Vec::new() });
    }
    Ok(slices)
}

fn subset_slice(subset: &Field<'_>, name: &str) -> Result<Slice, Fault> {
    let mut backends = subset.each("addresses", |field| endpoint(field, true))?;
    backends.extend(subset.each("notReadyAddresses", |field| endpoint(field, false))?);
    let ports = subset.maybe("ports", ports)?.unwrap_or_default();
    Ok(Slice { service: name.into(), ports, backends })
}

fn endpoint(field: &Field<'_>, ready: bool) -> Result<Backend, Fault> {
    Ok(Backend {
        addresses: vec![syntax::address(&field.need("ip")?)?],
        ready,
        serving: ready,
        terminating: false,
        hostname: field.maybe("hostname", syntax::label)?,
        node: node(field)?,
        zone: None,
        workload: workload(field)?,
        weight: None,
    })
}
