//! What an API server has said so far, and what of it is new to whoever keeps the records.
//!
//! Objects are read into records when they arrive and not kept. [`alone`] holds kinds whose objects
//! mean the same whatever others say; there are many of them, so that only their fingerprints stay.
//! [`together`] holds those among which [`settle`](edgemesh_core::manifests::settle) judges.
//!
//! Pure: [`Objects::hear`] takes in what happened, [`Objects::step`] says what is to be told.

mod alone;
mod held;
mod kinds;
mod together;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use edgemesh_core::config::{Check, ServiceFilter};
use edgemesh_core::manifests::{MAX_REMARKS, Parsed, Remark, Severity};
use edgemesh_core::mesh::Supplied;
use edgemesh_proto::message::MAX_RANGES;
use edgemesh_proto::record::{Key, Kind, Record, ServiceName};
use ipnet::IpNet;
use serde_json::Value;

use crate::kubernetes::objects::alone::Alone;
use crate::kubernetes::objects::held::Held;
use crate::kubernetes::objects::kinds::{How, KINDS, RANGES, how};
use crate::kubernetes::objects::together::Together;

pub(super) use crate::kubernetes::objects::kinds::record_of;

/// Which object of a kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    /// Empty for what has none.
    pub namespace: Box<str>,
    /// Its name.
    pub name: Box<str>,
}

/// What an API server holds of an object beside what it means, for whoever says what became of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Mark {
    /// `metadata.generation`: which version of what it says this is.
    pub generation: Option<i64>,
    /// `status`, as it is.
    pub status: Value,
}

/// What became of an object.
#[derive(Clone, Debug, PartialEq)]
pub struct Judged {
    /// Its kind.
    pub kind: &'static str,
    /// Which one.
    pub name: Name,
    /// What the server holds of it.
    pub mark: Mark,
    /// What is wrong with it, or to be known of it.
    pub remark: Option<Remark>,
}

/// What happened at an API server.
#[derive(Clone, Debug, PartialEq)]
pub enum News {
    /// All objects of the kind are told from here on, up to [`News::Listed`].
    Listing,
    /// An object is there, or changed.
    Put(Name, Parsed),
    /// An object that says where addresses of Services lie is there, or changed; or what is wrong with it.
    Ranges(Name, Result<Vec<IpNet>, Box<Remark>>),
    /// An object is gone.
    Gone(Name),
    /// The objects since [`News::Listing`] are all there are, or (`whole: false`) all that could be told.
    Listed {
        /// What was not told is gone.
        whole: bool,
    },
    /// The server knows no such kind: there are none.
    Absent,
}

/// How far a kind is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Known {
    /// Nothing that may be told.
    #[default]
    Not,
    /// Some objects; there may be more.
    Partly,
    /// All of them.
    Whole,
}

/// One kind of object.
#[derive(Debug, Default)]
struct OfKind {
    known: Known,
    /// Those that were told since the listing began.
    seen: Option<BTreeSet<Name>>,
    /// What is to be said of its objects.
    remarks: BTreeMap<Name, Vec<Remark>>,
    /// Of objects of which is said what became of them.
    marks: BTreeMap<Name, Mark>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Objects {
    kinds: BTreeMap<&'static str, OfKind>,
    alone: Alone,
    together: Together,
    ranges: Held<Vec<IpNet>>,
    /// Kinds of records that have been told whole.
    told_whole: BTreeSet<Kind>,
    /// Something may be to be told.
    is_new: bool,
    /// What became of marked objects was told.
    is_judged: bool,
    /// Checks and Remarks that were told.
    said: (Arc<BTreeMap<ServiceName, Check>>, Arc<[Remark]>),
    /// Ranges that were told.
    said_ranges: Option<Arc<[IpNet]>>,
}

impl Objects {
    /// Nothing is known of these kinds of objects. Services that `filter` leaves to others have no ports.
    pub fn new(kinds: impl IntoIterator<Item = &'static str>, filter: ServiceFilter) -> Self {
        let kinds = kinds.into_iter().map(|kind| (kind, OfKind::default())).collect();
        Self { kinds, together: Together::new(filter), ..Self::default() }
    }

    /// Takes in what happened to a kind of object.
    pub fn hear(&mut self, kind: &'static str, news: News) {
        self.is_new = true;
        match news {
            News::Listing => self.begin(kind),
            News::Put(name, parsed) => self.put(kind, name, parsed),
            News::Ranges(name, said) => self.put_ranges(kind, name, said),
            News::Gone(name) => self.gone(kind, &name),
            News::Listed { whole } => self.listed(kind, whole),
            News::Absent => {
                self.begin(kind);
                self.listed(kind, true);
            }
        }
    }

