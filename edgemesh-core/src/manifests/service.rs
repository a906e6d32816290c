//! `v1 Service` as a Service record.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::time::Duration;

use edgemesh_proto::record::{Service, ServicePort, TargetPort, Transport};

use crate::manifests::field::{Fault, Field};
use crate::manifests::{field, syntax};

/// Kubernetes' default of `sessionAffinityConfig.clientIP.timeoutSeconds`.
const AFFINITY_SECONDS: u32 = 10_800;
/// Kubernetes' bound of the same.
const MAX_AFFINITY_SECONDS: u32 = 86_400;
/// By which a Service asks for PROXY protocol headers.
const PROXY_PROTOCOL: &str = "edgemesh.io/proxy-protocol";
/// One for each address family.
const MAX_CLUSTER_IPS: usize = 2;

/// How a Service gets its addresses.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    Cluster,
    ExternalName,
}

/// Reads the whole object.
pub(super) fn read(top: &Field<'_>, created: i64) -> Result<Service, Fault> {
    const FORMS: &[(&str, Form)] = &[
        ("ClusterIP", Form::Cluster),
        ("NodePort", Form::Cluster),
        ("LoadBalancer", Form::Cluster),
        ("ExternalName", Form::ExternalName),
    ];
    let spec = top.need("spec")?;
    let form = spec.maybe("type", |field| field.word(FORMS))?.unwrap_or(Form::Cluster);
    let (cluster_ips, headless) = cluster_ips(&spec)?;
    let external_name = match form {
        Form::Cluster => None,
        Form::ExternalName => Some(external_name(&spec, headless || !cluster_ips.is_empty())?),
    };
    let ports = ports(&spec)?;
    if ports.is_empty() && !headless && form == Form::Cluster {
        return Err(spec.missing("ports", "has no port; a Service with addresses needs one"));
    }
    Ok(Service {
        ports,
        cluster_ips,
        external_ips: spec.each("externalIPs", syntax::address)?,
        headless,
        external_name,
        selector: spec.maybe("selector", labels)?.unwrap_or_default(),
        affinity: affinity(&spec)?,
        publish_not_ready: spec.maybe("publishNotReadyAddresses", field::boolean)?.unwrap_or(false),
        created,
        proxy_protocol: proxy_protocol(top)?,
    })
}

/// `v2` is the one version there is: the first has no place for what a v2 receiver expects.
fn proxy_protocol(top: &Field<'_>) -> Result<bool, Fault> {
    let metadata = top.need("metadata")?;
    let Some(annotations) = metadata.get("annotations")? else { return Ok(false) };
    let asked = annotations.maybe(PROXY_PROTOCOL, |field| field.word(&[("v2", true)]))?;
    Ok(asked.unwrap_or(false))
}

/// A map of texts: labels, selectors.
pub(super) fn labels(field: &Field<'_>) -> Result<BTreeMap<Box<str>, Box<str>>, Fault> {
    field.entries()?.map(|(key, value)| Ok((key.into(), field::boxed(&value)?))).collect()
}

/// `protocol`, TCP unless said otherwise.
pub(super) fn transport(port: &Field<'_>) -> Result<Transport, Fault> {
    const TRANSPORTS: &[(&str, Transport)] =
        &[("TCP", Transport::Tcp), ("UDP", Transport::Udp), ("SCTP", Transport::Sctp)];
    Ok(port.maybe("protocol", |field| field.word(TRANSPORTS))?.unwrap_or_default())
}

/// The name of a port: empty, or a DNS label.
pub(super) fn port_name(port: &Field<'_>) -> Result<Box<str>, Fault> {
    let name = port.maybe("name", |field| {
        if field.text()?.is_empty() { Ok("".into()) } else { syntax::label(field) }
    })?;
    Ok(name.unwrap_or_default())
}

/// `clusterIP` and `clusterIPs`, and whether they say `None`.
fn cluster_ips(spec: &Field<'_>) -> Result<(Vec<IpAddr>, bool), Fault> {
    let first = spec.maybe("clusterIP", cluster_ip)?.unwrap_or(Ip::Unset);
    let listed = spec.each("clusterIPs", cluster_ip)?;
    let Some(list) = spec.get("clusterIPs")?.filter(|_| !listed.is_empty()) else {
        return Ok(match first {
            Ip::Unset => (Vec::new(), false),
            Ip::Headless => (Vec::new(), true),
            Ip::At(address) => (vec![address], false),
        });
    };
    if listed.len() > MAX_CLUSTER_IPS {
        return Err(list.fault("has more than two addresses; one of each family is the most"));
    }
    if first != Ip::Unset && first != listed[0] {
        return Err(list.fault("its first address must be that of `clusterIP`"));
    }
    let mut addresses = Vec::new();
    for ip in &listed {
        match ip {
            Ip::Headless if listed.len() == 1 => return Ok((Vec::new(), true)),
            Ip::Headless | Ip::Unset => {
                return Err(list.fault("`None` stands alone; write addresses or None"));
            }
            Ip::At(address) => addresses.push(*address),
        }
    }
    if let [one, other] = addresses[..]
        && one.is_ipv4() == other.is_ipv4()
    {
        return Err(list.fault("has two addresses of one family; keep one of each"));
    }
    Ok((addresses, false))
}

