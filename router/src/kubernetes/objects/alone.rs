//! Objects that mean the same whatever others say: Slices, Pods, Nodes.

use std::collections::BTreeMap;

use edgemesh_core::config::Check;
use edgemesh_core::digest::{Digest, Hasher};
use edgemesh_core::manifests::Document;
use edgemesh_proto::record::{Key, Kind, Record, ServiceName};

use crate::kubernetes::objects::held::Held;
use crate::kubernetes::objects::{Name, keys};

/// What stays of an object, so that the same is not told twice.
#[derive(Debug)]
pub(super) struct Told {
    /// Its records: one, or one for each subset of Endpoints.
    records: Vec<(Key, Digest)>,
    check: Option<(ServiceName, Check)>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Alone {
    pub(super) held: Held<Told>,
    /// To be told: what is there now, or that it is gone.
    next: BTreeMap<Key, Option<Record>>,
    hasher: Hasher,
}

impl Alone {
    /// Services of which such objects say how they are probed.
    pub(super) fn checks(&self) -> impl Iterator<Item = (ServiceName, Check)> {
        self.held.values().filter_map(|told| told.check.clone())
    }

    /// Takes in what an object says now. No document: it says nothing.
    pub(super) fn put(&mut self, kind: &'static str, name: &Name, documents: Vec<Document>) {
        if documents.is_empty() {
            return self.remove(kind, name);
        }
        let check = documents.iter().find_map(|document| {
            let record = document.records.first()?;
            let slice = record.body.slice()?;
            let service = ServiceName::new(&record.namespace, &slice.service);
            Some((service, document.check.clone()?))
        });
        let records: Vec<Record> =
            documents.into_iter().flat_map(|document| document.records).collect();
        let hasher = &mut self.hasher;
        let of = |record: &Record| {
            let key = record.key();
            let digest = hasher.of(&key, &record.encode_body());
            (key, digest)
        };
        let fresh: Vec<(Key, Digest)> = records.iter().map(of).collect();
        let before = self.held.get(kind, name);
        let before = before.map(|told| told.records.clone()).unwrap_or_default();
        let now = keys(&records);
        for (key, _) in before.iter().filter(|(key, _)| !now.contains(key)) {
            self.next.insert(key.clone(), None);
        }
        for (record, fresh) in records.into_iter().zip(&fresh) {
            if !before.contains(fresh) {
                self.next.insert(record.key(), Some(record));
            }
        }
        self.held.insert(kind, name.clone(), Told { records: fresh, check });
    }

    pub(super) fn remove(&mut self, kind: &'static str, name: &Name) {
        let Some(told) = self.held.remove(kind, name) else { return };
        self.next.extend(told.records.into_iter().map(|(key, _)| (key, None)));
    }

    /// Everything of a kind is to be told anew.
    pub(super) fn forget(&mut self, kind: &'static str) {
        for (key, _) in self.held.take(kind).flat_map(|told| told.records) {
            self.next.remove(&key);
        }
    }

    /// What is to be told of kinds that are `tellable`.
    pub(super) fn take(&mut self, tellable: impl Fn(Kind) -> bool) -> (Vec<Record>, Vec<Key>) {
        let (mut put, mut delete) = (Vec::new(), Vec::new());
        let next = std::mem::take(&mut self.next);
        for (key, record) in next {
            match record {
                record if !tellable(key.kind) => drop(self.next.insert(key, record)),
                Some(record) => put.push(record),
                None => delete.push(key),
            }
        }
        (put, delete)
    }
}