    /// Takes in what the server holds of an object of which is to be said what became of it.
    pub fn mark(&mut self, kind: &'static str, name: Name, mark: Mark) {
        self.is_judged = false;
        self.of(kind).marks.insert(name, mark);
    }

    /// What became of every object that is marked, by what was told last; `None`: the same as before.
    pub fn judged(&mut self) -> Option<Vec<Judged>> {
        if std::mem::replace(&mut self.is_judged, true) {
            return None;
        }
        let mut said: HashMap<&str, &Remark> = HashMap::new();
        for remark in &*self.said.1 {
            let known = said.entry(&remark.object).or_insert(remark);
            if remark.severity < known.severity {
                *known = remark;
            }
        }
        let judged = |kind: &'static str, of: &OfKind, name: &Name, mark: &Mark| {
            // Its own are found by name: in the others' titles a long one is cut.
            let own = of.remarks.get(name).and_then(|all| all.iter().min_by_key(|r| r.severity));
            let object = format!("{kind} {}/{}", name.namespace, name.name);
            let remark = own.or_else(|| said.get(&*object).copied()).cloned();
            Judged { kind, name: name.clone(), mark: mark.clone(), remark }
        };
        let marked = self.kinds.iter().flat_map(|(kind, of)| {
            of.marks.iter().map(|(name, mark)| judged(kind, of, name, mark))
        });
        Some(marked.collect())
    }

    /// How many objects of a kind count.
    pub fn count(&self, kind: &str) -> usize {
        match how(kind) {
            How::Alone => self.alone.held.count(kind),
            How::Together => self.together.held.count(kind),
            How::Ranges => self.ranges.count(kind),
        }
    }

    /// How many of them are wrong: they count as they were before, or not at all.
    pub fn wrong(&self, kind: &str) -> usize {
        let is_wrong = |remarks: &&Vec<Remark>| {
            remarks.iter().any(|remark| remark.severity == Severity::Rejected)
        };
        self.kinds.get(kind).map_or(0, |of| of.remarks.values().filter(is_wrong).count())
    }

    /// What is to be told, if anything is new.
    pub fn step(&mut self) -> Option<Supplied> {
        if !std::mem::take(&mut self.is_new) {
            return None;
        }
        let whole = self.newly_whole();
        let (told_whole, kinds) = (&self.told_whole, &self.kinds);
        let tellable = |kind: Kind| told_whole.contains(&kind) || is_partly(kinds, kind);
        let (mut put, mut delete) = self.alone.take(tellable);
        let told = self.together.settle(&whole, tellable);
        put.extend(told.put);
        delete.extend(told.delete);
        let mut checks = told.checks.clone();
        checks.extend(self.alone.checks());
        let own = kinds.values().flat_map(|of| of.remarks.values().flatten());
        let remarks: Vec<Remark> =
            told.remarks.iter().chain(own).take(MAX_REMARKS).cloned().collect();
        let is_said = *self.said.0 == checks && *self.said.1 == remarks[..];
        let service_cidrs = self.service_cidrs();
        let same = is_said && self.said_ranges == service_cidrs;
        if put.is_empty() && delete.is_empty() && whole.is_empty() && same {
            return None;
        }
        self.said_ranges.clone_from(&service_cidrs);
        self.is_judged &= is_said;
        self.said = (Arc::new(checks), remarks.into());
        let (checks, remarks) = self.said.clone();
        Some(Supplied { whole, put, delete, checks, service_cidrs, remarks, trouble: None })
    }

    /// Nothing new, but what is wrong with the server.
    pub fn again(&self, trouble: Option<String>) -> Supplied {
        let (checks, remarks) = self.said.clone();
        Supplied { checks, remarks, trouble, ..Supplied::default() }
    }

    fn of(&mut self, kind: &'static str) -> &mut OfKind {
        self.kinds.entry(kind).or_default()
    }

    /// Until a kind is known whole, each listing begins anew: then all of it is told at once.
    fn begin(&mut self, kind: &'static str) {
        let of = self.of(kind);
        of.seen = Some(BTreeSet::new());
        if of.known != Known::Whole && how(kind) == How::Alone {
            self.alone.forget(kind);
        }
    }

    fn put(&mut self, kind: &'static str, name: Name, parsed: Parsed) {
        let Parsed { documents, mut remarks } = parsed;
        remarks.retain(|remark| remark.severity != Severity::Ignored);
        let is_bad = remarks.iter().any(|remark| remark.severity == Severity::Rejected);
        let kept = match (how(kind), is_bad) {
            (How::Alone, true) => self.alone.held.has(kind, &name),
            (How::Together, true) => self.together.held.has(kind, &name),
            (How::Alone, false) => {
                self.alone.put(kind, &name, documents);
                false
            }
            (How::Together, false) => match self.together.put(kind, &name, documents) {
                Ok(()) => false,
                Err(remark) => {
                    remarks.push(*remark);
                    true
                }
            },
            // Told as `News::Ranges`.
            (How::Ranges, _) => false,
        };
        self.note(kind, name, remarks, kept);
    }

