//! Opening a metastore whatever its state: sound, damaged, foreign, newer, locked or read-only.
//!
//! The ladder: the file itself → the last good copy → empty. What is left behind is moved aside
//! first, never overwritten. A file that is not ours is never touched.

use std::io;
use std::path::Path;

use crate::store::database::{Contents, Database, has_our_tables};
use crate::store::errors::OpenError;
use crate::store::folder::{Access, Folder, Lock, META, Owner};
use crate::store::repair::Repair;
use crate::store::sqlite::Fault;
use crate::store::{Loaded, schema};

/// What the owner thread gets, and what the caller gets.
pub(super) struct Opened {
    pub(super) folder: Folder,
    pub(super) lock: Option<Lock>,
    /// Absent when it can only be read.
    pub(super) database: Option<Database>,
    pub(super) loaded: Loaded,
    pub(super) repairs: Vec<Repair>,
}

/// Opens the metastore in `path`; see [`crate::store::Store::open`].
pub(super) fn open(path: &Path) -> Result<Opened, OpenError> {
    let folder = Folder::new(path, &META);
    match folder.enter()? {
        Access::Write(lock) => Opening { folder, repairs: Vec::new() }.write(lock),
        Access::Read(lock, error) => Opening { folder, repairs: Vec::new() }.read(lock, error),
    }
}

struct Opening {
    folder: Folder,
    repairs: Vec<Repair>,
}

impl Opening {
    fn write(mut self, mut lock: Lock) -> Result<Opened, OpenError> {
        let meta = self.folder.database();
        let owner = self.owner(lock.used_before())?;
        self.io(&self.folder.fresh(), self.folder.clear_fresh())?;
        let attempt = match owner {
            Owner::Missing => Err(Fault::Damaged("there is a log but no database".into())),
            Owner::Ours => attempt(&meta),
            Owner::UnmarkedDatabase => Err(Fault::Damaged("its mark is gone".into())),
            Owner::NoDatabase => Err(Fault::Damaged("it is no database any more".into())),
        };
        let (database, contents) = match attempt {
            Ok((database, contents)) if contents.sound => (Some(database), contents),
            Ok((database, _)) => self.altered(database)?,
            Err(Fault::Damaged(why)) => self.replace(&why)?,
            Err(Fault::Newer(found)) => return Err(newer(&meta, found)),
            Err(Fault::Unreachable(error)) => {
                let contents = self.fall_back_to_reading(&error)?;
                (None, contents)
            }
        };
        lock.mark_used();
        Ok(self.finish(Some(lock), database, contents))
    }

    /// The folder cannot be written: the metastore, else its good copy, as it lies there.
    fn read(mut self, lock: Option<Lock>, error: io::Error) -> Result<Opened, OpenError> {
        let meta = self.folder.database();
        let used = lock.as_ref().is_some_and(Lock::used_before);
        if self.owner(used)? == Owner::Missing && !self.folder.good().exists() {
            return Err(OpenError::Unwritable { folder: self.folder.path().into(), source: error });
        }
        self.repairs.push(Repair::ReadOnly { file: meta.clone(), why: error.to_string().into() });
        let fault = match attempt_reading(&meta) {
            Ok((_, contents)) if contents.sound => return Ok(self.finish(lock, None, contents)),
            Ok((_, mut contents)) => {
                self.repairs.push(Repair::Altered { file: meta });
                contents.loaded.forget_epoch();
                return Ok(self.finish(lock, None, contents));
            }
            Err(Fault::Newer(found)) => return Err(newer(&meta, found)),
            Err(fault) => fault,
        };
        match self.good_copy() {
            Some(contents) => {
                let (from, revision) = (self.folder.good(), contents.loaded.revision);
                self.repairs.push(Repair::Restored { from, revision });
                Ok(self.finish(lock, None, contents))
            }
            None => Err(give_up(&meta, fault)),
        }
    }

    /// Whose the file is; an error when it is somebody else's.
    fn owner(&self, used_before: bool) -> Result<Owner, OpenError> {
        let meta = self.folder.database();
        let foreign = |what: &str| OpenError::Foreign { file: meta.clone(), what: what.into() };
        let owner = self.io(&meta, self.folder.owner())?;
        match owner {
            Owner::Missing | Owner::Ours => {}
            // What cannot be read any more was ours if this folder was.
            Owner::UnmarkedDatabase => match has_our_tables(&meta) {
                Ok(true) => {}
                Ok(false) => return Err(foreign("another program's SQLite database")),
                Err(_) if used_before => {}
                Err(_) => return Err(foreign("a SQLite database that cannot be read")),
            },
            Owner::NoDatabase if used_before => {}
            Owner::NoDatabase => return Err(foreign("a file of another kind")),
        }
        Ok(owner)
    }

