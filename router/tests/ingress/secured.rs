//! TLS and who may call: certificates, tokens, what is passed on of them, and curl.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use edgemesh_router::ingress::{Auth, IngressConfig, TlsFiles};
use http::{HeaderValue, Request, Version};
use http_body_util::Full;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::client::{Answer, ask, ask_over, head, request, say};
use crate::world::{PATIENCE, World};

const NAME: &str = "cloud.example";
const TOKEN: &str = "s3cret-s3cret";
const BEARER: (&str, &str) = ("authorization", "Bearer s3cret-s3cret");

/// An authority, and files of the certificates that it signed.
pub(crate) struct Site {
    folder: TempDir,
    authority: CertifiedIssuer<'static, KeyPair>,
}

impl Site {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "an authority");
        let key = KeyPair::generate().unwrap();
        let authority = CertifiedIssuer::self_signed(params, key).unwrap();
        let site = Self { folder, authority };
        site.write("ca.pem", &site.authority.pem());
        site.write("token", &format!("{TOKEN}\n"));
        site.sign("server", NAME);
        site
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.file(name), text).unwrap();
    }

    /// Signs a certificate of `name`, in the files `FILE.pem` and `FILE.key`.
    pub(crate) fn sign(&self, file: &str, name: &str) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let signed = params.signed_by(&key, &self.authority).unwrap();
        self.write(&format!("{file}.pem"), &signed.pem());
        self.write(&format!("{file}.key"), &key.serialize_pem());
    }

    pub(crate) fn config(&self, auth: Auth) -> IngressConfig {
        let (cert_file, key_file) = (self.file("server.pem"), self.file("server.key"));
        IngressConfig { tls: Some(TlsFiles { cert_file, key_file }), auth, room: 64 }
    }

    pub(crate) fn open_to_all(&self) -> IngressConfig {
        self.config(Auth::None)
    }

    /// A client's handshake, without ALPN.
    pub(crate) async fn shake(&self, stream: TcpStream) -> TlsStream<TcpStream> {
        self.shake_as(stream, &[], None).await.unwrap()
    }

    async fn shake_as(
        &self,
        stream: TcpStream,
        alpn: &[&str],
        shown: Option<&Path>,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match shown {
            None => builder.with_no_client_auth(),
            Some(shown) => {
                let chain = vec![CertificateDer::from_pem_file(shown).unwrap()];
                let key = PrivateKeyDer::from_pem_file(shown.with_extension("key")).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        config.alpn_protocols = alpn.iter().map(|name| Vec::from(*name)).collect();
        let name = ServerName::try_from(NAME).unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    /// One request over TLS.
    async fn ask(&self, world: &World, request: Request<Full<hyper::body::Bytes>>) -> Answer {
        let alpn = if request.version() == Version::HTTP_2 { "h2" } else { "http/1.1" };
        let stream = TcpStream::connect(world.at).await.unwrap();
        let stream = self.shake_as(stream, &[alpn], None).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(alpn.as_bytes()));
        ask_over(stream, request).await
    }
}

#[tokio::test]
async fn a_handshake_tells_the_versions() {
    let site = Site::new();
    let world = World::with(site.open_to_all()).await;
    for version in [Version::HTTP_11, Version::HTTP_2] {
        for named in [("echo.default", "/x"), (NAME, "/_svc/default/echo/x")] {
            let mut asked = request(version, "GET", named, &[("cookie", "a=1"), ("cookie", "b=2")]);
            if version == Version::HTTP_2 {
                *asked.uri_mut() = format!("https://{}{}", named.0, named.1).parse().unwrap();
            } else {
                asked.headers_mut().insert("cookie", HeaderValue::from_static("a=1; b=2"));
            }
            let answer = site.ask(&world, asked).await;
            // HTTP/2 was the offer of the ingress: nobody said that the Backend speaks it.
            let want = "a GET /x host=echo.default scheme=- ";
            assert!(answer.body.starts_with(want), "{version:?} {named:?}: {}", answer.body);
            assert!(answer.body.ends_with(" cookies=a=1; b=2"), "{version:?}: {}", answer.body);
        }
    }
    // Of several the best, and without any what is spoken counts.
    for (alpn, want) in
        [(&["http/1.1", "h2"][..], Some("h2")), (&[], None), (&["http/1.1"], Some("http/1.1"))]
    {
        let stream = TcpStream::connect(world.at).await.unwrap();
        let stream = site.shake_as(stream, alpn, None).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), want.map(str::as_bytes));
    }
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let stream = site.shake(TcpStream::connect(world.at).await.unwrap()).await;
        let answer = ask_over(stream, request(version, "GET", ("echo.default", "/"), &[])).await;
        let scheme = if version == Version::HTTP_2 { "scheme=http " } else { "scheme=- " };
        assert!(answer.body.contains(scheme), "{version:?}: {}", answer.body);
    }
    // gRPC is HTTP/2, whoever offered it.
    let grpc = [("content-type", "application/grpc")];
    let mut call = request(Version::HTTP_2, "POST", ("echo.default", "/p.S/M"), &grpc);
    *call.uri_mut() = "https://echo.default/p.S/M".parse().unwrap();
    assert_eq!(site.ask(&world, call).await.grpc(), ("0", "well"));
}