    fn put_ranges(
        &mut self,
        kind: &'static str,
        name: Name,
        said: Result<Vec<IpNet>, Box<Remark>>,
    ) {
        match said {
            Ok(ranges) => {
                self.ranges.insert(kind, name.clone(), ranges);
                self.note(kind, name, Vec::new(), false);
            }
            Err(remark) => {
                let kept = self.ranges.has(kind, &name);
                self.note(kind, name, vec![*remark], kept);
            }
        }
    }

    /// Notes that an object was told, and what is to be said of it; `kept`: what it said before stays.
    fn note(&mut self, kind: &'static str, name: Name, mut remarks: Vec<Remark>, kept: bool) {
        if kept {
            remarks.iter_mut().for_each(stays_in_force);
        }
        let of = self.of(kind);
        if let Some(seen) = &mut of.seen {
            seen.insert(name.clone());
        }
        match remarks.is_empty() {
            true => drop(of.remarks.remove(&name)),
            false => drop(of.remarks.insert(name, remarks)),
        }
    }

    fn gone(&mut self, kind: &'static str, name: &Name) {
        let of = self.of(kind);
        of.remarks.remove(name);
        let was_marked = of.marks.remove(name).is_some();
        if let Some(seen) = &mut of.seen {
            seen.remove(name);
        }
        self.is_judged &= !was_marked;
        self.drop_object(kind, name);
    }

    fn listed(&mut self, kind: &'static str, whole: bool) {
        let of = self.of(kind);
        let Some(seen) = of.seen.take() else { return };
        let (before, marked) = (of.known, of.marks.len());
        of.known = match (before, whole) {
            (_, true) | (Known::Whole, _) => Known::Whole,
            (Known::Not | Known::Partly, false) => Known::Partly,
        };
        let is_known_better = of.known != before;
        if whole {
            of.remarks.retain(|name, _| seen.contains(name));
            of.marks.retain(|name, _| seen.contains(name));
            let fewer = of.marks.len() < marked;
            self.is_judged &= !fewer;
            self.drop_unseen(kind, &seen);
        }
        if is_known_better {
            self.together.touch();
        }
    }

    fn drop_unseen(&mut self, kind: &'static str, seen: &BTreeSet<Name>) {
        let held = match how(kind) {
            How::Alone => self.alone.held.names(kind),
            How::Together => self.together.held.names(kind),
            How::Ranges => self.ranges.names(kind),
        };
        for name in held.iter().filter(|name| !seen.contains(name)) {
            self.drop_object(kind, name);
        }
    }

    fn drop_object(&mut self, kind: &'static str, name: &Name) {
        match how(kind) {
            How::Alone => self.alone.remove(kind, name),
            How::Together => self.together.remove(kind, name),
            How::Ranges => drop(self.ranges.remove(kind, name)),
        }
    }

    /// Where addresses of Services lie; `None`: not all of it is known.
    fn service_cidrs(&self) -> Option<Arc<[IpNet]>> {
        self.kinds.get(RANGES).filter(|of| of.known == Known::Whole)?;
        let all: Vec<IpNet> = self.ranges.values().flatten().copied().collect();
        let mut all = IpNet::aggregate(&all);
        all.sort_unstable();
        all.truncate(MAX_RANGES);
        Some(all.into())
    }

    /// Kinds of records all of whose objects have become known.
    fn newly_whole(&mut self) -> BTreeSet<Kind> {
        let is_whole = |record: Kind| {
            let mut of = self.kinds.iter().filter(|(kind, _)| record_of(kind) == Some(record));
            of.clone().next().is_some() && of.all(|(_, of)| of.known == Known::Whole)
        };
        let all: BTreeSet<Kind> =
            KINDS.iter().filter_map(|row| row.1).filter(|k| is_whole(*k)).collect();
        let new = all.difference(&self.told_whole).copied().collect();
        self.told_whole = all;
        new
    }
}

fn is_partly(kinds: &BTreeMap<&'static str, OfKind>, record: Kind) -> bool {
    let mut of = kinds.iter().filter(|(kind, _)| record_of(kind) == Some(record));
    of.any(|(_, of)| of.known != Known::Not)
}

/// Of several objects' records the names that whoever keeps them knows.
fn keys(records: &[Record]) -> Vec<Key> {
    records.iter().map(Record::key).collect()
}

fn stays_in_force(remark: &mut Remark) {
    if remark.severity == Severity::Rejected {
        remark.reason.push_str("; what it said before stays in force");
    }
}
