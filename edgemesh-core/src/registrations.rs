//! What runs on this machine and was signed up by hand or by itself: a table with times to live, kept on disk.
//!
//! [`Registrations`] is shared: whoever signs something up writes it, the one that follows the
//! sources reads it and makes Service and Slice records of it ([`merge`]). The time comes in as
//! an argument. A restart begins each time to live anew, since nobody could renew meanwhile and
//! an edge board's clock cannot say how long it was off.

mod file;
mod merge;
mod name;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::{NonZeroU16, NonZeroU32};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::config::Check;
use crate::health::Target;
pub(crate) use crate::io::own_addresses;

pub use file::SaveError;
pub(crate) use merge::{Said, is_local, made, merge, service_in, slice_key};
pub use name::Name;

/// Most registrations of one node.
pub const MAX_REGISTRATIONS: usize = 1000;
/// Longest time to live, in seconds: a day.
pub const MAX_TTL: u32 = 86_400;
/// Longest wait until a registration is part of the Snapshot.
const SETTLED_WITHIN: Duration = Duration::from_secs(3);

/// One process or device that backs a Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Registration {
    /// Where it listens.
    pub port: NonZeroU16,
    /// The address it listens at: one of this machine.
    #[serde(default = "loopback")]
    pub address: IpAddr,
    /// The Service's port that it backs; `None` = the one port of a Service that is there, and 80
    /// and `port` of one that is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_port: Option<NonZeroU16>,
    /// `appProtocol`; `None` = found out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Box<str>>,
    /// What it must do to get calls; `None` = nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<Check>,
    /// Seconds after which it goes unless it is renewed; `None` = it stays until it is removed.
    #[serde(default, rename = "ttlSeconds", skip_serializing_if = "Option::is_none")]
    pub ttl: Option<NonZeroU32>,
    /// The zone it runs in; `None` = that of the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<Box<str>>,
}

/// A registration as it stands.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Service and id.
    pub name: Name,
    /// What was said.
    pub registration: Registration,
    /// When it goes.
    pub expires: Option<Instant>,
}

/// Why something cannot be signed up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct Rejected {
    /// The field that is to blame, as JSON names it.
    pub field: &'static str,
    /// What is wrong with it, and what would be right.
    pub reason: String,
}

/// The table. Clones share it.
#[derive(Clone, Debug)]
pub struct Registrations(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    table: Mutex<Table>,
    file: file::File,
    /// Version of the table; renewals do not count.
    changed: watch::Sender<u64>,
    /// Version that the Snapshot shows.
    settled: watch::Sender<u64>,
}

type Table = BTreeMap<Name, Entry>;

#[derive(Debug)]
struct Entry {
    registration: Registration,
    expires: Option<Instant>,
}

const fn loopback() -> IpAddr {
    IpAddr::V4(Ipv4Addr::LOCALHOST)
}

impl Registrations {
    /// The table that `folder` holds; each time to live begins at `now`. A file that cannot be
    /// read is reported in the log and the table begins empty. Blocks, briefly.
    pub fn open(folder: &Path, now: Instant) -> Self {
        let (file, kept) = file::File::open(folder);
        let this = Self::new(file);
        let entry = |(name, registration): (Name, Registration)| {
            // An address that is not there may come later, as after a boot.
            let expires = registration.expires(now);
            (name, Entry { registration, expires })
        };
        let table = kept.into_iter().take(MAX_REGISTRATIONS).map(entry).collect();
        *this.0.table.lock() = table;
        this
    }

    /// An empty table that is kept nowhere: what an application signs up with itself ends with it.
    pub fn nowhere() -> Self {
        Self::new(file::File::nowhere())
    }

    fn new(file: file::File) -> Self {
        let (changed, settled) = (watch::Sender::new(0), watch::Sender::new(0));
        Self(Arc::new(Inner { table: Mutex::default(), file, changed, settled }))
    }

    /// Signs something up, or renews it. Returns when the Snapshot shows it.
    ///
    /// # Errors
    /// [`Rejected`] names the field that does not fit.
    pub async fn put(
        &self,
        name: Name,
        mut registration: Registration,
        now: Instant,
    ) -> Result<Result<(), SaveError>, Rejected> {
        registration.address = registration.address.to_canonical();
        registration.check()?;
        let expires = registration.expires(now);
        {
            let mut table = self.0.table.lock();
            if table.len() >= MAX_REGISTRATIONS && !table.contains_key(&name) {
                let reason = format!("{MAX_REGISTRATIONS} registrations are there, the most");
                return Err(Rejected { field: "id", reason });
            }
            if let Some(known) = table.get_mut(&name)
                && known.registration == registration
            {
                known.expires = expires;
                return Ok(Ok(()));
            }
            table.insert(name, Entry { registration, expires });
        }
        Ok(self.altered().await)
    }

