//! Who is behind an address: what limits by caller and `allow` lists ask.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use edgemesh_proto::record::{AllowedCaller, NodeName, ServiceName};

/// Everyone whom the records know by address. Empty where no Policy asks for it.
#[derive(Debug, Default)]
pub struct Callers {
    by_address: HashMap<IpAddr, Who>,
    /// This machine itself.
    here: Who,
}

/// What is known of a caller.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Who {
    /// Namespace of its Workload; `None` = a process of a machine, or unknown.
    pub namespace: Option<Arc<str>>,
    /// `namespace/Kind/name` of the Workload's owner, or `namespace/name` of itself.
    pub workload: Option<Arc<str>>,
    /// The machine that it runs on.
    pub node: Option<NodeName>,
    /// Services of `allow` lists that it is a Backend of.
    pub services: Vec<ServiceName>,
}

impl Callers {
    /// Nobody but this machine.
    pub(super) fn new(here: NodeName) -> Self {
        let here = Who { node: Some(here), ..Who::default() };
        Self { by_address: HashMap::new(), here }
    }

    /// The entry of an address, made where it is missing.
    pub(super) fn entry(&mut self, address: IpAddr) -> &mut Who {
        self.by_address.entry(address.to_canonical()).or_default()
    }

    /// Who calls from there; `None` = no record knows. Loopback, and a call by the embedding
    /// application, are this machine.
    pub fn who(&self, address: Option<IpAddr>) -> Option<&Who> {
        match address.map(|address| address.to_canonical()) {
            None => Some(&self.here),
            Some(address) if address.is_loopback() => Some(&self.here),
            Some(address) => self.by_address.get(&address),
        }
    }

    /// Who has that address, as the records say; loopback is nobody's in particular.
    pub fn of_address(&self, address: IpAddr) -> Option<&Who> {
        self.by_address.get(&address.to_canonical())
    }

    /// Every address, sorted.
    pub(super) fn listed(&self) -> Vec<(&IpAddr, &Who)> {
        let mut all: Vec<_> = self.by_address.iter().collect();
        all.sort_by_key(|(address, _)| **address);
        all
    }
}

impl Who {
    /// Whether the entry of an `allow` list, in a Policy of `namespace`, means this caller.
    pub fn is_meant(&self, entry: &AllowedCaller, namespace: &str) -> bool {
        let AllowedCaller { namespace: of, service, node } = entry;
        let service_of = of.as_deref().unwrap_or(namespace);
        let serves = |name: &str| {
            self.services.iter().any(|s| &*s.name == name && &*s.namespace == service_of)
        };
        let lives_in = |of: &str| self.namespace.as_deref() == Some(of);
        // A Backend of shop/web is meant by it, whatever its own namespace is known to be.
        service.as_deref().map_or_else(|| of.as_deref().is_none_or(lives_in), serves)
            && node.as_ref().is_none_or(|node| self.node.as_ref() == Some(node))
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let node = self.node.as_ref().map_or("an unknown node", |node| &node.0);
        match (&self.workload, &self.namespace) {
            (Some(workload), _) => write!(f, "Workload {workload} on {node}")?,
            (None, Some(namespace)) => write!(f, "namespace {namespace} on {node}")?,
            (None, None) => write!(f, "a process of {node}")?,
        }
        self.services.iter().try_for_each(|service| write!(f, ", Backend of {service}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_mean_callers() {
        let who = Who {
            namespace: Some("shop".into()),
            workload: Some("shop/web-1".into()),
            node: Some(NodeName("edge-2".into())),
            services: vec![ServiceName::new("shop", "web")],
        };
        for (namespace, service, node, want) in [
            ("shop", "", "", true),
            ("default", "", "", false),
            ("", "", "edge-2", true),
            ("", "", "edge-1", false),
            ("shop", "", "edge-2", true),
            ("shop", "", "edge-1", false),
            ("shop", "web", "", true),
            ("shop", "db", "", false),
            ("shop", "web", "edge-1", false),
            // In the Policy's own namespace, which is not where it runs.
            ("", "web", "", false),
        ] {
            let text = |text: &str| (!text.is_empty()).then(|| text.into());
            let node = (!node.is_empty()).then(|| NodeName(node.into()));
            let entry = AllowedCaller { namespace: text(namespace), service: text(service), node };
            assert_eq!(who.is_meant(&entry, "default"), want, "{entry:?}");
            let nobody = Who::default();
            assert!(!nobody.is_meant(&entry, "default"), "{entry:?}");
        }
        let own = AllowedCaller { service: Some("web".into()), ..AllowedCaller::default() };
        assert!(who.is_meant(&own, "shop"));
    }
}
