//! The Routes behind the Snapshots, by the Services that they are for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use edgemesh_proto::record::{Route, ServiceName};

use crate::snapshot::builder::Dirty;
use crate::snapshot::routes::{Entry, PortRoutes};

/// Every Route.
#[derive(Debug, Default)]
pub(super) struct Routing {
    entries: BTreeMap<ServiceName, Arc<Entry>>,
    /// Routes by Service.
    of_service: BTreeMap<ServiceName, BTreeSet<ServiceName>>,
}

impl Routing {
    pub(super) fn put(&mut self, name: ServiceName, route: Route, dirty: &mut Dirty) {
        let before = self.forget(&name, dirty);
        let entry = Arc::new(Entry::new(name.clone(), route, before.as_deref()));
        for service in parents(&entry.record) {
            self.of_service.entry(service.clone()).or_default().insert(name.clone());
            dirty.services.insert(service);
        }
        dirty.routes = true;
        self.entries.insert(name, entry);
    }

    pub(super) fn get(&self, name: &ServiceName) -> Option<&Route> {
        self.entries.get(name).map(|entry| &entry.record)
    }

    pub(super) fn records(&self) -> impl Iterator<Item = (&ServiceName, &Route)> {
        self.entries.iter().map(|(name, entry)| (name, &entry.record))
    }

    pub(super) fn forget(&mut self, name: &ServiceName, dirty: &mut Dirty) -> Option<Arc<Entry>> {
        let gone = self.entries.remove(name)?;
        dirty.routes = true;
        for service in parents(&gone.record) {
            if let Some(routes) = self.of_service.get_mut(&service) {
                routes.remove(name);
                if routes.is_empty() {
                    self.of_service.remove(&service);
                }
            }
            dirty.services.insert(service);
        }
        Some(gone)
    }

    /// The Routes of one port of `service`.
    pub(super) fn of_port(
        &self,
        service: &ServiceName,
        port: (u16, &str),
    ) -> Option<Arc<PortRoutes>> {
        let names = self.of_service.get(service)?;
        let entries = names.iter().filter_map(|name| self.entries.get(name));
        PortRoutes::new(entries, service, port)
    }

    /// All, by name.
    pub(super) fn all(&self) -> Arc<[Arc<Entry>]> {
        self.entries.values().cloned().collect()
    }

    /// Whether a Route asks for the namespaces of callers.
    pub(super) fn asks_who_calls(&self) -> bool {
        let is_consumers = |entry: &Arc<Entry>| {
            entry.record.parents.iter().any(|parent| parent.namespace != entry.name.namespace)
        };
        self.entries.values().any(is_consumers)
    }
}

fn parents(route: &Route) -> impl Iterator<Item = ServiceName> {
    route.parents.iter().map(|parent| ServiceName::new(&parent.namespace, &parent.service))
}
