//! What time it is on machines whose clock begins at 1970.
//!
//! Edge boards without a battery boot in 1970 and stay there as long as nobody tells them the
//! time. The time here is the latest of the system's, the last one that was persisted, and the
//! start of this node's own certificate.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::identity::error::IdentityError;
use crate::identity::file;

/// Flash wears: the time is persisted at most this often, in seconds.
pub const PERSIST_EVERY: i64 = 3600;

const FILE: &str = "clock";

/// The clock of identities. Shared; see the module's documentation.
pub struct Clock {
    system: Box<dyn Fn() -> i64 + Send + Sync>,
    /// No earlier than this, in seconds since 1970.
    floor: AtomicI64,
    /// Nothing later is persisted: the end of this node's certificate. A system clock that once
    /// stood in 2099 would otherwise lock the node out for good.
    ceiling: AtomicI64,
    persisted: AtomicI64,
    file: Option<PathBuf>,
}

/// A reading of the [`Clock`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Seconds since 1970.
    pub seconds: i64,
    /// Whether the system's clock says so; else it is behind and this is the least it can be.
    pub is_sure: bool,
}

impl Clock {
    /// The system's clock, and what `data_dir` remembers of earlier runs. A file that cannot be
    /// read counts as absent.
    pub fn open(data_dir: &Path) -> Self {
        Self::with(Some(data_dir), system)
    }

    /// With the time of day from `system` (seconds since 1970), remembering in `data_dir`.
    pub fn with(data_dir: Option<&Path>, system: impl Fn() -> i64 + Send + Sync + 'static) -> Self {
        let file = data_dir.map(|folder| folder.join(FILE));
        let text = file.as_ref().and_then(|file| fs::read_to_string(file).ok());
        let persisted = text.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        Self {
            system: Box::new(system),
            floor: AtomicI64::new(persisted),
            ceiling: AtomicI64::new(0),
            persisted: AtomicI64::new(persisted),
            file,
        }
    }

    /// What time it is.
    pub fn now(&self) -> Now {
        let (system, floor) = ((self.system)(), self.floor.load(Ordering::Relaxed));
        Now { seconds: system.max(floor), is_sure: system >= floor }
    }

    /// Seconds since 1970.
    pub fn seconds(&self) -> i64 {
        self.now().seconds
    }

    /// Takes this node's own certificate into account.
    pub(super) fn learn(&self, not_before: i64, not_after: i64) {
        self.floor.fetch_max(not_before, Ordering::Relaxed);
        self.ceiling.fetch_max(not_after, Ordering::Relaxed);
    }

    /// Persists the time, if the last time is [`PERSIST_EVERY`] ago; to be called now and then.
    /// Says whether it wrote.
    ///
    /// # Errors
    /// When the file cannot be written; a later call tries again.
    pub fn persist(&self) -> Result<bool, IdentityError> {
        let Some(path) = &self.file else { return Ok(false) };
        let time = self.seconds().min(self.ceiling.load(Ordering::Relaxed));
        if time < self.persisted.load(Ordering::Relaxed).saturating_add(PERSIST_EVERY) {
            return Ok(false);
        }
        file::write(path, format!("{time}\n").as_bytes())?;
        self.persisted.store(time, Ordering::Relaxed);
        self.floor.fetch_max(time, Ordering::Relaxed);
        Ok(true)
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clock").field("now", &self.now()).field("file", &self.file).finish()
    }
}

/// Seconds since 1970 by the system's clock; before 1970 it is 1970.
fn system() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_secs().try_into().unwrap_or(i64::MAX)
}
