//! What runs on this node: registrations, documents that ask for a check, and the health of both.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use edgemesh_proto::record::{Backend, Body, Key, NodeName, Record, ServiceName, Slice, Transport};
use tokio::sync::watch;
use tokio::time::Interval;

use crate::config::Check;
use crate::health::{Checker, Health, Target};
use crate::io::now;
use crate::manifests::{Remark, Severity};
use crate::mesh::source::every;
use crate::registrations::{
    Listed, Name, Registrations, Said, is_local, made, merge, own_addresses, service_in, slice_key,
};
use crate::snapshot::LOCAL_SLICES;
use crate::sync::Sync;

/// How often is looked whether the addresses of registrations are still this machine's.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// A place that is probed, and how it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// The Service that it backs.
    pub service: ServiceName,
    /// Where it listens.
    pub address: SocketAddr,
    /// What it must do.
    pub check: Check,
    /// What the last probes say.
    pub health: Health,
}

#[derive(Debug)]
pub(super) struct Local {
    node: NodeName,
    registrations: Registrations,
    checker: Checker,
    table: watch::Receiver<u64>,
    health: watch::Receiver<u64>,
    documents: Vec<Document>,
    /// This node's own folder, where other records come from a registry.
    folder: BTreeMap<Key, Record>,
    /// When to look at addresses; its time goes on while others are waited for, too.
    look: Interval,
    /// Registrations whose address this machine does not have, or not yet.
    away: BTreeSet<Name>,
}

/// A Slice of a document that asks for a check, as it was written.
#[derive(Debug)]
struct Document {
    key: Key,
    slice: Slice,
    check: Check,
}

/// Everything that is to be in force.
pub(super) struct Settled {
    pub(super) records: BTreeMap<Key, Record>,
    pub(super) remarks: Vec<Remark>,
    pub(super) checked: Arc<[Checked]>,
    pub(super) version: u64,
}

impl Local {
    pub(super) fn new(node: NodeName, registrations: Registrations, checker: Checker) -> Self {
        let (table, health) = (registrations.changes(), checker.changes());
        let (documents, folder, away) = (Vec::new(), BTreeMap::new(), BTreeSet::new());
        let look = every(LOOK_EVERY);
        Self { node, registrations, checker, table, health, documents, folder, look, away }
    }

    /// Notes which documents ask for a check, of all that were just read.
    pub(super) fn read(
        &mut self,
        records: &BTreeMap<Key, Record>,
        checks: &BTreeMap<ServiceName, Check>,
    ) {
        let document = |(key, record): (&Key, &Record)| {
            let Body::Slice(slice) = &record.body else { return None };
            let check = checks.get(&ServiceName::new(&key.namespace, &slice.service))?.clone();
            Some(Document { key: key.clone(), slice: slice.clone(), check })
        };
        self.documents = match checks.is_empty() {
            true => Vec::new(),
            false => records.iter().filter_map(document).collect(),
        };
    }

    /// Takes in what this node's own folder says, beside a registry.
    pub(super) fn read_own(
        &mut self,
        records: BTreeMap<Key, Record>,
        checks: &BTreeMap<ServiceName, Check>,
    ) {
        self.read(&records, checks);
        self.folder = records;
    }

    /// Resolves when something was signed up or off, fell ill or got well. Dropping the future
    /// loses nothing.
    pub(super) async fn changed(&mut self) {
        loop {
            let expiry = self.registrations.next_expiry();
            let looking = self.registrations.list().iter().any(leaves_loopback);
            tokio::select! {
                // Both senders live in `self`.
                Ok(()) = self.table.changed() => return,
                Ok(()) = self.health.changed() => return,
                () = until(expiry), if expiry.is_some() => self.expire(),
                _ = self.look.tick(), if looking => {
                    if self.away != away(&self.registrations.list()) {
                        return;
                    }
                }
            }
        }
    }

