//! The records behind a Snapshot, given back: for mirrors, and for changes beside their source.

use edgemesh_proto::record::{
    Body, Key, Kind, Record, Service as ServiceRecord, ServiceName, Slice,
};

use crate::snapshot::builder::Builder;

impl Builder {
    /// Every record, in no order that matters. A copy: for changes and mirrors, not for calls.
    pub fn records(&self) -> Vec<Record> {
        Kind::ALL.into_iter().flat_map(|kind| self.of_kind(kind)).collect()
    }

    /// The record of that identity. A copy.
    pub fn record(&self, key: &Key) -> Option<Record> {
        let own = ServiceName::new(&key.namespace, &key.name);
        let body = match key.kind {
            Kind::Service => Body::Service(self.services.get(&own)?.clone()),
            Kind::Slice => Body::Slice(self.slice(&own)?.clone()),
            Kind::Node => Body::Node(self.nodes.get(&key.name)?.clone()),
            Kind::Workload => {
                Body::Workload(self.workloads.get(&key.namespace)?.get(&key.name)?.clone())
            }
            Kind::Policy => {
                let policies = self.policies.get(self.policy_owner.get(&own)?)?;
                Body::Policy(policies.get(&key.name)?.clone())
            }
            Kind::Route => Body::Route(self.routing.get(&own)?.clone()),
            Kind::Revocation => Body::Revocation(*self.revocations.get(&key.name)?),
            Kind::Endpoint => Body::Endpoint(self.book.endpoint(key)?.clone()),
            Kind::Rule => Body::Rule(self.book.rule_record(key)?.clone()),
        };
        Some(record(&key.namespace, &key.name, body))
    }

    /// The Service of that name.
    pub fn service_record(&self, name: &ServiceName) -> Option<&ServiceRecord> {
        self.services.get(name)
    }

    /// Every Service.
    pub fn service_names(&self) -> impl Iterator<Item = &ServiceName> {
        self.services.keys()
    }

    /// The Slices of a Service, by their own names.
    pub fn slices_of(&self, service: &ServiceName) -> impl Iterator<Item = (&str, &Slice)> {
        let slices = self.slices.get(service).into_iter().flatten();
        slices.map(|(name, slice)| (&**name, slice))
    }

    /// Every Slice, with namespace and name.
    pub fn all_slices(&self) -> impl Iterator<Item = (ServiceName, &Slice)> {
        let all = self.slices.iter().flat_map(|(of, all)| all.iter().map(move |s| (of, s)));
        all.map(|(of, (name, slice))| (ServiceName::new(&of.namespace, name), slice))
    }

    /// The Slice of that name.
    pub fn slice(&self, own: &ServiceName) -> Option<&Slice> {
        let slices = self.slices.get(self.slice_owner.get(own)?)?;
        slices.iter().find(|(name, _)| *name == own.name).map(|(_, slice)| slice)
    }

    fn of_kind(&self, kind: Kind) -> Vec<Record> {
        match kind {
            Kind::Service => {
                let all = self.services.iter();
                all.map(|(n, s)| record(&n.namespace, &n.name, Body::Service(s.clone()))).collect()
            }
            Kind::Slice => {
                let all = self.slices.iter().flat_map(|(of, all)| all.iter().map(move |s| (of, s)));
                all.map(|(of, (name, s))| record(&of.namespace, name, Body::Slice(s.clone())))
                    .collect()
            }
            Kind::Node => {
                let all = self.nodes.iter();
                all.map(|(name, n)| record("", name, Body::Node(n.clone()))).collect()
            }
            Kind::Workload => {
                let all =
                    self.workloads.iter().flat_map(|(of, all)| all.iter().map(move |w| (of, w)));
                all.map(|(of, (name, w))| record(of, name, Body::Workload(w.clone()))).collect()
            }
            Kind::Policy => {
                let all =
                    self.policies.iter().flat_map(|(of, all)| all.iter().map(move |p| (of, p)));
                all.map(|(of, (name, p))| record(&of.namespace, name, Body::Policy(p.clone())))
                    .collect()
            }
            Kind::Route => {
                let all = self.routing.records();
                all.map(|(n, r)| record(&n.namespace, &n.name, Body::Route(r.clone()))).collect()
            }
            Kind::Revocation => {
                let all = self.revocations.iter();
                all.map(|(name, r)| record("", name, Body::Revocation(*r))).collect()
            }
            Kind::Endpoint => {
                let all = self.book.endpoints();
                all.map(|(n, e)| record(&n.namespace, &n.name, Body::Endpoint(e.clone()))).collect()
            }
            Kind::Rule => {
                let all = self.book.rules();
                all.map(|(n, r)| record(&n.namespace, &n.name, Body::Rule(r.as_ref().clone())))
                    .collect()
            }
        }
    }
}

fn record(namespace: &str, name: &str, body: Body) -> Record {
    Record { namespace: namespace.into(), name: name.into(), body }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use edgemesh_proto::record::{Node, NodeName, Policy, Revocation, Route, Service, Workload};

    use super::*;
    use crate::io::now;
    use crate::snapshot::Change;

    /// One of each kind that is served; the compiler asks for the next.
    fn sample(kind: Kind) -> Option<Record> {
        let body = match kind {
            Kind::Service => Body::Service(Service::default()),
            Kind::Slice => {
                let (ports, backends) = (Vec::new(), Vec::new());
                Body::Slice(Slice { service: "nobody".into(), ports, backends })
            }
            Kind::Node => return Some(record("", "edge-2", Body::Node(Node::default()))),
            Kind::Workload => Body::Workload(Workload::default()),
            Kind::Policy => Body::Policy(Policy { service: "nobody".into(), ..Policy::default() }),
            Kind::Route => Body::Route(Route::default()),
            Kind::Revocation => {
                return Some(record("", "edge-9", Body::Revocation(Revocation::default())));
            }
            Kind::Endpoint | Kind::Rule => return None,
        };
        Some(record("default", "hello", body))
    }

    #[test]
    fn what_was_put_is_given_back() {
        let put: Vec<Record> = Kind::ALL.into_iter().filter_map(sample).collect();
        let mut builder = Builder::new(NodeName("edge-1".into()), None);
        builder.apply(Change { put: put.clone(), ..Change::default() }, now());
        let sorted = |all: Vec<Record>| -> BTreeMap<_, _> {
            all.into_iter().map(|record| (record.key(), record)).collect()
        };
        assert_eq!(sorted(builder.records()), sorted(put));
        for record in builder.records() {
            assert_eq!(builder.record(&record.key()), Some(record));
        }
        let slice = ServiceName::new("default", "hello");
        assert_eq!(builder.slice(&slice).map(|slice| &*slice.service), Some("nobody"));
    }
}
