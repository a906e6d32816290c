//! What proves who calls at the ingress, and who the ingress is: files, read at the start and on
//! demand.

use std::fmt;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use edgemesh_core::forward::http::Turned;
use edgemesh_core::refusal::Refusal;
use http::header::{AUTHORIZATION, PROXY_AUTHORIZATION};
use http::{HeaderMap, HeaderName, HeaderValue};
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

use crate::ingress::{Auth, IngressConfig, TlsFiles};

/// Longest token, in bytes: a head has room for it and much else.
const MAX_TOKEN: usize = 4096;
/// What HTTP versions are called in a handshake, best first.
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];
/// The scheme of tokens (RFC 6750 §2.1), without its space.
const BEARER: &[u8] = b"Bearer";

/// A file of the ingress is of no use.
#[derive(Debug, thiserror::Error)]
pub enum IngressError {
    /// It cannot be read.
    #[error("cannot read {}", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is no PEM, or holds something else.
    #[error("{} holds no {wanted} in PEM", .path.display())]
    Pem {
        /// Which.
        path: PathBuf,
        /// What it should hold.
        wanted: &'static str,
        /// Why.
        source: Option<PemError>,
    },
    /// It holds no token.
    #[error("{} holds no token: wanted is one line of visible ASCII, {MAX_TOKEN} bytes at most", .path.display())]
    Token {
        /// Which.
        path: PathBuf,
    },
    /// Certificate and key are none that TLS could use together.
    #[error("{} and {} cannot be used together", .cert.display(), .key.display())]
    Pair {
        /// The file of the certificate.
        cert: PathBuf,
        /// The file of the key.
        key: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// No certificate of a client could be checked.
    #[error("{} holds no authority of clients", .path.display())]
    Authority {
        /// Which.
        path: PathBuf,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Clients show their certificates in a handshake, and there is none.
    #[error("clientCa needs tls: certificates are shown in its handshake")]
    NoTls,
}

/// What was read.
#[derive(Debug)]
pub(super) struct Secrets {
    pub(super) tls: Option<Arc<ServerConfig>>,
    pub(super) token: Option<Token>,
}

impl Secrets {
    pub(super) fn read(config: &IngressConfig) -> Result<Self, IngressError> {
        let (token, authority) = match &config.auth {
            Auth::None => (None, None),
            Auth::Token(path) => (Some(Token::read(path)?), None),
            Auth::ClientCa(_) if config.tls.is_none() => return Err(IngressError::NoTls),
            Auth::ClientCa(path) => (None, Some(path.as_path())),
        };
        let tls = config.tls.as_ref().map(|files| server(files, authority)).transpose()?;
        Ok(Self { tls, token })
    }
}

/// The ingress's side of TLS; `authority` = clients have to show a certificate of it.
fn server(files: &TlsFiles, authority: Option<&Path>) -> Result<Arc<ServerConfig>, IngressError> {
    let TlsFiles { cert_file, key_file } = files;
    let chain = certificates(cert_file)?;
    let text = read(key_file)?;
    let key = PrivateKeyDer::from_pem_slice(&text).map_err(|source| IngressError::Pem {
        path: key_file.clone(),
        wanted: "private key",
        source: Some(source),
    })?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let pair =
        |source| IngressError::Pair { cert: cert_file.clone(), key: key_file.clone(), source };
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(pair)?;
    let builder = match authority {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let unfit = |source: Box<dyn std::error::Error + Send + Sync>| {
                IngressError::Authority { path: path.into(), source }
            };
            let mut roots = RootCertStore::empty();
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(|error| unfit(error.into()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
            builder
                .with_client_cert_verifier(verifier.build().map_err(|error| unfit(error.into()))?)
        }
    };
    let mut config = builder.with_single_cert(chain, key).map_err(pair)?;
    config.alpn_protocols = ALPN.map(Vec::from).into();
    Ok(Arc::new(config))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, IngressError> {
    let none = |source| IngressError::Pem { path: path.into(), wanted: "certificate", source };
    let text = read(path)?;
    let all: Vec<_> = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(|source| none(Some(source)))?;
    if all.is_empty() { Err(none(None)) } else { Ok(all) }
}

fn read(path: &Path) -> Result<Vec<u8>, IngressError> {
    std::fs::read(path).map_err(|source| IngressError::File { path: path.into(), source })
}

/// What clients have to send.
pub(super) struct Token(Box<[u8]>);

impl Token {
    fn read(path: &Path) -> Result<Self, IngressError> {
        let text = read(path)?;
        let token = text.trim_ascii();
        let fits = (1..=MAX_TOKEN).contains(&token.len());
        match fits && token.iter().all(u8::is_ascii_graphic) {
            true => Ok(Self(token.into())),
            false => Err(IngressError::Token { path: path.into() }),
        }
    }

    /// Whether `headers` hold the token; it goes no further. As a proxy's it leaves `Authorization`
    /// to the Service.
    pub(super) fn check(&self, headers: &mut HeaderMap) -> Result<(), Turned> {
        for name in [PROXY_AUTHORIZATION, AUTHORIZATION] {
            if self.is_in(headers, &name) {
                headers.remove(name);
                return Ok(());
            }
        }
        let text = match headers.contains_key(AUTHORIZATION) {
            true => "`Authorization` does not hold the token of this ingress",
            false => "this ingress wants `Authorization: Bearer TOKEN`",
        };
        let (refusal, text) = (Refusal::Unauthenticated, text.to_owned());
        Err(Turned { refusal, text, in_json: false })
    }

    fn is_in(&self, headers: &HeaderMap, name: &HeaderName) -> bool {
        let mut all = headers.get_all(name).iter().map(HeaderValue::as_bytes);
        // Of two it could not be said which counts.
        let (Some(value), None) = (all.next(), all.next()) else { return false };
        let Some((scheme, token)) = value.split_at_checked(BEARER.len()) else { return false };
        let spaced = token.first() == Some(&b' ') && scheme.eq_ignore_ascii_case(BEARER);
        spaced && self.equals(token.trim_ascii())
    }

    /// Takes as long for a token that is nearly right as for any other of its length.
    fn equals(&self, token: &[u8]) -> bool {
        let pairs = self.0.iter().zip(token);
        let differ = pairs.fold(0, |differ, (ours, theirs)| black_box(differ | (ours ^ theirs)));
        self.0.len() == token.len() && differ == 0
    }
}

impl fmt::Debug for Token {
    /// Without it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens() {
        const OURS: &str = "Bearer s3cret-s3cret";
        type Row<'r> = (&'r [(&'r str, &'r str)], bool, &'r [&'r str]);
        let rows: &[Row<'_>] = &[
            (&[("authorization", OURS)], true, &[]),
            (&[("authorization", "bearer  s3cret-s3cret ")], true, &[]),
            (&[("proxy-authorization", OURS)], true, &[]),
            (&[("proxy-authorization", OURS), ("authorization", "Basic x")], true, &["Basic x"]),
            (&[("proxy-authorization", "Basic x"), ("authorization", OURS)], true, &[]),
            (&[], false, &[]),
            (&[("authorization", "Bearer s3cret-s3creT")], false, &["Bearer s3cret-s3creT"]),
            (&[("authorization", "Bearer s3cret-s3cret2")], false, &["Bearer s3cret-s3cret2"]),
            (&[("authorization", "Bearer s3cret")], false, &["Bearer s3cret"]),
            (&[("authorization", "Bearer ")], false, &["Bearer "]),
            (&[("authorization", "Bearer")], false, &["Bearer"]),
            (&[("authorization", "Bearers3cret-s3cret")], false, &["Bearers3cret-s3cret"]),
            (&[("authorization", "s3cret-s3cret")], false, &["s3cret-s3cret"]),
            (&[("authorization", "Basic s3cret-s3cret")], false, &["Basic s3cret-s3cret"]),
            (&[("authorization", OURS), ("authorization", "x")], false, &[OURS, "x"]),
        ];
        let token = Token(b"s3cret-s3cret".as_slice().into());
        for (given, admitted, left) in rows {
            let mut headers = HeaderMap::new();
            for (name, value) in *given {
                let value = HeaderValue::from_str(value).unwrap();
                headers.append(HeaderName::from_static(name), value);
            }
            let checked = token.check(&mut headers);
            assert_eq!(checked.is_ok(), *admitted, "{given:?}");
            let kept: Vec<_> = headers.get_all(AUTHORIZATION).iter().collect();
            assert_eq!(kept, *left, "{given:?}");
        }
        assert!(!format!("{token:?}").contains("s3cret"));
    }

    #[test]
    fn files_that_are_of_no_use_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let made = |name: &str| rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
        let (ours, theirs) = (made("ours"), made("theirs"));
        let cert = at("cert.pem", &ours.cert.pem());
        let key = at("key.pem", &ours.signing_key.serialize_pem());
        let others = at("others.pem", &theirs.signing_key.serialize_pem());
        let token = at("token", "s3cret\n");
        let [empty, words, missing] =
            [at("empty", " \n"), at("words", "two words"), folder.path().join("missing")];
        let tls = |cert: &PathBuf, key: &PathBuf| {
            Some(TlsFiles { cert_file: cert.clone(), key_file: key.clone() })
        };
        for (tls, auth, want) in [
            (tls(&cert, &key), Auth::None, None),
            (tls(&cert, &key), Auth::ClientCa(cert.clone()), None),
            (None, Auth::Token(token.clone()), None),
            (tls(&missing, &key), Auth::None, Some("cannot read")),
            (tls(&empty, &key), Auth::None, Some("no certificate")),
            (tls(&key, &key), Auth::None, Some("no certificate")),
            (tls(&cert, &cert), Auth::None, Some("no private key")),
            (tls(&cert, &others), Auth::None, Some("cannot be used together")),
            (tls(&cert, &key), Auth::ClientCa(empty.clone()), Some("no certificate")),
            (None, Auth::ClientCa(cert.clone()), Some("needs tls")),
            (None, Auth::Token(missing), Some("cannot read")),
            (None, Auth::Token(empty.clone()), Some("no token")),
            (None, Auth::Token(words), Some("no token")),
        ] {
            let config = IngressConfig { tls, auth, room: 1 };
            match (Secrets::read(&config), want) {
                (Ok(_), None) => {}
                (Err(error), Some(want)) => assert!(error.to_string().contains(want), "{error}"),
                (read, want) => panic!("{config:?}: {read:?}, not {want:?}"),
            }
        }
    }
}
