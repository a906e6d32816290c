//! The table on the disk: `registrations.json`, replaced whole.

use std::io;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::io::{read_small_file, replace_file};
use crate::registrations::{Listed, Name, Registration};

/// Beside the metastore.
const FILE: &str = "registrations.json";
/// Longest file that is read: a thousand registrations have a tenth of it.
const MAX_FILE: u64 = 4 << 20;

/// The disk does not take the table.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {path}: after a restart of the agent this is forgotten")]
pub struct SaveError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

#[derive(Debug)]
pub(super) struct File {
    /// `None` = nothing is kept.
    path: Option<PathBuf>,
    /// Writers wait for each other, so that the newest table is the last that is written.
    writing: Mutex<()>,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    name: Name,
    registration: Registration,
}

impl File {
    pub(super) fn open(folder: &Path) -> (Self, Vec<(Name, Registration)>) {
        if folder.as_os_str().is_empty() {
            return (Self::nowhere(), Vec::new()); // a mesh that keeps nothing
        }
        let path = folder.join(FILE);
        let kept = read(&path).unwrap_or_else(|error| {
            let path = path.display();
            tracing::warn!(%error, "cannot read {path}: no registration is kept; renew them");
            Vec::new()
        });
        let valid = kept.into_iter().filter(|kept| kept.name.is_valid());
        let kept = valid.map(|kept| (kept.name, kept.registration)).collect();
        (Self { path: Some(path), writing: Mutex::default() }, kept)
    }

    pub(super) fn nowhere() -> Self {
        Self { path: None, writing: Mutex::default() }
    }

    /// Writes what `list` gives once it is this writer's turn.
    pub(super) fn save(&self, list: impl FnOnce() -> Vec<Listed>) -> Result<(), SaveError> {
        let Some(path) = &self.path else { return Ok(()) };
        let _turn = self.writing.lock();
        let kept = list()
            .into_iter()
            .map(|Listed { name, registration, .. }| Kept { name, registration })
            .collect::<Vec<_>>();
        let wrong = |source| SaveError { path: path.clone(), source };
        let text = serde_json::to_vec_pretty(&kept).map_err(|error| wrong(error.into()))?;
        replace_file(path, &text).map_err(wrong)
    }
}

fn read(path: &Path) -> io::Result<Vec<Kept>> {
    let text = read_small_file(path, MAX_FILE)?;
    text.map_or_else(|| Ok(Vec::new()), |text| Ok(serde_json::from_slice(&text)?))
}
