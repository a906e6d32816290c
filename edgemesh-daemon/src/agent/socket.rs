//! `dataDir/mesh.sock`: the admin API for programs of this machine, by file permissions.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

/// Beside the metastore.
const NAME: &str = "mesh.sock";
/// Bound under this name first, so that nobody sees the socket with other permissions.
const NEXT: &str = "mesh.next";
/// Its owner and group may connect.
const MODE: u32 = 0o660;
/// Longest path of a unix socket, in bytes (`sun_path` without its last zero).
const MAX_PATH: usize = 107;

/// A bound socket; its file goes with it.
#[derive(Debug)]
pub(super) struct Socket {
    listener: UnixListener,
    file: Gone,
}

/// Removes the file when dropped, unless it is that of another agent by then.
#[derive(Debug)]
pub(super) struct Gone {
    path: PathBuf,
    inode: u64,
}

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub(super) enum SocketError {
    #[error("{0} is {len} bytes long, and a socket's path has at most {MAX_PATH}: choose a shorter dataDir", len = .0.as_os_str().len())]
    TooLong(PathBuf),
    #[error("{0} is there and is no socket: move it away")]
    Taken(PathBuf),
    #[error("cannot listen on {path}")]
    Bind { path: PathBuf, source: io::Error },
}

impl Socket {
    /// Binds it, or says in the log why not: without it everything else works.
    pub(super) fn open(folder: &Path) -> Option<Self> {
        let told = |error: &SocketError| {
            tracing::warn!(error = error as &dyn std::error::Error, "no socket for programs");
        };
        Self::bind(folder).inspect_err(told).ok()
    }

    /// Binds it in `folder`, which this agent has locked: what is left there is nobody's.
    fn bind(folder: &Path) -> Result<Self, SocketError> {
        let (path, next) = (folder.join(NAME), folder.join(NEXT));
        if path.as_os_str().len() > MAX_PATH {
            return Err(SocketError::TooLong(path));
        }
        let is_socket =
            |path: &Path| std::fs::symlink_metadata(path).map(|file| file.file_type().is_socket());
        if is_socket(&path).is_ok_and(|socket| !socket) {
            return Err(SocketError::Taken(path));
        }
        let bound = || {
            if is_socket(&next).unwrap_or(false) {
                std::fs::remove_file(&next)?;
            }
            let listener = UnixListener::bind(&next)?;
            std::fs::set_permissions(&next, Permissions::from_mode(MODE))?;
            std::fs::rename(&next, &path)?;
            listener.set_nonblocking(true)?;
            let inode = std::fs::symlink_metadata(&path)?.ino();
            Ok((listener, inode))
        };
        match bound() {
            Ok((listener, inode)) => Ok(Self { listener, file: Gone { path, inode } }),
            Err(source) => Err(SocketError::Bind { path, source }),
        }
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.file.path
    }

    /// The listener, and the guard of its file.
    pub(super) fn into_parts(self) -> (UnixListener, Gone) {
        (self.listener, self.file)
    }
}

impl Drop for Gone {
    fn drop(&mut self) {
        let there = std::fs::symlink_metadata(&self.path);
        if there.is_ok_and(|file| file.ino() == self.inode)
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            tracing::debug!(%error, "the socket's file was gone already");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_stale_socket_is_replaced_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(NAME);
        drop(UnixListener::bind(&path).unwrap()); // of an agent that was killed
        let socket = Socket::bind(folder.path()).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);
        UnixStream::connect(socket.path()).unwrap();
        let next = Socket::bind(folder.path()).unwrap(); // an agent that takes over
        drop(socket.into_parts());
        UnixStream::connect(&path).unwrap();
        drop(next.into_parts());
        assert!(!path.exists());

        std::fs::write(&path, "mine").unwrap();
        let error = Socket::bind(folder.path()).unwrap_err().to_string();
        assert!(error.contains("is no socket"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");

        let deep = folder.path().join("x".repeat(MAX_PATH));
        let error = Socket::bind(&deep).unwrap_err().to_string();
        assert!(error.contains("at most 107: choose a shorter dataDir"), "{error}");
    }
}
