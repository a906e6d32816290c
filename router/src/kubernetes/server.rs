//! The API server: how it is reached, and which kind of server it is.

use std::path::Path;
use std::time::Duration;

use edgemesh_core::dial::Dial;
use http::Request;
use hyper::rt::Executor;
use hyper_timeout::TimeoutConnector;
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::rt::TokioTimer;
use kube::client::{Body, ClientBuilder, ConfigExt as _};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::{BoxError, ServiceExt as _};

use crate::kubernetes::{Access, meta_server, words};
use crate::providers::connect::{Connect, Opener, Roots};

/// Longest wait for a connection.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// Where KubeEdge's MetaServer listens.
const META_SERVER_PORT: u16 = 10550;
/// Servers from this minor version on tell a list as a stream, unless that is switched off.
const STREAMS_LISTS: u32 = 34;

/// Which kind of server answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flavour {
    /// One that keeps the rules of the Kubernetes API.
    ApiServer {
        /// It tells a list as a stream.
        streams: bool,
    },
    /// KubeEdge's, on a node.
    MetaServer,
}

/// A server that answers.
pub(super) struct Found {
    pub(super) client: Client,
    pub(super) url: Box<str>,
    pub(super) flavour: Flavour,
}

/// Makes clients. The connections of each are ended by the stop.
#[derive(Clone, Debug)]
pub(super) struct Server {
    pub(super) access: Access,
    pub(super) dial: Dial,
    pub(super) tasks: TaskTracker,
    pub(super) stop: CancellationToken,
}

impl Server {
    /// A server that answers, asked by a client that gives up an answer after so much `silence`.
    ///
    /// # Errors
    /// Why there is none, in words.
    pub(super) async fn find(&self, silence: Duration) -> Result<Found, String> {
        let (client, url) = self.client(silence).await?;
        let flavour = flavour(&client, &url).await;
        let flavour =
            flavour.map_err(|error| format!("API server {url}: {}", words::of(&error)))?;
        let client = match flavour {
            Flavour::ApiServer { .. } => client,
            // Its watches are silent where nothing happens.
            Flavour::MetaServer => self.client(meta_server::SILENCE).await?.0,
        };
        Ok(Found { client, url, flavour })
    }

    /// A client by what the files say now, which gives up an answer after so much `silence`.
    ///
    /// # Errors
    /// What is wrong with the access, in words.
    async fn client(&self, silence: Duration) -> Result<(Client, Box<str>), String> {
        let config = self.config().await?;
        let url: Box<str> = config.cluster_url.to_string().trim_end_matches('/').into();
        let invalid = |error| format!("{url}: {}", words::of(&error));
        // kube's TLS goes by the process's crypto provider, and there is one. Roots are those of `config`;
        // the opener makes TCP only.
        let opener = Opener::plain(Connect::new(self.dial, Roots::Machine));
        let tls = config.rustls_https_connector_with_connector(opener).map_err(invalid)?;
        let mut connector = TimeoutConnector::new(tls);
        connector.set_connect_timeout(Some(CONNECT_WITHIN));
        connector.set_read_timeout(Some(silence));
        connector.set_write_timeout(Some(silence));
        let executor = Keeper { tasks: self.tasks.clone(), stop: self.stop.clone() };
        let http: HyperClient<_, Body> =
            HyperClient::builder(executor).pool_timer(TokioTimer::new()).build(connector);
        let http = http.map_err(BoxError::from);
        let namespace = config.default_namespace.clone();
        let base = config.base_uri_layer();
        let headers = config.extra_headers_layer().map_err(invalid)?;
        let builder = ClientBuilder::new(http, namespace).with_layer(&headers);
        let client = match config.auth_layer().map_err(invalid)? {
            Some(auth) => builder.with_layer(&auth).with_layer(&base).build(),
            None => builder.with_layer(&base).build(),
        };
        Ok((client, url))
    }

    async fn config(&self) -> Result<Config, String> {
        match &self.access {
            Access::InCluster => Config::incluster().map_err(|error| {
                let why = words::chain(&error);
                format!(
                    "this process runs in no Pod ({why}); say where the API server is: \
                     source: {{ kubernetes: {{ server: URL }} }} or {{ kubeconfig: FILE }}"
                )
            }),
            Access::Kubeconfig { file, context } => {
                let shown = file.display();
                let wrong = |error: &dyn std::error::Error| {
                    format!("the kubeconfig {shown} cannot be used: {}", words::chain(error))
                };
                let read = Kubeconfig::read_from(file).map_err(|error| wrong(&error))?;
                let options = KubeConfigOptions { context: context.clone(), ..Default::default() };
                let config = Config::from_custom_kubeconfig(read, &options).await;
                let config = config.map_err(|error| wrong(&error))?;
                match config.proxy_url {
                    Some(_) => Err(format!("the kubeconfig {shown} has a proxy-url: not served")),
                    None => Ok(config),
                }
            }
            Access::Url { server, token_file, ca_file } => {
                let url = server.parse().map_err(|error| format!("`{server}`: {error}"))?;
                let mut config = Config::new(url);
                config.auth_info.token_file =
                    token_file.as_ref().map(|file| file.to_string_lossy().into_owned());
                match ca_file {
                    Some(file) => {
                        config.root_cert = Some(authorities(file)?);
                        config.root_cert_file = Some(file.clone());
                    }
                    // Without TLS a machine that trusts nobody will do.
                    None if server.starts_with("http://") => config.root_cert = Some(Vec::new()),
                    None => {}
                }
                Ok(config)
            }
        }
    }
}

fn authorities(file: &Path) -> Result<Vec<Vec<u8>>, String> {
    let wrong = |why: String| format!("the CA file {} cannot be used: {why}", file.display());
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect);
    let read: Vec<CertificateDer<'_>> = read.map_err(|error| wrong(error.to_string()))?;
    match read.is_empty() {
        true => Err(wrong("it holds no certificate".into())),
        false => Ok(read.iter().map(|certificate| certificate.to_vec()).collect()),
    }
}

/// Asks which kind of server answers.
async fn flavour(client: &Client, url: &str) -> Result<Flavour, kube::Error> {
    let port = url.parse::<http::Uri>().ok().and_then(|url| url.port_u16());
    if port == Some(META_SERVER_PORT) {
        return Ok(Flavour::MetaServer);
    }
    // MetaServer passes protobuf on and calls it JSON.
    match client.request_text(get("/apis")?).await {
        Ok(text) if text.starts_with("k8s") => return Ok(Flavour::MetaServer),
        Err(kube::Error::FromUtf8(_)) => return Ok(Flavour::MetaServer),
        Ok(_) => {}
        Err(kube::Error::Api(_)) => {}
        Err(error) => return Err(error),
    }
    let version: serde_json::Value = client.request(get("/version")?).await?;
    let minor = version["minor"].as_str().unwrap_or_default();
    let digits: String = minor.chars().take_while(char::is_ascii_digit).collect();
    let streams = digits.parse::<u32>().is_ok_and(|minor| minor >= STREAMS_LISTS);
    Ok(Flavour::ApiServer { streams })
}

fn get(path: &str) -> Result<Request<Vec<u8>>, kube::Error> {
    Request::get(path).body(Vec::new()).map_err(kube::Error::HttpError)
}

/// Owns the tasks of connections.
#[derive(Clone)]
struct Keeper {
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Keeper {
    fn execute(&self, connection: F) {
        self.tasks.spawn(self.stop.clone().run_until_cancelled_owned(connection));
    }
}