    fn expire(&self) {
        let gone = self.registrations.expire(now());
        if gone.is_empty() {
            return;
        }
        for name in gone {
            tracing::info!(%name, "a registration was not renewed in time and is gone");
        }
        let registrations = self.registrations.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(error) = registrations.save() {
                tracing::warn!(error = &error as &dyn std::error::Error, "an end is not kept");
            }
        });
    }

    /// Adds what runs here to what the sources say: to `read`, or to what is in force.
    pub(super) fn settle(&mut self, sync: &Sync, read: Option<BTreeMap<Key, Record>>) -> Settled {
        let in_force = || {
            let theirs = sync.records().into_iter().filter(|record| !is_local(record));
            theirs.map(|record| (record.key(), record)).collect()
        };
        let mut records = read.unwrap_or_else(in_force);
        let (version, listed, checked) = self.look();
        self.judge_documents(&mut records);
        let ready = |one: &Listed| self.is_ready(one, sync);
        let said = merge(&mut records, &listed, &self.node, ready);
        Settled { records, remarks: self.remarks(said), checked, version }
    }

    /// What this node says of itself, beside a registry whose Services `sync` knows.
    pub(super) fn settle_own(&mut self, sync: &Sync) -> Settled {
        let (version, listed, checked) = self.look();
        let mut records = self.folder.clone();
        self.judge_documents(&mut records);
        let known = |name: &ServiceName| {
            sync.synced_service(name).or_else(|| service_in(&self.folder, name))
        };
        let ready = |one: &Listed| self.is_ready(one, sync);
        let (made, said) = made(known, &listed, &self.node, ready);
        let own = records.into_values().map(|record| self.of_this_node(record));
        let records = own.chain(made).map(|record| (record.key(), record)).collect();
        Settled { records, remarks: self.remarks(said), checked, version }
    }

    /// A Slice whose Backends run here is one of this node's: for them it stands in the place of
    /// what others say.
    fn of_this_node(&self, mut record: Record) -> Record {
        let Body::Slice(slice) = &mut record.body else { return record };
        let here = |b: &Backend| b.node.as_ref().is_none_or(|node| *node == self.node);
        if slice.backends.iter().all(here) && !record.name.starts_with(LOCAL_SLICES) {
            slice.backends.iter_mut().for_each(|b| b.node = Some(self.node.clone()));
            record.name = format!("{LOCAL_SLICES}{}", record.name).into();
        }
        record
    }

    /// What is signed up now, and how it is.
    fn look(&mut self) -> (u64, Vec<Listed>, Arc<[Checked]>) {
        let version = *self.table.borrow_and_update();
        self.health.mark_unchanged();
        let listed = self.registrations.list();
        let mut checked = self.places(&listed);
        self.checker
            .watch(checked.iter().map(|c| Target::new(c.address, c.check.clone())).collect());
        for place in &mut checked {
            let target = Target::new(place.address, place.check.clone());
            place.health = self.checker.health(&target).unwrap_or_default();
        }
        self.away = away(&listed);
        (version, listed, checked.into())
    }

    fn remarks(&self, said: Vec<Said>) -> Vec<Remark> {
        let reason = "its address is not one of this machine now";
        let away = self.away.iter().map(|name| Said { name: name.clone(), reason: reason.into() });
        said.into_iter().chain(away).map(remark).collect()
    }

    /// What [`Local::settle`] gave is visible now.
    pub(super) fn settled(&self, version: u64) {
        self.registrations.settled(version);
    }

    fn places(&self, listed: &[Listed]) -> Vec<Checked> {
        let registered = listed.iter().filter_map(|one| {
            let Target { address, check } = one.registration.target()?;
            Some(Checked { service: one.name.service(), address, check, health: Health::Unknown })
        });
        let documents = self.documents.iter().flat_map(|document| {
            let service = ServiceName::new(&document.key.namespace, &document.slice.service);
            let place = move |address| Checked {
                service: service.clone(),
                address,
                check: document.check.clone(),
                health: Health::Unknown,
            };
            let backends = document.slice.backends.iter();
            backends.filter_map(|b| self.address(document, b)).map(place)
        });
        let mut seen = BTreeSet::new();
        let mut all: Vec<_> = registered.chain(documents).collect();
        all.retain(|c| seen.insert((c.service.clone(), c.address, c.check.clone())));
        all
    }

    /// Where a Backend of a document is probed: at the first TCP port, if it is this node's or
    /// nobody's. Others are probed by their own node.
    fn address(&self, document: &Document, backend: &Backend) -> Option<SocketAddr> {
        let ours = backend.node.as_ref().is_none_or(|node| *node == self.node);
        let port = document.slice.ports.iter().find(|port| port.transport == Transport::Tcp)?;
        let address = backend.addresses.first().filter(|_| ours)?;
        Some(SocketAddr::new(*address, port.port.get()))
    }

    /// Who is unhealthy takes no calls, whatever the document says.
    fn judge_documents(&self, records: &mut BTreeMap<Key, Record>) {
        for document in &self.documents {
            let mut slice = document.slice.clone();
            for backend in &mut slice.backends {
                let target = self.address(document, backend);
                let health = target
                    .and_then(|at| self.checker.health(&Target::new(at, document.check.clone())));
                if matches!(health, Some(Health::Unhealthy(_))) {
                    (backend.ready, backend.serving) = (false, false);
                }
            }
            if let Some(record) = records.get_mut(&document.key) {
                record.body = Body::Slice(slice);
            }
        }
    }

    /// Until a probe has ended it is as it was: a restart of the agent is no illness.
    fn is_ready(&self, one: &Listed, sync: &Sync) -> bool {
        if self.away.contains(&one.name) {
            return false;
        }
        let Some(target) = one.registration.target() else { return true };
        match self.checker.health(&target).unwrap_or_default() {
            Health::Healthy => true,
            Health::Unhealthy(_) => false,
            Health::Unknown => {
                let before = sync.slice(&slice_key(&one.name).into());
                before.is_some_and(|slice| slice.backends.iter().all(|backend| backend.ready))
            }
        }
    }
}

const fn leaves_loopback(one: &Listed) -> bool {
    !one.registration.address.is_loopback()
}

/// Those whose address this machine does not have.
fn away(listed: &[Listed]) -> BTreeSet<Name> {
    if !listed.iter().any(leaves_loopback) {
        return BTreeSet::new();
    }
    // Where the kernel does not say, nothing is known against them.
    let Ok(own) = own_addresses() else { return BTreeSet::new() };
    let away = listed.iter().filter(|one| !one.registration.is_at(&own));
    away.map(|one| one.name.clone()).collect()
}

async fn until(expiry: Option<Instant>) {
    let left = expiry.map_or(Duration::ZERO, |at| at.saturating_duration_since(now()));
    tokio::time::sleep(left).await;
}

fn remark(Said { name, reason }: Said) -> Remark {
    Remark {
        severity: Severity::Note,
        file: PathBuf::new(),
        line: 0,
        object: format!("Registration {name}"),
        field: String::new(),
        reason: format!("has no effect: {reason}"),
    }
}
