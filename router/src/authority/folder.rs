//! The CA's files in the cloud's data folder, and the lock under which they are made.

use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use edgemesh_core::identity::{self, file};

use crate::authority::error::AuthorityError;

/// The data folder of a cloud, locked against others who would make a CA there at the same time.
/// The lock is not that of the registry: a running cloud does not hold this one.
pub(super) struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Makes the folder where it is missing, and waits for whoever is making a CA there.
    pub(super) fn enter(path: &Path) -> Result<Self, AuthorityError> {
        let enter = || {
            DirBuilder::new().recursive(true).mode(0o700).create(path)?;
            let lock = File::open(path)?;
            lock.lock()?;
            Ok(lock)
        };
        let lock =
            enter().map_err(|source| AuthorityError::Folder { folder: path.into(), source })?;
        Ok(Self { path: path.into(), _lock: lock })
    }

    /// Whether there is, or was, a CA in that folder.
    pub(super) fn is_used(path: &Path) -> bool {
        ["ca.key", "ca.crt", "ca.crt.coming", "authority.db"]
            .iter()
            .any(|one| path.join(one).exists())
    }

    /// Where tokens and names are noted.
    pub(super) fn book(&self) -> PathBuf {
        self.path.join("authority.db")
    }

    fn key(&self) -> PathBuf {
        self.path.join("ca.key")
    }

    fn certificate(&self) -> PathBuf {
        self.path.join("ca.crt")
    }

    /// A certificate whose key is about to be written: [`Folder::put`] may have been cut off.
    fn coming(&self) -> PathBuf {
        self.path.join("ca.crt.coming")
    }

    /// The CA that lies here, or a new one where there has never been any.
    pub(super) fn ca(&self, now: i64) -> Result<identity::Authority, AuthorityError> {
        if let Some(ca) = self.ca_there()? {
            return Ok(ca);
        }
        if self.book().exists() {
            return Err(self.missing("ca.key and ca.crt"));
        }
        let ca = identity::Authority::new(now)?;
        self.put(&ca)?;
        Ok(ca)
    }

    /// The CA that lies here.
    pub(super) fn ca_there(&self) -> Result<Option<identity::Authority>, AuthorityError> {
        let damaged = |source| AuthorityError::Damaged { folder: self.path.clone(), source };
        match (file::read(&self.key())?, file::read(&self.certificate())?) {
            (Some(key), Some(certificate)) => {
                let read = identity::Authority::from_pem(&format!("{key}{certificate}"));
                match (read, self.finish(&key)?) {
                    (Ok(ca), None) => Ok(Some(ca)),
                    (_, Some(ca)) => Ok(Some(ca)),
                    (Err(error), None) => Err(damaged(error)),
                }
            }
            (Some(key), None) => match self.finish(&key)? {
                Some(ca) => Ok(Some(ca)),
                None => Err(self.missing("ca.crt")),
            },
            (None, Some(_)) => Err(self.missing("ca.key")),
            (None, None) => Ok(None),
        }
    }

    /// Puts a CA here, in place of what was. A cut at any point leaves the old one or the new one.
    pub(super) fn put(&self, ca: &identity::Authority) -> Result<(), AuthorityError> {
        file::write(&self.coming(), ca.certificate_pem().as_bytes())?;
        file::write(&self.key(), ca.key_pem().as_bytes())?;
        self.arrive()
    }

    /// Ends a [`Folder::put`] that was cut off, if `key` is the one that was being put.
    fn finish(&self, key: &str) -> Result<Option<identity::Authority>, AuthorityError> {
        let Some(coming) = file::read(&self.coming())? else { return Ok(None) };
        let Ok(ca) = identity::Authority::from_pem(&format!("{key}{coming}")) else {
            return Ok(None);
        };
        self.arrive()?;
        Ok(Some(ca))
    }

    fn arrive(&self) -> Result<(), AuthorityError> {
        let arrive = || {
            fs::rename(self.coming(), self.certificate())?;
            File::open(&self.path)?.sync_all()
        };
        arrive().map_err(|source| AuthorityError::Folder { folder: self.path.clone(), source })
    }

    fn missing(&self, missing: &'static str) -> AuthorityError {
        AuthorityError::Missing { folder: self.path.clone(), missing }
    }
}