    /// The records are readable but not those that were stored.
    fn altered(&mut self, mut database: Database) -> Result<Ready, OpenError> {
        let meta = self.folder.database();
        if self.good_copy().is_some() {
            drop(database);
            return self.replace("its records are not those that were stored");
        }
        // Better a node that serves one wrong record until the next sync than one that serves
        // nothing.
        self.repairs.push(Repair::Altered { file: meta.clone() });
        match database.adopt_altered().and_then(|()| database.load()) {
            Ok(contents) => Ok((Some(database), contents)),
            Err(fault) => Err(give_up(&meta, fault)),
        }
    }

    /// Puts the good copy, else an empty database, in the place of what is there.
    fn replace(&mut self, why: &str) -> Result<Ready, OpenError> {
        let (meta, fresh) = (self.folder.database(), self.folder.fresh());
        // A finding about the copy is told once, also when `altered` looked before.
        self.repairs.retain(|repair| !matches!(repair, Repair::CopyUnusable { .. }));
        let restored = self.good_copy().map(|copy| copy.loaded.revision);
        let made = match restored {
            Some(_) => std::fs::copy(self.folder.good(), &fresh).map(drop),
            None => Database::create(&fresh).map_err(|error| io::Error::other(error.to_string())),
        };
        // Only when the successor is whole does the old file leave its place.
        if let Err(error) = made {
            // A full disk: the copy itself can still be moved, for that needs no space.
            let Some(_) = restored else { return self.io(&fresh, Err(error)) };
            self.io(&fresh, self.folder.clear_fresh())?;
            self.io(&fresh, std::fs::rename(self.folder.good(), &fresh))?;
        }
        let moved = self.io(&meta, self.folder.move_aside(why))?;
        let anything_lost = !moved.is_empty();
        self.repairs.extend(moved);
        self.io(&meta, self.folder.put_in_place(&meta))?;
        match restored {
            Some(revision) => {
                self.repairs.push(Repair::Restored { from: self.folder.good(), revision });
            }
            None if anything_lost => self.repairs.push(Repair::BeganEmpty { file: meta.clone() }),
            None => {}
        }
        let opened = Database::open(&meta).and_then(|database| {
            if restored.is_some() {
                database.count_anew()?;
            }
            loaded(database)
        });
        match opened {
            Ok((database, contents)) => Ok((Some(database), contents)),
            Err(Fault::Unreachable(error)) => Ok((None, self.fall_back_to_reading(&error)?)),
            Err(fault) => Err(give_up(&meta, fault)),
        }
    }

    /// The content of the last good copy, if it is one.
    fn good_copy(&mut self) -> Option<Contents> {
        let file = self.folder.good();
        let why: Box<str> = match Owner::of(&file, &META) {
            Ok(Owner::Missing) => return None,
            Ok(Owner::UnmarkedDatabase | Owner::NoDatabase) => "it is none of ours".into(),
            Err(error) => error.to_string().into(),
            Ok(Owner::Ours) => match attempt_reading(&file) {
                Ok((_, contents)) if contents.sound => return Some(contents),
                Ok(_) => "its records are not those that were stored".into(),
                Err(Fault::Damaged(why)) => why,
                Err(Fault::Newer(found)) => format!("schema {found} is newer").into(),
                Err(Fault::Unreachable(error)) => error.to_string().into(),
            },
        };
        self.repairs.push(Repair::CopyUnusable { file, why });
        None
    }

    /// The disk is full or fails: what can be read is served; the owner thread tries to write
    /// again with each change.
    fn fall_back_to_reading(&mut self, error: &rusqlite::Error) -> Result<Contents, OpenError> {
        let file = self.folder.database();
        match attempt_reading(&file) {
            Ok((_, mut contents)) => {
                if !contents.sound {
                    self.repairs.push(Repair::Altered { file: file.clone() });
                    contents.loaded.forget_epoch();
                }
                self.repairs.push(Repair::ReadOnly { file, why: error.to_string().into() });
                Ok(contents)
            }
            Err(fault) => Err(give_up(&file, fault)),
        }
    }

    fn finish(
        mut self,
        lock: Option<Lock>,
        database: Option<Database>,
        contents: Contents,
    ) -> Opened {
        self.repairs.extend(contents.skipped);
        let Self { folder, repairs } = self;
        Opened { folder, lock, database, loaded: contents.loaded, repairs }
    }

    fn io<T>(&self, file: &Path, result: io::Result<T>) -> Result<T, OpenError> {
        result.map_err(|source| OpenError::Io { file: file.to_path_buf(), source })
    }
}

/// A database to write to, where that is possible, and what it holds.
type Ready = (Option<Database>, Contents);

fn attempt(file: &Path) -> Result<(Database, Contents), Fault> {
    Database::open(file).and_then(loaded)
}

fn loaded(mut database: Database) -> Result<(Database, Contents), Fault> {
    let contents = database.load()?;
    Ok((database, contents))
}

fn attempt_reading(file: &Path) -> Result<(Database, Contents), Fault> {
    Database::open_read_only(file).and_then(loaded)
}

fn give_up(file: &Path, fault: Fault) -> OpenError {
    schema::META.not_opened(file, fault)
}

fn newer(file: &Path, found: u32) -> OpenError {
    give_up(file, Fault::Newer(found))
}
