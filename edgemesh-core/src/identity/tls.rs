//! TLS configurations made of an identity: 1.3 only, both sides with certificates of one CA.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::client::ResolvesClientCert;
use rustls::client::Resumption;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{ClientConfig, ServerConfig, SignatureScheme};

use crate::identity::Identity;
use crate::identity::clock::Clock;
use crate::identity::name::{Expect, Subject};
use crate::identity::trust::{Judging, provider};
use crate::identity::verify::{Clients, Servers};

/// What a listener is, and with that who may dial it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A node's: for nodes of the same cloud.
    Peer,
    /// The hub's: also for who has no certificate yet and comes to join.
    Hub,
}

/// Makes TLS configurations; one a process, shared. A renewed identity counts from the next
/// handshake on, also in configurations that were made before.
#[derive(Clone, Debug)]
pub struct Tls {
    shared: Arc<Shared>,
}

#[derive(Debug)]
pub(super) struct Shared {
    identity: ArcSwap<Identity>,
    clock: Arc<Clock>,
    grace: Duration,
}

/// Shows whatever certificate is ours now.
#[derive(Debug)]
struct Current(Arc<Shared>);

impl Tls {
    /// As `identity`, at the time of `clock`; other certificates may have been expired for
    /// `grace`, the `offlineGrace` of the configuration.
    pub fn new(identity: Identity, clock: Arc<Clock>, grace: Duration) -> Self {
        clock.learn(identity.not_before(), identity.not_after());
        let identity = ArcSwap::from_pointee(identity);
        Self { shared: Arc::new(Shared { identity, clock, grace }) }
    }

    /// Goes on as `identity`.
    pub fn renew(&self, identity: Identity) {
        self.shared.clock.learn(identity.not_before(), identity.not_after());
        self.shared.identity.store(Arc::new(identity));
    }

    /// Who we are now.
    pub fn identity(&self) -> Arc<Identity> {
        self.shared.identity.load_full()
    }

    /// The clock by which certificates are judged.
    pub fn clock(&self) -> &Arc<Clock> {
        &self.shared.clock
    }

    /// To dial whom we expect; anyone else is no success. Goes with
    /// [`Expect::server_name`].
    pub fn client(&self, expect: Expect<'_>, alpn: &'static [u8]) -> Arc<ClientConfig> {
        let verifier = Servers { shared: self.shared.clone(), expect: Subject::from(expect) };
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .expect("ring has suites of TLS 1.3")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(Arc::new(Current(self.shared.clone())));
        config.alpn_protocols = vec![alpn.to_vec()];
        // A resumed session would show a certificate that nobody looked at again.
        config.resumption = Resumption::disabled();
        Arc::new(config)
    }

    /// To be dialled.
    pub fn server(&self, role: Role, alpns: &[&[u8]]) -> Arc<ServerConfig> {
        let verifier = Clients { shared: self.shared.clone(), is_optional: role == Role::Hub };
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .expect("ring has suites of TLS 1.3")
            .with_client_cert_verifier(Arc::new(verifier))
            .with_cert_resolver(Arc::new(Current(self.shared.clone())));
        config.alpn_protocols = alpns.iter().map(|alpn| alpn.to_vec()).collect();
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Arc::new(config)
    }
}

impl Shared {
    pub(super) fn identity(&self) -> Arc<Identity> {
        self.identity.load_full()
    }

    pub(super) fn judging(&self) -> Judging {
        Judging { now: self.clock.now(), grace: self.grace }
    }
}

impl ResolvesClientCert for Current {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.identity.load().shown())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.identity.load().shown())
    }
}