#[derive(Clone, Copy, PartialEq)]
enum Ip {
    Unset,
    Headless,
    At(IpAddr),
}

fn cluster_ip(field: &Field<'_>) -> Result<Ip, Fault> {
    match field.text()? {
        "" => Ok(Ip::Unset),
        "None" => Ok(Ip::Headless),
        _ => syntax::address(field).map(Ip::At),
    }
}

fn external_name(spec: &Field<'_>, addressed: bool) -> Result<Box<str>, Fault> {
    if addressed {
        let key = if spec.get("clusterIP")?.is_some() { "clusterIP" } else { "clusterIPs" };
        let field = spec.need(key)?;
        return Err(field.fault("has no place in a Service of type ExternalName; remove it"));
    }
    let field = spec.need("externalName")?;
    let text = field.text()?;
    // A final dot is allowed in DNS and means nothing here.
    if text.parse::<IpAddr>().is_ok() {
        return Err(
            field.fault("is an address; use a Service without selector and an EndpointSlice")
        );
    }
    if !syntax::is_subdomain(text.strip_suffix('.').unwrap_or(text)) {
        syntax::subdomain(&field)?;
    }
    Ok(text.strip_suffix('.').unwrap_or(text).into())
}

fn affinity(spec: &Field<'_>) -> Result<Option<Duration>, Fault> {
    let wanted = spec.maybe("sessionAffinity", |field| {
        field.word(&[("None", false), ("ClientIP", true), ("", false)])
    })?;
    if wanted != Some(true) {
        return Ok(None);
    }
    let seconds = spec.maybe("sessionAffinityConfig", |config| {
        config.maybe("clientIP", |client| {
            client.maybe("timeoutSeconds", |field| field.int(1..=MAX_AFFINITY_SECONDS))
        })
    })?;
    let seconds = seconds.flatten().flatten().unwrap_or(AFFINITY_SECONDS);
    Ok(Some(Duration::from_secs(seconds.into())))
}

fn ports(spec: &Field<'_>) -> Result<Vec<ServicePort>, Fault> {
    let Some(list) = spec.get("ports")? else {
        return Ok(Vec::new());
    };
    let mut ports: Vec<ServicePort> = Vec::new();
    let several = list.items()?.len() > 1;
    for field in list.items()? {
        let port = service_port(&field)?;
        if several && port.name.is_empty() {
            let reason = "is missing; each port needs a name where there are several";
            return Err(field.missing("name", reason));
        }
        if let Some(at) = ports.iter().position(|other| other.name == port.name) {
            let reason = format!("`{}` is also the name of ports[{at}]; rename one", port.name);
            return Err(field.need("name")?.fault(reason));
        }
        let same =
            |other: &ServicePort| (other.port, other.transport) == (port.port, port.transport);
        if let Some(at) = ports.iter().position(same) {
            let reason = format!("{} is also the port of ports[{at}]; remove one", port.port);
            return Err(field.need("port")?.fault(reason));
        }
        ports.push(port);
    }
    Ok(ports)
}

fn service_port(field: &Field<'_>) -> Result<ServicePort, Fault> {
    let node_port = field.maybe("nodePort", |field| field.int(0..=u16::MAX.into()))?;
    Ok(ServicePort {
        name: port_name(field)?,
        port: syntax::port(&field.need("port")?)?,
        target: field.maybe("targetPort", target)?.unwrap_or_default(),
        transport: transport(field)?,
        app_protocol: field.maybe("appProtocol", field::boxed)?,
        // Kubernetes writes 0 for "none".
        node_port: node_port.and_then(|port| u16::try_from(port).ok()).and_then(NonZeroU16::new),
    })
}

fn target(field: &Field<'_>) -> Result<TargetPort, Fault> {
    if field.is_int() {
        // Kubernetes writes 0 for "the port itself".
        let number = field.int(0..=u16::MAX.into())?;
        let number = u16::try_from(number).ok().and_then(NonZeroU16::new);
        return Ok(number.map_or(TargetPort::Same, TargetPort::Number));
    }
    let text = field.text()?;
    if text.is_empty() {
        return Ok(TargetPort::Same);
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(field.fault("is a number in quotes; remove the quotes"));
    }
    syntax::label(field).map(TargetPort::Name)
}
