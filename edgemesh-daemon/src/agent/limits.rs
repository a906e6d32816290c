//! Limits of the process: as many open files as the system grants, and what fits into them.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Files that are not connections: store, listeners, logs, and room.
const SET_ASIDE: u64 = 256;
/// A connection and its other half.
const FILES_A_CONNECTION: u64 = 2;
/// More connections than this need more memory than an edge machine has.
const MOST: u64 = 200_000;

/// Raises the limit on open files to what is allowed, and returns how many connections fit.
pub(super) fn raise_open_files() -> usize {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return 1024 };
    let open = match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(_) => soft,
    };
    let fits = open.saturating_sub(SET_ASIDE) / FILES_A_CONNECTION;
    usize::try_from(fits.clamp(64, MOST)).unwrap_or(1024)
}
