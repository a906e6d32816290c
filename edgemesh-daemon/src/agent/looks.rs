//! What the pages ask of parts that come later in the start: the Links, the broker, the API server.

use std::sync::OnceLock;

use crate::api;

/// Looks at something at this moment.
type Look<T> = OnceLock<Box<dyn Fn() -> T + Send + Sync>>;

/// See the module. Of each, the first that is told counts.
#[derive(Default)]
pub(super) struct Looks {
    /// Unset: there are none.
    links: Look<api::Links>,
    broker: Look<Option<api::Broker>>,
    source: Look<api::SourceView>,
}

impl Looks {
    /// There are Links, and this looks at them.
    pub(super) fn linked(&self, look: impl Fn() -> api::Links + Send + Sync + 'static) {
        self.links.get_or_init(|| Box::new(look));
    }

    pub(super) fn links(&self) -> api::Links {
        self.links.get().map(|look| look()).unwrap_or_default()
    }

    /// Records come from an API server, and this looks at it.
    pub(super) fn follows(&self, look: impl Fn() -> api::SourceView + Send + Sync + 'static) {
        self.source.get_or_init(|| Box::new(look));
    }

    pub(super) fn source(&self) -> Option<api::SourceView> {
        self.source.get().map(|look| look())
    }

    /// There may be a broker, and this looks at it.
    pub(super) fn has_broker(
        &self,
        look: impl Fn() -> Option<api::Broker> + Send + Sync + 'static,
    ) {
        self.broker.get_or_init(|| Box::new(look));
    }

    pub(super) fn broker(&self) -> Option<api::Broker> {
        self.broker.get().and_then(|look| look())
    }
}
