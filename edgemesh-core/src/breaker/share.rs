//! The lock of a pool in which a Backend is being ejected.

use parking_lot::{Mutex, MutexGuard};

/// Two failures at once must not eject one Backend more than a pool may lose: who ejects holds
/// this from the count to the deed. Nobody else needs it.
#[derive(Debug, Default)]
pub struct Ejecting(Mutex<()>);

/// See [`Ejecting`].
#[derive(Debug)]
pub struct Held<'p>(#[expect(dead_code, reason = "is held, not read")] MutexGuard<'p, ()>);

impl Ejecting {
    /// Nobody ejects.
    pub const fn new() -> Self {
        Self(Mutex::new(()))
    }

    /// Waits until nobody else ejects in this pool: for as long as it takes to count it.
    pub fn hold(&self) -> Held<'_> {
        Held(self.0.lock())
    }
}
