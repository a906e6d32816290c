//! What holds over all documents of a set of folders: who keeps a name, an address, a Service.

mod rules;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};

use edgemesh_proto::record::{
    Body, DESTINATION_RULE, Key, Kind, Record, Service, ServiceName, Transport,
};

use crate::config::Check;
use crate::manifests::{Document, Focus, Observed, Origin, Remark, Severity};

/// Documents and Remarks of every file, in the order of files.
#[derive(Default)]
pub(super) struct Whole {
    documents: Vec<(PathBuf, Document)>,
    remarks: Vec<Remark>,
}

impl Whole {
    /// Takes in one file.
    pub(super) fn add(&mut self, file: &Path, documents: Vec<Document>, remarks: Vec<Remark>) {
        self.documents.extend(documents.into_iter().map(|document| (file.to_owned(), document)));
        self.remarks.extend(remarks);
    }

    /// Says something of a file or folder.
    pub(super) fn remark(&mut self, file: &Path, reason: String) {
        self.remarks.push(Remark {
            severity: Severity::Rejected,
            file: file.to_owned(),
            line: 0,
            object: String::new(),
            field: String::new(),
            reason,
        });
    }

    /// Applies the rules. Remarks come in the order of paths and lines.
    pub(super) fn finish(mut self) -> Observed {
        self.drop_duplicates();
        self.drop_outdated_endpoints();
        self.drop_address_rivals();
        self.aim_rules_by_name();
        self.drop_taken_ids();
        self.take_in_endpoints();
        let records = self.records();
        self.note_aimless_policies(&records);
        self.note_idle_rules(&records);
        let checks = self.checks();
        let labelled = self.documents.iter().filter(|(_, document)| document.labelled);
        let labelled =
            labelled.flat_map(|(_, document)| document.records.iter().map(Record::key)).collect();
        self.remarks.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
        Observed { records, checks, labelled, remarks: self.remarks }
    }

    /// Of two documents with one identity the first counts.
    fn drop_duplicates(&mut self) {
        let mut first: HashMap<String, (PathBuf, u32)> = HashMap::new();
        self.keep(|file, document| {
            let Some((file, line)) = first.get(&document.object) else {
                first.insert(document.object.clone(), (file.to_owned(), document.line));
                return Ok(());
            };
            let reason = format!(
                "is already there in {}, line {line}, which counts; remove one of the two",
                file.display()
            );
            Err((Severity::Rejected, whole_of(document), reason))
        });
    }

    /// Endpoints are an older view of what EndpointSlices say.
    fn drop_outdated_endpoints(&mut self) {
        let sliced: BTreeSet<ServiceName> = self
            .documents
            .iter()
            .filter(|(_, document)| document.origin == Origin::Itself)
            .flat_map(|(_, document)| document.records.iter().filter_map(sliced_service))
            .collect();
        self.keep(|_, document| {
            let service = document.records.first().and_then(sliced_service);
            match (document.origin, service) {
                (Origin::Endpoints, Some(service)) if sliced.contains(&service) => {
                    let reason = "EndpointSlices of this Service are there, and they count";
                    Err((Severity::Ignored, whole_of(document), reason.to_owned()))
                }
                (Origin::Endpoints | Origin::Itself, _) => Ok(()),
            }
        });
    }

    /// Of two Services with one cluster IP and port the older keeps them, then the lower name.
    fn drop_address_rivals(&mut self) {
        let mut services: Vec<_> =
            self.documents.iter().flat_map(|(_, document)| document.records.iter()).collect();
        services.retain(|record| record.kind() == Kind::Service);
        services.sort_by_cached_key(|record| (age(record), record.key()));
        let mut holders: HashMap<Place, Key> = HashMap::new();
        let mut losers: BTreeMap<Key, (IpAddr, Key)> = BTreeMap::new();
        for record in services {
            let places: Vec<_> = record.body.service().map(places).unwrap_or_default();
            let rival = places.iter().find_map(|place| Some((place.0, holders.get(place)?)));
            match rival {
                Some((address, winner)) => {
                    losers.insert(record.key(), (address, winner.clone()));
                }
                None => holders.extend(places.into_iter().map(|place| (place, record.key()))),
            }
        }
        self.keep(|_, document| {
            let loser = document.records.iter().find_map(|record| losers.get(&record.key()));
            let Some((address, winner)) = loser else {
                return Ok(());
            };
            let reason = format!(
                "{address} is the address of {winner}, which is older or first by name, with the same port; \
                 give this Service another address"
            );
            Err((Severity::Rejected, document.focus.clone(), reason))
        });
    }

