//! Endpoint type `servicebus`: as a source requests to a node's ServiceBus, as a target an application
//! on a node, by its port, or a Service.

use edgemesh_proto::record::Endpoint;

use crate::snapshot::rules::kinds::{Given, Kind, Side};
use crate::snapshot::rules::{Source, Target, service, settings};

/// See the module.
pub(super) const SERVICEBUS: Kind = Kind {
    name: "servicebus",
    properties: &["service_port", "service", "node_name"],
    source_keys: &["target_url", "node_name"],
    target_keys: &["path", "node_name"],
    check,
    source,
    target,
};

fn check(endpoint: &Endpoint) -> Result<(), String> {
    let get = |key: &str| endpoint.properties.get(key);
    let port = settings::port(&get, "service_port")?;
    match (port, get("service")) {
        (Some(_), Some(_)) => Err("service: and service_port exclude each other".into()),
        _ => Ok(()),
    }
}

fn source(side: &Side<'_>, _: &Given<'_>) -> Result<Source, String> {
    let url = side.resource("target_url").filter(|url| !url.is_empty());
    let url = url.ok_or("target_url: is missing; what callers name is wanted")?;
    Ok(Source::ServiceBus { url: url.into(), node: settings::node(&|key| side.either(key)) })
}

fn target(side: &Side<'_>, given: &Given<'_>) -> Result<Target, String> {
    let path = service::path(side.resource("path").unwrap_or("/"), given)?;
    if let Some(text) = side.property("service") {
        let (service, port) =
            service::named(text, &side.name.namespace).map_err(|why| format!("service: {why}"))?;
        return Ok(Target::Service { service, port, path: Some(path) });
    }
    let port = settings::port(&|key| side.property(key), "service_port")?;
    let port = port.ok_or("service_port: is missing in the Endpoint's properties")?;
    Ok(Target::ServiceBus { port, path, node: settings::node(&|key| side.either(key)) })
}