#[tokio::test]
async fn websockets_open_in_tls() {
    let site = Site::new();
    let world = World::with(site.open_to_all()).await;
    let mut stream = site.shake(TcpStream::connect(world.at).await.unwrap()).await;
    let text = "GET /_svc/default/echo/ws HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nwith";
    stream.write_all(text.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    let answer = head(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    let mut echo = [0; 4];
    stream.read_exact(&mut echo).await.unwrap();
    assert_eq!(&echo, b"with");
}

#[tokio::test]
async fn who_speaks_something_else_is_told() {
    let site = Site::new();
    let world = World::with(site.open_to_all()).await;
    let answer =
        say(world.at, "GET / HTTP/1.1\r\nhost: echo.default\r\nconnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("call by https"), "{answer}");
    let answer = ask(world.at, request(Version::HTTP_2, "GET", ("echo.default", "/"), &[])).await;
    assert_eq!(answer.status, 400);
    assert_eq!(world.ended("badRequest"), (2, 2), "one account each");
    // A hello that is none.
    say(world.at, "\u{16}\u{3}\u{1}\u{0}\u{5}hello").await;
    let accounted = async {
        while world.ended("badRequest") != (3, 3) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, accounted).await.expect("in time");
}

#[tokio::test]
async fn tokens_are_wanted_and_kept() {
    let site = Site::new();
    let world = World::with(site.config(Auth::Token(site.file("token")))).await;
    let wrong = ("authorization", "Bearer s3cret-s3creT");
    let as_proxy = ("proxy-authorization", BEARER.1);
    let own = ("authorization", "Basic mine");
    for version in [Version::HTTP_11, Version::HTTP_2] {
        for named in [("echo.default", "/"), ("x", "/_svc/default/echo/"), ("x", "/nobody")] {
            for (headers, says) in
                [(&[][..], "wants"), (&[wrong], "does not hold"), (&[own], "does not hold")]
            {
                let answer = site.ask(&world, request(version, "GET", named, headers)).await;
                assert_eq!(answer.status, 401, "{named:?} {headers:?}");
                assert_eq!(answer.header("www-authenticate"), "Bearer realm=\"edgemesh\"");
                assert_eq!(answer.header("x-edgemesh-refusal"), "unauthenticated");
                // Who may not call is not told what there is.
                assert!(
                    answer.body.contains(says) && !answer.body.contains("echo"),
                    "{}",
                    answer.body
                );
            }
            let answer = site.ask(&world, request(version, "GET", named, &[BEARER])).await;
            match named.1 {
                "/nobody" => assert_eq!(answer.status, 404),
                _ => assert!(answer.body.ends_with(" auth=-/- cookies="), "{}", answer.body),
            }
        }
        let headers = [as_proxy, own];
        let answer =
            site.ask(&world, request(version, "GET", ("echo.default", "/"), &headers)).await;
        assert!(answer.body.ends_with(" auth=Basic mine/- cookies="), "{}", answer.body);
    }
    let grpc = [("content-type", "application/grpc")];
    let call = request(Version::HTTP_2, "POST", ("echo.default", "/p.S/M"), &grpc);
    assert_eq!(site.ask(&world, call).await.grpc().0, "16");
    for version in [Version::HTTP_11, Version::HTTP_2] {
        for (token, want) in [(None, 401), (Some(BEARER), 200), (Some(as_proxy), 200)] {
            let mut tunnel = Request::connect("bytes.default:6379").version(version);
            if let Some((name, value)) = token {
                tunnel = tunnel.header(name, value);
            }
            let stream = site.shake(TcpStream::connect(world.at).await.unwrap()).await;
            let answer = head_of(stream, tunnel.body(Full::default()).unwrap()).await;
            assert_eq!(answer, want, "{version:?} {token:?}");
        }
    }
}

/// The status of an answer whose body may never end.
async fn head_of(stream: TlsStream<TcpStream>, request: Request<Full<hyper::body::Bytes>>) -> u16 {
    let mut tasks = tokio::task::JoinSet::new();
    let io = hyper_util::rt::TokioIo::new(stream);
    let asked = async {
        if request.version() == Version::HTTP_2 {
            let executor = hyper_util::rt::TokioExecutor::new();
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(executor, io).await.unwrap();
            tasks.spawn(async { drop(connection.await) });
            sender.send_request(request).await.unwrap().status().as_u16()
        } else {
            let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
            tasks.spawn(async { drop(connection.with_upgrades().await) });
            sender.send_request(request).await.unwrap().status().as_u16()
        }
    };
    tokio::time::timeout(PATIENCE, asked).await.expect("in time")
}

#[tokio::test]
async fn clients_show_certificates_of_the_right_authority() {
    let (site, other) = (Site::new(), Site::new());
    site.sign("friend", "friend.example");
    other.sign("stranger", "friend.example");
    let world = World::with(site.config(Auth::ClientCa(site.file("ca.pem")))).await;
    for (shown, want) in [
        (Some(site.file("friend.pem")), Ok(200)),
        (None, Err(1)),
        (Some(other.file("stranger.pem")), Err(2)),
    ] {
        let stream = TcpStream::connect(world.at).await.unwrap();
        let stream = site.shake_as(stream, &[], shown.as_deref()).await.unwrap();
        match want {
            Ok(status) => {
                let get = request(Version::HTTP_11, "GET", ("echo.default", "/"), &[]);
                assert_eq!(ask_over(stream, get).await.status, status);
            }
            Err(refused) => {
                let mut stream = stream;
                // Its request crosses the alert.
                stream.write_all(b"GET / HTTP/1.1\r\nhost: echo.default\r\n\r\n").await.ok();
                stream.flush().await.ok();
                let read = tokio::time::timeout(PATIENCE, stream.read_u8()).await.expect("in time");
                let told = read.unwrap_err().to_string();
                assert!(told.contains("fatal alert"), "{shown:?}: {told}");
                let accounted = async {
                    while world.ended("unauthenticated").1 < refused {
                        tokio::task::yield_now().await;
                    }
                };
                drop(stream);
                tokio::time::timeout(PATIENCE, accounted).await.expect("in time");
                assert_eq!(world.ended("unauthenticated"), (1 + refused, refused), "{shown:?}");
            }
        }
    }
}

#[tokio::test]
async fn files_are_read_anew_on_demand() {
    let site = Site::new();
    let world = World::with(site.config(Auth::Token(site.file("token")))).await;
    let get = |token| {
        request(Version::HTTP_11, "GET", ("echo.default", "/"), &[("authorization", token)])
    };
    let served = async || {
        let stream = site.shake(TcpStream::connect(world.at).await.unwrap()).await;
        stream.get_ref().1.peer_certificates().unwrap()[0].clone()
    };
    let first = served().await;
    site.write("token", "another");
    site.sign("server", NAME);
    assert_eq!(site.ask(&world, get(BEARER.1)).await.status, 200, "not before it is told to");
    world.ingress.reload().unwrap();
    assert_eq!(site.ask(&world, get(BEARER.1)).await.status, 401);
    assert_eq!(site.ask(&world, get("Bearer another")).await.status, 200);
    assert_ne!(served().await, first);
    site.write("token", "");
    let error = world.ingress.reload().unwrap_err().to_string();
    assert!(error.contains("holds no token"), "{error}");
    assert_eq!(site.ask(&world, get("Bearer another")).await.status, 200, "what was read stays");
}

#[tokio::test]
async fn curl_by_name_and_by_path() {
    let site = Site::new();
    let world = World::with(site.config(Auth::Token(site.file("token")))).await;
    let port = world.at.port();
    let authority = site.file("ca.pem");
    for version in ["--http1.1", "--http2"] {
        for (url, host, want) in [
            (
                format!("https://{NAME}:{port}/x?y"),
                "host: echo.default",
                "a GET /x?y host=echo.default",
            ),
            (format!("https://{NAME}:{port}/_svc/shop/echo/x"), "x: y", "b GET /x host=echo.shop"),
        ] {
            let (resolve, at) = (format!("{NAME}:{port}:127.0.0.1"), authority.clone());
            let curl = tokio::task::spawn_blocking(move || {
                let token = format!("authorization: Bearer {TOKEN}");
                Command::new("curl")
                    .args([
                        "-sS",
                        "--max-time",
                        "20",
                        version,
                        "--path-as-is",
                        "--resolve",
                        &resolve,
                    ])
                    .args(["-H", &token, "-H", host, "--cacert"])
                    .arg(at)
                    .arg(url)
                    .output()
            });
            let output = curl.await.unwrap().expect("curl is there: make deps");
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(said.starts_with(want), "{version} {want}: {said}{output:?}");
        }
    }
}