    /// A DestinationRule whose host is no Service, but which is called like one: KubeEdge's EdgeMesh
    /// goes by the rule's name and never looked at the host, so that such files are about.
    fn aim_rules_by_name(&mut self) {
        let all = self.documents.iter().flat_map(|(_, document)| &document.records);
        let services: HashSet<_> = all
            .filter(|record| record.kind() == Kind::Service)
            .map(|record| ServiceName::new(&record.namespace, &record.name))
            .collect();
        for (file, document) in &mut self.documents {
            let [Record { namespace, name, body: Body::Policy(policy) }] =
                &mut document.records[..]
            else {
                continue;
            };
            // A rule for another namespace has that in its name, which no Service has.
            let Some(own) = name.strip_prefix(DESTINATION_RULE) else { continue };
            let aimed = |name: &str| services.contains(&ServiceName::new(namespace, name));
            if aimed(&policy.service) || !aimed(own) {
                continue;
            }
            let reason = format!(
                "`{}` is no Service, so that the rule is taken for the Service of its own name, \
                 as KubeEdge's EdgeMesh does; write `host: {own}`",
                policy.service
            );
            policy.service = own.into();
            let verdict = (Severity::Note, document.focus.clone(), reason);
            self.remarks.push(about(file, document, verdict));
        }
    }

    /// The records by identity. Only numbered Slices of Endpoints can still collide.
    fn records(&mut self) -> BTreeMap<Key, Record> {
        let mut records = BTreeMap::new();
        self.keep(|_, document| {
            let keys: Vec<_> = document.records.iter().map(Record::key).collect();
            if let Some(taken) = keys.iter().find(|key| records.contains_key(*key)) {
                let reason = format!("would become {taken}, which another object is; rename one");
                return Err((Severity::Rejected, whole_of(document), reason));
            }
            records.extend(keys.into_iter().zip(document.records.iter().cloned()));
            Ok(())
        });
        records
    }

    /// Checks by Service; the first that names one counts.
    fn checks(&self) -> BTreeMap<ServiceName, Check> {
        let mut checks = BTreeMap::new();
        for (_, document) in &self.documents {
            let Some(check) = &document.check else { continue };
            for record in &document.records {
                let name = match &record.body {
                    Body::Slice(slice) => &slice.service,
                    Body::Service(_) => &record.name,
                    Body::Node(_)
                    | Body::Workload(_)
                    | Body::Policy(_)
                    | Body::Route(_)
                    | Body::Endpoint(_)
                    | Body::Rule(_)
                    | Body::Revocation(_) => continue,
                };
                let service = ServiceName::new(&record.namespace, name);
                checks.entry(service).or_insert_with(|| check.clone());
            }
        }
        checks
    }

    fn note_aimless_policies(&mut self, records: &BTreeMap<Key, Record>) {
        for (file, document) in &self.documents {
            let Some(Record { namespace, body: Body::Policy(policy), .. }) =
                document.records.first()
            else {
                continue;
            };
            let (namespace, name) = (namespace.clone(), policy.service.clone());
            let key = Key { kind: Kind::Service, namespace, name };
            if !records.contains_key(&key) {
                let reason = format!("has no effect until {key} is there");
                let verdict = (Severity::Note, document.focus.clone(), reason);
                self.remarks.push(about(file, document, verdict));
            }
        }
    }

    /// Drops the documents that `judge` finds against, each with its Remark.
    fn keep(&mut self, mut judge: impl FnMut(&Path, &Document) -> Result<(), Verdict>) {
        let remarks = &mut self.remarks;
        self.documents.retain(|(file, document)| match judge(file, document) {
            Ok(()) => true,
            Err(verdict) => {
                remarks.push(about(file, document, verdict));
                false
            }
        });
    }
}

/// Severity, place and reason of a Remark.
type Verdict = (Severity, Focus, String);

/// What a client dials.
type Place = (IpAddr, Transport, NonZeroU16);

/// No one field of the document is to blame.
fn whole_of(document: &Document) -> Focus {
    Focus { line: document.line, field: String::new() }
}

fn about(file: &Path, document: &Document, (severity, focus, reason): Verdict) -> Remark {
    let (file, object) = (file.to_owned(), document.object.clone());
    Remark { severity, file, line: focus.line, object, field: focus.field, reason }
}

fn sliced_service(record: &Record) -> Option<ServiceName> {
    record.body.slice().map(|slice| ServiceName::new(&record.namespace, &slice.service))
}

/// Creation time; what does not tell its age is younger than what does.
fn age(record: &Record) -> i64 {
    record.body.service().map(|service| service.created).filter(|at| *at != 0).unwrap_or(i64::MAX)
}

fn places(service: &Service) -> Vec<Place> {
    let ips = service.cluster_ips.iter();
    let places =
        ips.flat_map(|ip| service.ports.iter().map(|port| (*ip, port.transport, port.port)));
    places.collect()
}
