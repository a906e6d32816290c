//! Services and Slices as they will be after a step: what is known, and over it what changes.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use edgemesh_proto::record::{Body, Key, Kind, Record, Service, ServiceName, Slice};

use crate::snapshot::Builder;

/// See the module.
pub(super) struct After<'a> {
    builder: &'a Builder,
    services: BTreeMap<ServiceName, Option<&'a Service>>,
    /// By their own names.
    slices: HashMap<ServiceName, Option<&'a Slice>>,
    /// The Slices that are put, by Service.
    of_service: BTreeMap<ServiceName, Vec<&'a Slice>>,
}

impl<'a> After<'a> {
    /// Deletes come before puts.
    pub(super) fn new(builder: &'a Builder, put: &'a [Record], delete: &'a [Key]) -> Self {
        let mut new = Self {
            builder,
            services: BTreeMap::new(),
            slices: HashMap::new(),
            of_service: BTreeMap::new(),
        };
        for Key { kind, namespace, name } in delete {
            let name = ServiceName::new(namespace, name);
            match kind {
                Kind::Service => drop(new.services.insert(name, None)),
                Kind::Slice => drop(new.slices.insert(name, None)),
                Kind::Node
                | Kind::Workload
                | Kind::Policy
                | Kind::Route
                | Kind::Endpoint
                | Kind::Rule
                | Kind::Revocation => {}
            }
        }
        for Record { namespace, name, body } in put {
            let name = ServiceName::new(namespace, name);
            match body {
                Body::Service(service) => drop(new.services.insert(name, Some(service))),
                Body::Slice(slice) => {
                    let service = ServiceName::new(namespace, &slice.service);
                    new.of_service.entry(service).or_default().push(slice);
                    new.slices.insert(name, Some(slice));
                }
                Body::Node(_)
                | Body::Workload(_)
                | Body::Policy(_)
                | Body::Route(_)
                | Body::Endpoint(_)
                | Body::Rule(_)
                | Body::Revocation(_) => {}
            }
        }
        new
    }

    /// Services whose addresses may have to change.
    pub(super) fn concerned(&self) -> BTreeSet<ServiceName> {
        let mut concerned: BTreeSet<_> = self.services.keys().cloned().collect();
        for (name, slice) in &self.slices {
            let both = [*slice, self.builder.slice(name)].into_iter().flatten();
            let named = both.filter(|s| s.backends.iter().any(|b| b.hostname.is_some()));
            concerned.extend(named.map(|s| ServiceName::new(&name.namespace, &s.service)));
        }
        concerned
    }

    /// The Service as it is now.
    pub(super) fn before(&self, name: &ServiceName) -> Option<&'a Service> {
        self.builder.service_record(name)
    }

    /// The Service as it will be.
    pub(super) fn service(&self, name: &ServiceName) -> Option<&'a Service> {
        match self.services.get(name) {
            Some(changed) => *changed,
            None => self.builder.service_record(name),
        }
    }

    /// Names that Backends of a Service will have.
    pub(super) fn hostnames(&self, service: &ServiceName) -> BTreeSet<Box<str>> {
        let same = self.builder.slices_of(service).filter(|(name, _)| {
            !self.slices.contains_key(&ServiceName::new(&service.namespace, name))
        });
        let same = same.map(|(_, slice)| slice);
        let changed = self.of_service.get(service).into_iter().flatten().copied();
        let backends = same.chain(changed).flat_map(|slice| &slice.backends);
        backends.filter_map(|backend| backend.hostname.clone()).collect()
    }
}
