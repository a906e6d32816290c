//! Servers behind URLs: one that does what its path says, in the clear or with TLS, and some that are none.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use edgemesh_core::forward::inbox::AnswerBody;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rcgen::{BasicConstraints, Certificate, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

/// The size of the answer of `/large`.
pub(crate) const LARGE: usize = 6_000_000;

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Server {
    /// What was asked: method, target, fields, body.
    pub(crate) asked: Arc<Mutex<Vec<Asked>>>,
}

/// A request, as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) line: String,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: Bytes,
}

/// An authority, and a server's configuration by it.
pub(crate) struct Authority {
    pub(crate) root: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = params.self_signed(&key).unwrap().der().clone();
        Self { root, issuer: Issuer::new(params, key) }
    }

    /// A certificate for `name`, valid in `years`.
    pub(crate) fn certificate(&self, name: &str, years: (i32, i32)) -> (Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(years.0, 1, 1);
        params.not_after = rcgen::date_time_ymd(years.1, 1, 1);
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }

    /// What a server of that name goes by.
    pub(crate) fn server(&self, name: &str, years: (i32, i32)) -> Arc<ServerConfig> {
        let (certificate, key) = self.certificate(name, years);
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let chain = vec![certificate.der().clone()];
        Arc::new(builder.with_no_client_auth().with_single_cert(chain, key).unwrap())
    }
}

impl Server {
    /// Listens, with TLS where that is given.
    pub(crate) async fn listen(
        &self,
        tls: Option<Arc<ServerConfig>>,
        tasks: &TaskTracker,
    ) -> SocketAddr {
        let (server, all) = (self.clone(), tasks.clone());
        each(tasks, move |stream| {
            let (server, tls) = (server.clone(), tls.clone());
            all.spawn(async move {
                match tls {
                    None => server.serve(stream).await,
                    Some(tls) => {
                        if let Ok(stream) = TlsAcceptor::from(tls).accept(stream).await {
                            server.serve(stream).await;
                        }
                    }
                }
            });
        })
        .await
    }

    async fn serve<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) {
        let service = service_fn(|request| self.answer(request));
        // A client that leaves is no fault.
        http1::Builder::new().serve_connection(TokioIo::new(stream), service).await.ok();
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Response<AnswerBody>, Fault> {
        let (head, body) = request.into_parts();
        if head.uri.path() == "/stream" {
            let echo = body.map_err(Into::into).boxed_unsync();
            return Ok(Response::new(echo));
        }
        let body = body.collect().await.map_err(|_| Fault)?.to_bytes();
        let line = format!("{} {}", head.method, head.uri);
        let echo = format!("{line} {}", body.escape_ascii());
        self.asked.lock().push(Asked { line, headers: head.headers, body });
        let path = head.uri.path().to_owned();
        let (status, text): (u16, Bytes) = match path.as_str() {
            "/silent" => std::future::pending().await,
            "/breaks" => return Err(Fault),
            "/large" => (200, vec![b'l'; LARGE].into()),
            "/over" => (200, vec![b'o'; 12 * 1024 * 1024 + 1].into()),
            "/binary" => (200, vec![0xff, 0, 0xfe].into()),
            "/from-servicebus" => {
                (200, format!("rest-target answers {} {path}", head.method).into())
            }
            _ => match path.strip_prefix("/status/").and_then(|n| n.parse().ok()) {
                Some(204) => (204, Bytes::new()),
                Some(status) => (status, format!("app says {status}").into()),
                None => (200, echo.into()),
            },
        };
        let body = Full::new(text).map_err(|never: Infallible| match never {}).boxed_unsync();
        let answer = Response::builder().status(status).header("x-app", "yes");
        Ok(answer.header("keep-alive", "timeout=5").body(body).unwrap())
    }
}

/// Breaks the connection.
#[derive(Debug, thiserror::Error)]
#[error("broken on purpose")]
struct Fault;

/// Says something that is not HTTP.
pub(crate) async fn talks_nonsense(tasks: &TaskTracker) -> SocketAddr {
    let all = tasks.clone();
    each(tasks, move |mut stream| {
        all.spawn(async move {
            stream.write_all(b"220 mail.example ESMTP\r\n").await.ok();
            stream.read_to_end(&mut Vec::new()).await.ok();
        });
    })
    .await
}

/// Answers the first request of each connection, keeps it, and breaks it under the second. Counts them.
pub(crate) async fn breaks_at_the_second(
    served: Arc<AtomicUsize>,
    tasks: &TaskTracker,
) -> SocketAddr {
    let all = tasks.clone();
    each(tasks, move |mut stream| {
        let served = served.clone();
        all.spawn(async move {
            let mut read = [0; 4096];
            for answer in
                [&b"HTTP/1.1 200 OK\r\nx-app: yes\r\ncontent-length: 2\r\n\r\nok"[..], b""]
            {
                while !stream.read(&mut read).await.is_ok_and(|n| read[..n].ends_with(b"x")) {}
                served.fetch_add(1, Ordering::SeqCst);
                stream.write_all(answer).await.unwrap();
            }
        });
    })
    .await
}

/// Accepts connections until `tasks` are given up with the test.
async fn each(tasks: &TaskTracker, serve: impl Fn(TcpStream) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tasks.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            serve(stream);
        }
    });
    address
}
