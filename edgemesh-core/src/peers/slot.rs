//! A Link that is opened when it is needed, once for all who wait for it.

use arc_swap::ArcSwapOption;
use tokio::sync::Mutex;

use crate::link::Link;

/// A place for one Link.
#[derive(Debug, Default)]
pub(super) struct Slot {
    link: ArcSwapOption<Link>,
    opening: Mutex<()>,
}

impl Slot {
    /// The Link, if it stands.
    pub(super) fn ready(&self) -> Option<Link> {
        let link = self.link.load();
        link.as_ref().filter(|link| link.is_open()).map(|link| Link::clone(link))
    }

    /// From now on it is this one; gives the one before.
    pub(super) fn put(&self, link: Link) -> Option<Link> {
        self.link.swap(Some(link.into())).map(|before| Link::clone(&before))
    }

    /// Forgets it; what is under way on it goes on.
    pub(super) fn end(&self) {
        if let Some(link) = self.link.swap(None) {
            link.close();
        }
    }

    /// Closes the Link where nothing is under way on it.
    pub(super) fn close_idle(&self) {
        if let Some(link) = self.ready().filter(|link| link.exchanges() == 0) {
            link.close();
        }
    }

    /// The Link; where there is none, `open` makes one, and the others wait for it.
    pub(super) async fn get<E>(
        &self,
        open: impl AsyncFnOnce() -> Result<Link, E>,
    ) -> Result<Link, E> {
        if let Some(link) = self.ready() {
            return Ok(link);
        }
        let _opening = self.opening.lock().await;
        if let Some(link) = self.ready() {
            return Ok(link);
        }
        let link = open().await?;
        self.put(link.clone());
        Ok(link)
    }
}
