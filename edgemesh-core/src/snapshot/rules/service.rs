//! Endpoint type `service`: a Service of the mesh, as a source its calls, as a target whoever serves it.
//!
//! Property `service` names it: `name`, `namespace/name` or `name.namespace`, each perhaps with
//! `:port`; without one, the Endpoint's own name is the Service's.

use edgemesh_proto::record::ServiceName;

use crate::snapshot::rules::kinds::{Given, Kind, Side};
use crate::snapshot::rules::path::check_names;
use crate::snapshot::rules::{Pattern, Source, Target, settings};

/// See the module.
pub(super) const SERVICE: Kind = Kind {
    name: "service",
    properties: &["service", "port"],
    source_keys: &["path"],
    target_keys: &["path"],
    check: |endpoint| settings::port(&|key| endpoint.properties.get(key), "port").map(drop),
    source,
    target,
};

fn source(side: &Side<'_>, _: &Given<'_>) -> Result<Source, String> {
    let (service, port) = of(side)?;
    let path = side.resource("path").map(Pattern::parse).transpose();
    let path = path.map_err(|why| format!("path: {why}"))?;
    Ok(Source::Service { service, port, path })
}

fn target(side: &Side<'_>, given: &Given<'_>) -> Result<Target, String> {
    let (service, port) = of(side)?;
    let text = side.resource("path");
    let path = text.map(|text| path(text, given)).transpose()?;
    Ok(Target::Service { service, port, path })
}

fn of(side: &Side<'_>) -> Result<(ServiceName, Option<u16>), String> {
    let own = ServiceName::new(&side.name.namespace, &side.name.name);
    let named = side.property("service").map(|text| named(text, &side.name.namespace));
    let (service, port) =
        named.transpose().map_err(|why| format!("service: {why}"))?.unwrap_or((own, None));
    let said = settings::port(&|key| side.property(key), "port")?;
    Ok((service, said.or(port)))
}

/// A Service and perhaps its port, as people name them from within `namespace`.
pub(super) fn named(text: &str, namespace: &str) -> Result<(ServiceName, Option<u16>), String> {
    let (name, port) = match text.rsplit_once(':') {
        Some((name, port)) => match port.parse() {
            Ok(port) if port > 0 => (name, Some(port)),
            Ok(_) | Err(_) => return Err(format!("`{port}` is no port: 1 to 65535")),
        },
        None => (text, None),
    };
    let (namespace, name) = match (name.split_once('/'), name.split_once('.')) {
        (Some((namespace, name)), _) => (namespace, name),
        (None, Some((name, rest))) => (rest.split('.').next().unwrap_or(rest), name),
        (None, None) => (namespace, name),
    };
    match name.is_empty() || namespace.is_empty() {
        true => Err(format!("`{text}` names no Service; write namespace/name:port")),
        false => Ok((ServiceName::new(namespace, name), port)),
    }
}

/// A path that a target's request begins with.
pub(super) fn path(text: &str, given: &Given<'_>) -> Result<Box<str>, String> {
    check_names(text, given.path).map_err(|why| format!("path: {why}"))?;
    let good = text.bytes().all(|b| b.is_ascii_graphic()) && !text.contains(['?', '#']);
    match good {
        true if text.starts_with('/') => Ok(text.into()),
        true => Ok(format!("/{text}").into()),
        false => Err(format!("path: `{text}` is no path: no blank, `?` or `#`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (text, want) in [
            ("hello", Ok(("shop/hello", None))),
            ("hello:80", Ok(("shop/hello", Some(80)))),
            ("lab/hello:80", Ok(("lab/hello", Some(80)))),
            ("hello.lab", Ok(("lab/hello", None))),
            ("hello.lab.svc.cluster.local:81", Ok(("lab/hello", Some(81)))),
            ("", Err("names no Service")),
            ("/x", Err("names no Service")),
            ("x:0", Err("is no port")),
            ("x:http", Err("is no port")),
        ] {
            match (named(text, "shop"), want) {
                (Ok((service, port)), Ok(want)) => {
                    assert_eq!((&*service.to_string(), port), want);
                }
                (Err(got), Err(want)) => assert!(got.contains(want), "{text}: {got}"),
                (got, want) => panic!("{text}: got {got:?}, want {want:?}"),
            }
        }
    }
}