    /// Takes one away; whether it was there.
    pub async fn remove(&self, name: &Name) -> bool {
        let known = self.0.table.lock().remove(name).is_some();
        if known && let Err(error) = self.altered().await {
            tracing::warn!(error = &error as &dyn std::error::Error, "a removal is not kept");
        }
        known
    }

    /// Takes away what was not renewed in time; gives their names.
    pub(crate) fn expire(&self, now: Instant) -> Vec<Name> {
        let over = |entry: &Entry| entry.expires.is_some_and(|at| at <= now);
        let mut gone = Vec::new();
        self.0.table.lock().retain(|name, entry| {
            let over = over(entry);
            if over {
                gone.push(name.clone());
            }
            !over
        });
        if !gone.is_empty() {
            self.0.changed.send_modify(|n| *n += 1);
        }
        gone
    }

    /// When the next one goes.
    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        self.0.table.lock().values().filter_map(|entry| entry.expires).min()
    }

    /// All of them, sorted by name.
    pub fn list(&self) -> Vec<Listed> {
        let table = self.0.table.lock();
        let listed = |(name, entry): (&Name, &Entry)| Listed {
            name: name.clone(),
            registration: entry.registration.clone(),
            expires: entry.expires,
        };
        table.iter().map(listed).collect()
    }

    /// Wakes when the table is another one.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.0.changed.subscribe()
    }

    /// The Snapshot shows what the table was at `version`.
    pub(crate) fn settled(&self, version: u64) {
        self.0.settled.send_replace(version);
    }

    /// Writes the table to the disk. Blocks.
    pub(crate) fn save(&self) -> Result<(), SaveError> {
        self.0.file.save(|| self.list())
    }

    /// After a change: kept on the disk, then seen by everybody.
    async fn altered(&self) -> Result<(), SaveError> {
        let version = {
            let mut version = 0;
            self.0.changed.send_modify(|n| {
                *n += 1;
                version = *n;
            });
            version
        };
        let this = self.clone();
        let saved = tokio::task::spawn_blocking(move || this.save()).await;
        let mut settled = self.0.settled.subscribe();
        // Nobody follows the sources yet, or they are slow: then it is seen a little later.
        let seen = settled.wait_for(|seen| *seen >= version);
        let _ = tokio::time::timeout(SETTLED_WITHIN, seen).await;
        saved.unwrap_or(Ok(())) // an end of the runtime, which nobody waits for
    }
}

impl Registration {
    /// Something that listens on a port of loopback, without check and end.
    pub const fn at(port: NonZeroU16) -> Self {
        Self {
            port,
            address: loopback(),
            service_port: None,
            protocol: None,
            check: None,
            ttl: None,
            zone: None,
        }
    }

    /// Where it listens.
    pub const fn listens(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.port.get())
    }

    /// What is to be probed.
    pub fn target(&self) -> Option<Target> {
        Some(Target::new(self.listens(), self.check.clone()?))
    }

    fn expires(&self, now: Instant) -> Option<Instant> {
        self.ttl.map(|ttl| now + Duration::from_secs(ttl.get().into()))
    }

    fn check(&self) -> Result<(), Rejected> {
        self.on_this_machine()?;
        if self.ttl.is_some_and(|ttl| ttl.get() > MAX_TTL) {
            let reason = format!("at most {MAX_TTL} (a day); leave it out for no end");
            return Err(Rejected { field: "ttlSeconds", reason });
        }
        name::word("protocol", self.protocol.as_deref())?;
        name::word("zone", self.zone.as_deref())
    }

    /// A node speaks for itself only.
    fn on_this_machine(&self) -> Result<(), Rejected> {
        let address = self.address;
        let wrong = |reason: String| Err(Rejected { field: "address", reason });
        if address.is_unspecified() {
            return wrong(format!("{address} is every address; name one, such as 127.0.0.1"));
        }
        if let IpAddr::V6(v6) = address
            && v6.is_unicast_link_local()
        {
            return wrong(format!("{address} is link-local, which no call can reach by itself"));
        }
        match own_addresses() {
            Err(error) => wrong(format!("cannot list this machine's addresses: {error}")),
            Ok(own) if self.is_at(&own) => Ok(()),
            Ok(_) => wrong(format!(
                "{address} is not an address of this machine; sign it up on the machine it \
                 runs on, or write an EndpointSlice for what is elsewhere"
            )),
        }
    }

    /// Whether it is on the machine that has these addresses.
    pub(crate) fn is_at(&self, own: &BTreeSet<IpAddr>) -> bool {
        self.address.is_loopback() || own.contains(&self.address)
    }
}

#[cfg(test)]
mod tests;
