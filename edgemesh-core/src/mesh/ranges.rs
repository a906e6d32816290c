//! Where addresses of Services lie, as it was told last: in the status, and in a file for the next start,
//! when whoever tells it may be away.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use edgemesh_proto::message::MAX_RANGES;
use ipnet::IpNet;

use crate::io::{read_small_file, replace_file};
use crate::mesh::Mesh;
use crate::mesh::status::Cell;

/// Beside the metastore.
const FILE: &str = "service-cidrs.json";
/// Longest file that is read: as many ranges as are told have a tenth of it.
const MAX_FILE: u64 = 1 << 18;

/// What was told last to whoever had `folder`; nothing where nothing was.
pub fn kept_service_cidrs(folder: &Path) -> Arc<[IpNet]> {
    let Some(path) = place(folder) else { return Arc::default() };
    let kept = read(&path).unwrap_or_else(|error| {
        tracing::warn!(%error, "cannot read {}: it is told anew", path.display());
        Vec::new()
    });
    kept.into_iter().take(MAX_RANGES).collect()
}

impl Mesh {
    /// What was told last counts until something else is told.
    pub(super) fn remembering_ranges(self) -> Self {
        let kept = kept_service_cidrs(&self.options.data_dir);
        self.status.update(|status| status.service_cidrs = kept);
        self
    }
}

/// Puts in force and keeps what is told.
#[derive(Debug)]
pub(super) struct Ranges {
    /// `None` = nothing is kept.
    file: Option<PathBuf>,
}

impl Ranges {
    pub(super) fn new(folder: &Path) -> Self {
        Self { file: place(folder) }
    }

    /// These are all of them, and no others.
    pub(super) async fn told(&self, status: &Cell, ranges: Arc<[IpNet]>) {
        if status.get().service_cidrs == ranges {
            return;
        }
        tracing::info!(?ranges, "ServiceCIDRs");
        status.update(|status| status.service_cidrs = ranges.clone());
        status.records_changed();
        let Some(file) = self.file.clone() else { return };
        // Without it the next start knows less for a moment; nothing else depends on it.
        let written = tokio::task::spawn_blocking(move || write(&file, &ranges)).await;
        if let Ok(Err(error)) = written {
            tracing::warn!(%error, "cannot keep the ServiceCIDRs in {FILE}");
        }
    }
}

fn place(folder: &Path) -> Option<PathBuf> {
    // A mesh that keeps nothing has no folder.
    (!folder.as_os_str().is_empty()).then(|| folder.join(FILE))
}

fn read(path: &Path) -> io::Result<Vec<IpNet>> {
    let text = read_small_file(path, MAX_FILE)?;
    text.map_or_else(|| Ok(Vec::new()), |text| Ok(serde_json::from_slice(&text)?))
}

fn write(path: &Path, ranges: &[IpNet]) -> io::Result<()> {
    replace_file(path, &serde_json::to_vec(ranges)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(text: &[&str]) -> Arc<[IpNet]> {
        text.iter().map(|range| range.parse().unwrap()).collect()
    }

    #[tokio::test]
    async fn what_was_told_last_is_kept_and_wakes_who_waits() {
        let folder = tempfile::tempdir().unwrap();
        let (status, keeping) = (Cell::new(Vec::new(), false), Ranges::new(folder.path()));
        let mut changes = status.changes();
        assert_eq!(kept_service_cidrs(folder.path()), ranges(&[]));
        for (told, is_news) in [
            (&[][..], false),
            (&["10.96.0.0/12", "fd00::/108"], true),
            (&["10.96.0.0/12", "fd00::/108"], false),
            (&["10.96.0.0/16"], true),
            (&[], true),
        ] {
            keeping.told(&status, ranges(told)).await;
            assert_eq!(status.get().service_cidrs, ranges(told));
            assert_eq!(kept_service_cidrs(folder.path()), ranges(told));
            assert_eq!(changes.has_changed().unwrap(), is_news, "{told:?}");
            changes.mark_unchanged();
        }
    }

    #[tokio::test]
    async fn a_file_that_makes_no_sense_counts_as_none_and_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        for bad in ["", "{}", "[\"10.96.0.0/33\"]", "[7]"] {
            std::fs::write(folder.path().join(FILE), bad).unwrap();
            assert_eq!(kept_service_cidrs(folder.path()), ranges(&[]), "{bad}");
        }
        let status = Cell::new(Vec::new(), false);
        Ranges::new(folder.path()).told(&status, ranges(&["10.96.0.0/12"])).await;
        assert_eq!(kept_service_cidrs(folder.path()), ranges(&["10.96.0.0/12"]));
        // A mesh that keeps nothing, and a disk that takes nothing.
        for nowhere in [Path::new(""), Path::new("/proc/nowhere")] {
            Ranges::new(nowhere).told(&status, ranges(&[])).await;
            Ranges::new(nowhere).told(&status, ranges(&["10.0.0.0/8"])).await;
            assert_eq!(status.get().service_cidrs, ranges(&["10.0.0.0/8"]));
        }
    }
}
