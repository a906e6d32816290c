//! Which certificates are trusted: those that lead to an authority which this machine knows.

use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};
use tokio::sync::OnceCell;

/// Authorities that are trusted.
#[derive(Clone, Debug, Default)]
pub enum Roots {
    /// Those that this machine trusts.
    #[default]
    Machine,
    /// Those, and these.
    MachineAnd(Vec<CertificateDer<'static>>),
}

/// The same, ready for use. Read when TLS is first wanted: most nodes have no use for it.
#[derive(Debug)]
pub(super) struct Trust {
    roots: Roots,
    config: OnceCell<Arc<ClientConfig>>,
}

impl Trust {
    pub(super) const fn new(roots: Roots) -> Self {
        Self { roots, config: OnceCell::const_new() }
    }

    /// What a handshake goes by. No protocol is offered by ALPN: a server then speaks HTTP/1.1, or MQTT.
    ///
    /// # Errors
    /// In words; it is tried again with the next connection.
    pub(super) async fn config(&self) -> Result<Arc<ClientConfig>, String> {
        self.config.get_or_try_init(|| self.read()).await.cloned()
    }

    async fn read(&self) -> Result<Arc<ClientConfig>, String> {
        let roots = self.roots.clone();
        let read = tokio::task::spawn_blocking(move || config(roots)).await;
        read.map_err(|error| error.to_string())?
    }
}

fn config(roots: Roots) -> Result<Arc<ClientConfig>, String> {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Roots::MachineAnd(more) = roots {
        store.add_parsable_certificates(more);
    }
    if store.is_empty() {
        return Err("this machine trusts no authority: install the package ca-certificates".into());
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| error.to_string())?;
    Ok(Arc::new(builder.with_root_certificates(store).with_no_client_auth()))
}
