//! Requests of the embedding application, by the name of a Service: a `tower::Service`.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::{CONTENT_LENGTH, HOST};
use http::uri::Scheme;
use http::{HeaderValue, Method, Request, Response, Version};
use http_body::Body as HttpBody;
use tower_service::Service;

use crate::forward::Shared;
use crate::forward::http::{Body, Origin, Towards, Unserved, send};
use crate::mesh::doors::{APPLICATION, Refused};
use crate::refusal::Refusal;
use crate::snapshot::Spot;

/// Any error of an application's body.
type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Sends requests to Services by name: `http://svc.ns/path`, with a port where it is not 80. Made
/// by [`Mesh::http`](crate::mesh::Mesh::http); clones share connections.
///
/// Each request is balanced by itself, over pooled connections, under the limits, breakers and
/// retries of the Service's Policy, as the proxy would do it. `HTTP_2` requests are sent as HTTP/2,
/// all others as HTTP/1.1. The future resolves with the head of the answer; dropping it, or the
/// answer's body, cancels the call. It is always ready: what bounds calls in flight is the caller.
///
/// # Errors
/// [`Refused`]. A status that a Backend sent is an answer and no error.
#[derive(Clone, Debug)]
pub struct Http {
    origin: Arc<Origin>,
}

impl Http {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let towards = Towards::Library;
        let (place, client, dialled, passed) = (None, APPLICATION, None, None);
        let origin = Origin { shared, place, client, towards, dialled, passed };
        Self { origin: Arc::new(origin) }
    }

    /// Sends `request` to a Backend that is none of `tried`.
    pub(super) async fn attempt<B>(
        &self,
        mut request: Request<B>,
        tried: Vec<Spot>,
    ) -> Result<Response<Body>, (Refused, Option<Unserved>)>
    where
        B: HttpBody<Data: Send, Error: Into<BoxError>> + Send + 'static,
    {
        prepare(&mut request).map_err(|refused| (refused, None))?;
        let to = request.headers().get(HOST).cloned();
        send(self.origin.clone(), request, tried).await.map_err(|unserved| {
            let to = to.as_ref().and_then(|to| to.to_str().ok()).unwrap_or_default();
            (Refused { refusal: unserved.refusal, to: to.into(), hint: "" }, Some(unserved))
        })
    }

    /// Counts a repeat that was not the engine's.
    pub(super) fn repeated(&self) {
        use std::sync::atomic::Ordering::Relaxed;
        self.origin.shared.metrics.retries.fetch_add(1, Relaxed);
    }
}

/// The future of a request; [`Http`] says what dropping it does.
pub type Answering = Pin<Box<dyn Future<Output = Result<Response<Body>, Refused>> + Send>>;

impl<B> Service<Request<B>> for Http
where
    B: HttpBody<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    type Response = Response<Body>;
    type Error = Refused;
    type Future = Answering;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Refused>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Answering {
        let http = self.clone();
        Box::pin(
            async move { http.attempt(request, Vec::new()).await.map_err(|(refused, _)| refused) },
        )
    }
}

/// Gives a request the form that a client's has on the wire.
fn prepare<B: HttpBody>(request: &mut Request<B>) -> Result<(), Refused> {
    let (uri, method) = (request.uri().clone(), request.method());
    let refused = |hint| Refused {
        refusal: Refusal::BadRequest,
        to: uri.authority().map_or("", |authority| authority.as_str()).into(),
        hint,
    };
    if *method == Method::CONNECT {
        return Err(refused("`Mesh::connect` gives a connection of bytes"));
    }
    if uri.scheme().is_some_and(|scheme| *scheme != Scheme::HTTP) {
        return Err(refused("only `http:`; TLS is carried as bytes, by `Mesh::connect`"));
    }
    let host = uri.authority().and_then(|host| HeaderValue::from_str(host.as_str()).ok());
    let host = host.ok_or_else(|| refused("name a Service: `http://svc.ns/path`"))?;
    if request.version() != Version::HTTP_2 {
        *request.version_mut() = Version::HTTP_11;
    }
    request.headers_mut().insert(HOST, host);
    let length = request.body().size_hint().exact().filter(|length| *length > 0);
    if let (Some(length), false) = (length, request.headers().contains_key(CONTENT_LENGTH)) {
        request.headers_mut().insert(CONTENT_LENGTH, length.into());
    }
    Ok(())
}
