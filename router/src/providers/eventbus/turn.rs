//! Whose turn it is: of two processes of one node, as in a hand-over, one is the client of the broker.
//!
//! A broker knows a client by its name, and ends the connection of whoever had that name before. What that
//! one had under way would come again. So it ends with that first, and the kernel knows when it has.

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;
use std::time::Duration;

use edgemesh_core::io::now;
use tokio::time::sleep;

use crate::providers::eventbus::session::LAST_WITHIN;

/// How often the lock is tried.
const AGAIN: Duration = Duration::from_millis(50);
/// What the other one needs beyond the time for its last messages.
const BEYOND: Duration = Duration::from_secs(5);

/// Waits for our turn, which ends when the file is dropped. `None`: it cannot be known, or the other one
/// does not end.
pub(super) async fn turn(file: &Path) -> Option<File> {
    match lock(file).await {
        Ok(lock) => Some(lock),
        Err(error) => {
            let file = file.display();
            tracing::warn!(%file, %error, "cannot wait for another process to leave the broker");
            None
        }
    }
}

async fn lock(file: &Path) -> io::Result<File> {
    let lock = File::options().create(true).truncate(false).write(true).open(file)?;
    let end = now() + LAST_WITHIN + BEYOND;
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(lock),
            Err(TryLockError::WouldBlock) if now() < end => sleep(AGAIN).await,
            Err(TryLockError::WouldBlock) => {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "it does not end"));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}
