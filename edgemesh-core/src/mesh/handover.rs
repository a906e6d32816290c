//! Hand-over to another process: the store is given up, then the sockets, and at last what is open.
//!
//! In between, flows go on being decided by the Snapshot in force, which no longer changes.

use std::time::Duration;

use crate::io::now;
use crate::mesh::source::Ended;
use crate::mesh::{Mesh, OpenError};
use crate::store::Store;

/// A connection that was accepted last has said what it wants after this long, or is idle.
const LAST_ACCEPTED: Duration = Duration::from_secs(1);

impl Mesh {
    /// Ends the source and closes the store, so that another process can open it.
    pub async fn release_store(&mut self) {
        self.following.cancel();
        if let Some(source) = self.source.get_mut().take() {
            let ended = source.await.ok();
            if let (Some(Ended { sync, talking }), Some(keeper)) = (ended, &mut self.keeper) {
                (*self.sync.get_mut(), keeper.talking) = (Some(sync), talking);
            }
        }
        if let Some(sync) = self.sync.get_mut() {
            sync.count().await;
            sync.release().await;
        }
    }

    /// Opens the store again and follows the source: whoever should have taken over did not.
    ///
    /// # Errors
    /// When the store cannot be opened; the Snapshot in force stays.
    pub async fn take_back(&mut self) -> Result<(), OpenError> {
        let folder = &self.options.data_dir;
        let (store, loaded, _) = tokio::task::block_in_place(|| Store::open(folder))?;
        if let Some(sync) = self.sync.get_mut() {
            sync.take_back(store, loaded, now());
        }
        self.following = self.stop.child_token();
        self.follow_source().await;
        Ok(())
    }

    /// Accepts nothing more and lets what was accepted last begin.
    pub async fn stop_accepting(&self) {
        self.accepting.cancel();
        tokio::time::sleep(LAST_ACCEPTED).await;
    }
}
