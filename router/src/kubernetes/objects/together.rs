//! Objects among which is judged: Services, Policies, Routes, Rules and their Endpoints.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use edgemesh_core::config::{Check, ServiceFilter};
use edgemesh_core::manifests::{Document, Observed, Remark, Severity, settle};
use edgemesh_proto::record::{Body, Key, Kind, Record, Service, ServiceName};

use crate::kubernetes::PLACE;
use crate::kubernetes::objects::Name;
use crate::kubernetes::objects::held::Held;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Together {
    filter: ServiceFilter,
    pub(super) held: Held<Vec<Document>>,
    changed: bool,
    /// What was told, and what was said of it.
    told: BTreeMap<Key, Record>,
    checks: BTreeMap<ServiceName, Check>,
    remarks: Vec<Remark>,
}

/// What is to be told.
#[derive(Debug)]
pub(super) struct Told<'t> {
    pub(super) put: Vec<Record>,
    pub(super) delete: Vec<Key>,
    /// All of them, also those told before.
    pub(super) checks: &'t BTreeMap<ServiceName, Check>,
    pub(super) remarks: &'t [Remark],
}

impl Together {
    pub(super) fn new(filter: ServiceFilter) -> Self {
        Self { filter, ..Self::default() }
    }

    /// Takes in what an object says now. No document: it says nothing.
    ///
    /// # Errors
    /// It says what cannot be meant; what it said before stays.
    pub(super) fn put(
        &mut self,
        kind: &'static str,
        name: &Name,
        documents: Vec<Document>,
    ) -> Result<(), Box<Remark>> {
        if documents.is_empty() {
            self.remove(kind, name);
            return Ok(());
        }
        if let Some(before) = self.held.get(kind, name) {
            if *before == documents {
                return Ok(());
            }
            if let Some(remark) = lost_address(before, &documents) {
                return Err(Box::new(remark));
            }
        }
        self.held.insert(kind, name.clone(), documents);
        self.changed = true;
        Ok(())
    }

    pub(super) fn remove(&mut self, kind: &'static str, name: &Name) {
        let gone = self.held.remove(kind, name);
        self.changed |= gone.is_some();
    }

    /// What may be told has changed: all is judged anew.
    pub(super) fn touch(&mut self) {
        self.changed = true;
    }

    /// Judges, and says what is new: of kinds that are `anew` everything, of those that are not `tellable`
    /// nothing.
    pub(super) fn settle(
        &mut self,
        anew: &BTreeSet<Kind>,
        tellable: impl Fn(Kind) -> bool,
    ) -> Told<'_> {
        let (mut put, mut delete) = (Vec::new(), Vec::new());
        if std::mem::take(&mut self.changed) {
            self.told.retain(|key, _| !anew.contains(&key.kind));
            let all = self.held.values().flatten().cloned();
            let judged = settle(all.map(|document| (PathBuf::from(PLACE), document)));
            let Observed { mut records, checks, remarks, .. } = judged.without(self.filter);
            records.retain(|key, _| tellable(key.kind));
            delete.extend(self.told.keys().filter(|key| !records.contains_key(key)).cloned());
            let fresh = records.iter().filter(|(key, record)| self.told.get(key) != Some(record));
            put.extend(fresh.map(|(_, record)| record.clone()));
            (self.told, self.checks, self.remarks) = (records, checks, remarks);
        }
        Told { put, delete, checks: &self.checks, remarks: &self.remarks }
    }
}

/// A Service keeps its cluster IP for life, unless it becomes headless or an alias: one that has lost it
/// was damaged.
fn lost_address(before: &[Document], now: &[Document]) -> Option<Remark> {
    let (held, document) = (service(before)?, now.first()?);
    let fresh = service(now)?;
    let is_damaged = !held.cluster_ips.is_empty()
        && fresh.cluster_ips.is_empty()
        && !fresh.headless
        && fresh.external_name.is_none();
    is_damaged.then(|| Remark {
        severity: Severity::Rejected,
        file: PathBuf::from(PLACE),
        line: 0,
        object: document.object.clone(),
        field: "spec.clusterIP".into(),
        reason: format!("has lost its address {}", held.cluster_ips[0]),
    })
}

fn service(documents: &[Document]) -> Option<&Service> {
    match &documents.first()?.records.first()?.body {
        Body::Service(service) => Some(service),
        Body::Slice(_)
        | Body::Node(_)
        | Body::Workload(_)
        | Body::Policy(_)
        | Body::Route(_)
        | Body::Endpoint(_)
        | Body::Rule(_)
        | Body::Revocation(_) => None,
    }
}
