//! Endpoint type `rest`: a URL that is called over HTTP/1.1.
//!
//! A message is sent once and its answer comes back as it is. Only a request that hyper hands back,
//! since it never left, is sent again: a server closes the connections that it was kept on. gRPC ends with
//! trailers over HTTP/2, and is refused.

mod fault;

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use edgemesh_core::forward::inbox::{AnswerBody, AnswerError, Undelivered};
use edgemesh_core::refusal::Refusal;
use edgemesh_core::snapshot::rules::RestTarget;
use http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE,
    TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, Uri, Version};
use http_body::Body;
use http_body_util::BodyExt as _;
use hyper::rt::Executor;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioTimer;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::providers::connect::{Connect, Opener};

/// Connections to one server that wait for their next request.
const IDLE_CONNECTIONS: usize = 8;
/// How long one waits. A request that crosses with the server's close may be lost, and is not sent again:
/// no server in wide use closes within a second (gunicorn after 2 s, Node after 5 s).
const IDLE_AFTER: Duration = Duration::from_millis(900);
/// What is between two neighbours only (RFC 9110 §7.6.1).
const BETWEEN_NEIGHBOURS: [HeaderName; 9] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// See the module. Clones share their connections.
#[derive(Clone)]
pub struct Rest {
    client: Client<Opener, AnswerBody>,
    exchanges: TaskTracker,
}

impl Rest {
    /// Calls over connections of `connect`, which `tasks` own. After `stop` they end with the answers
    /// that are under way on them.
    pub fn new(connect: Connect, tasks: &TaskTracker, stop: CancellationToken) -> Self {
        let exchanges = TaskTracker::new();
        exchanges.close();
        let keeper = Keeper { tasks: tasks.clone(), exchanges: exchanges.clone(), stop };
        let client = Client::builder(keeper)
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_AFTER)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .set_host(false)
            .build(Opener::new(connect));
        Self { client, exchanges }
    }

    /// Calls `target`; path and query of `request` are what it wants already.
    ///
    /// # Errors
    /// There was no answer.
    pub async fn deliver<B>(
        &self,
        target: &RestTarget,
        request: Request<B>,
    ) -> Result<Response<AnswerBody>, Undelivered>
    where
        B: Body<Data = Bytes, Error: Into<AnswerError>> + Send + 'static,
    {
        if is_grpc(request.headers()) {
            let reason =
                "gRPC is not called by URL: lead the Rule to a Service, which is reached by HTTP/2";
            return Err(Undelivered {
                refusal: Refusal::Unsupported,
                sent: false,
                reason: reason.into(),
            });
        }
        // Held by the answer's body too: until its end the connection is in use.
        let exchange = self.exchanges.token();
        let request = towards(target, request).map(|body| body.map_err(Into::into).boxed_unsync());
        let called = self.client.request(request).await;
        let mut answer = called.map_err(|error| fault::undelivered(&error, &target.authority))?;
        take_out_what_is_between_neighbours(answer.headers_mut());
        Ok(answer.map(|body| {
            let held = body.map_frame(move |frame| {
                let _ = &exchange;
                frame
            });
            held.map_err(Into::into).boxed_unsync()
        }))
    }
}

impl fmt::Debug for Rest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rest").field("exchanges", &self.exchanges.len()).finish_non_exhaustive()
    }
}

/// The same request, to `target`.
fn towards<B: Body>(target: &RestTarget, request: Request<B>) -> Request<B> {
    let (mut head, body) = request.into_parts();
    let scheme = if target.tls { Scheme::HTTPS } else { Scheme::HTTP };
    let path = head.uri.path_and_query().cloned();
    let mut uri = http::uri::Parts::default();
    uri.scheme = Some(scheme);
    uri.authority = Some(target.authority.clone());
    uri.path_and_query = Some(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
    // Of three parts that are well-formed a URI can be made.
    head.uri = Uri::from_parts(uri).unwrap_or_default();
    head.version = Version::HTTP_11;
    take_out_what_is_between_neighbours(&mut head.headers);
    if let Ok(host) = HeaderValue::from_str(target.authority.as_str()) {
        head.headers.insert(HOST, host);
    }
    // Of a GET hyper would otherwise believe that it has no body, and drop it.
    let of_unknown_size = !body.is_end_stream() && body.size_hint().exact().is_none();
    if of_unknown_size && !head.headers.contains_key(CONTENT_LENGTH) {
        head.headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    Request::from_parts(head, body)
}

/// Whether a call is gRPC, whose status comes in trailers; gRPC-Web, which passes over HTTP/1.1, is not.
fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let more = kind.and_then(|kind| kind.strip_prefix(b"application/grpc"));
    more.is_some_and(|more| matches!(more.first(), None | Some(b'+' | b';')))
}

fn take_out_what_is_between_neighbours(headers: &mut HeaderMap) {
    let listed: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in listed.iter().chain(&BETWEEN_NEIGHBOURS) {
        headers.remove(name);
    }
}

/// Owns the tasks of connections.
#[derive(Clone)]
struct Keeper {
    tasks: TaskTracker,
    exchanges: TaskTracker,
    stop: CancellationToken,
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Keeper {
    fn execute(&self, connection: F) {
        let Self { tasks, exchanges, stop } = self.clone();
        tasks.spawn(async move {
            tokio::select! {
                () = connection => {}
                () = async { stop.cancelled().await; exchanges.wait().await } => {}
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use http::uri::Authority;
    use http_body_util::Full;

    use super::*;

    #[test]
    fn what_arrives_is_what_was_sent_but_for_the_way() {
        let target = RestTarget {
            tls: true,
            authority: Authority::from_static("a.example:8443"),
            path: "/x".into(),
            query: None,
        };
        let request = Request::put("/x/y?k=v")
            .header("host", "mesh")
            .header("connection", "close, x-own")
            .header("x-own", "1")
            .header("te", "trailers")
            .header("content-length", "3")
            .header("x-kept", "yes");
        let sent = towards(&target, request.body(Full::new(Bytes::from_static(b"abc"))).unwrap());
        assert_eq!(sent.uri(), "https://a.example:8443/x/y?k=v");
        assert_eq!(
            (sent.method().as_str(), sent.headers()["host"].as_bytes()),
            ("PUT", &b"a.example:8443"[..])
        );
        let mut names: Vec<_> = sent.headers().keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["content-length", "host", "x-kept"]);
    }
}
