//! Built-in clients: HTTP/1.1 on one connection, redis' PING, and one that listens first.

use std::collections::BTreeMap;
use std::io::Read;
use std::io::Write;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::net::ToSocketAddrs;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use anyhow::bail;
use bytes::Bytes;
use http::Request;
use http::StatusCode;
use http::header::HOST;
use http::header::RETRY_AFTER;
use http_body_util::BodyExt;
use http_body_util::Empty;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;

use crate::demo::clock::now;
use crate::demo::world::Place;
use crate::demo::world::World;

/// How long a connection or an answer may take: a black hole must not look like patience.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(3);
/// Longest greeting that is read.
const GREETING: usize = 256;

/// Where calls begin and which way they take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way {
    /// Whose network they come from.
    pub(crate) from: Place,
    /// The explicit proxy, where nothing is captured.
    pub(crate) proxy: Option<SocketAddr>,
}

/// Who answered how often.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Good answers, by what they said.
    pub(crate) answers: BTreeMap<String, u32>,
    /// All other calls, by their status or error.
    pub(crate) failures: BTreeMap<String, u32>,
    /// Connections that were made for them.
    pub(crate) connections: u32,
    /// How long each good call took, in microseconds.
    pub(crate) micros: Vec<u32>,
}

impl Tally {
    pub(crate) fn answered(&self) -> u32 {
        self.answers.values().sum()
    }

    pub(crate) fn failed(&self) -> u32 {
        self.failures.values().sum()
    }

    /// Notes one call.
    pub(crate) fn note(&mut self, answer: anyhow::Result<String>) {
        let (counts, key) = match answer {
            Ok(who) => (&mut self.answers, who),
            Err(error) => (&mut self.failures, format!("{error:#}")),
        };
        *counts.entry(key).or_default() += 1;
    }

    /// Notes one call that began then.
    pub(crate) fn timed(&mut self, begin: Instant, answer: anyhow::Result<String>) {
        if answer.is_ok() {
            self.took(now() - begin);
        }
        self.note(answer);
    }

    /// Notes how long a good call took.
    pub(crate) fn took(&mut self, time: Duration) {
        self.micros.push(u32::try_from(time.as_micros()).unwrap_or(u32::MAX));
    }

    /// `hello-1 10, hello-2 10`, then what failed.
    pub(crate) fn text(&self) -> String {
        let all = self.answers.iter().chain(&self.failures);
        let parts: Vec<_> = all.map(|(who, count)| format!("{who} {count}")).collect();
        parts.join(", ")
    }
}

/// One HTTP answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    /// The body, without blanks around it.
    pub(crate) body: String,
    /// `Retry-After`, in seconds.
    pub(crate) retry_after: Option<u64>,
    /// `x-edgemesh-refusal`.
    pub(crate) refusal: Option<String>,
}

impl Answer {
    /// The body of a 200; else the status and why.
    pub(crate) fn good(self) -> anyhow::Result<String> {
        match (self.status, self.refusal) {
            (StatusCode::OK, _) => Ok(self.body),
            (status, None) => bail!("{}", status.as_u16()),
            (status, Some(refusal)) => bail!("{} {refusal}", status.as_u16()),
        }
    }
}

/// One HTTP/1.1 connection.
#[derive(Debug)]
pub(crate) struct Http {
    sender: SendRequest<Empty<Bytes>>,
    uri: String,
    host: String,
}

/// A connection to `authority` (`NAME:PORT`), resolved and made in `place`.
pub(crate) fn connect(
    world: &World,
    place: Place,
    authority: &str,
) -> anyhow::Result<std::net::TcpStream> {
    world.within(place, || {
        let mut addresses: Vec<_> = authority
            .to_socket_addrs()
            .with_context(|| format!("no address of {authority}"))?
            .collect();
        // IPv4 first, as the Backends that a load is compared with; curl shows IPv6.
        addresses.sort_by_key(SocketAddr::is_ipv6);
        let address = *addresses.first().with_context(|| format!("no address of {authority}"))?;
        let stream = std::net::TcpStream::connect_timeout(&address, TIMEOUT)
            .with_context(|| format!("no connection to {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        Ok(stream)
    })
}

/// The same for asynchronous use.
pub(crate) fn connect_async(
    world: &World,
    place: Place,
    authority: &str,
) -> anyhow::Result<tokio::net::TcpStream> {
    let stream = connect(world, place, authority)?;
    stream.set_nonblocking(true)?;
    let _inside = world.runtime.enter();
    Ok(tokio::net::TcpStream::from_std(stream)?)
}

impl Http {
    /// Connects to `authority`, or to the proxy that leads there.
    pub(crate) fn open(world: &World, way: Way, authority: &str) -> anyhow::Result<Self> {
        let (to, uri) = match way.proxy {
            None => (authority.to_owned(), "/".to_owned()),
            Some(proxy) => (proxy.to_string(), format!("http://{authority}/")),
        };
        let stream = connect_async(world, way.from, &to)?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream));
        let (sender, connection) = world.runtime.block_on(handshake)?;
        world.runtime.spawn(connection);
        Ok(Self { sender, uri, host: authority.into() })
    }

    /// One call, bounded in time.
    pub(crate) async fn get(&mut self) -> anyhow::Result<Answer> {
        self.get_with(None).await
    }

    /// The same with a header field of its own.
    pub(crate) async fn get_with(&mut self, field: Option<(&str, &str)>) -> anyhow::Result<Answer> {
        let mut request = Request::get(&self.uri).header(HOST, &self.host);
        if let Some((name, value)) = field {
            request = request.header(name, value);
        }
        let request = request.body(Empty::new())?;
        let exchange = async {
            self.sender.ready().await?;
            let response = self.sender.send_request(request).await?;
            let status = response.status();
            let header = |name| response.headers().get(name)?.to_str().ok().map(str::to_owned);
            let retry_after = header(RETRY_AFTER.as_str()).and_then(|text| text.parse().ok());
            let refusal = header("x-edgemesh-refusal");
            let body = response.into_body().collect().await?.to_bytes();
            let body = String::from_utf8_lossy(&body).trim().to_owned();
            Ok(Answer { status, body, retry_after, refusal })
        };
        tokio::time::timeout(TIMEOUT, exchange).await.context("no answer in time")?
    }

    /// Whether another call can be made on it.
    pub(crate) fn is_open(&self) -> bool {
        !self.sender.is_closed()
    }
}

/// `count` calls, on one connection as long as it lasts.
pub(crate) fn calls(world: &World, way: Way, authority: &str, count: u32) -> Tally {
    let mut tally = Tally::default();
    let mut open: Option<Http> = None;
    for _ in 0..count {
        let mut http = match open.take().filter(Http::is_open) {
            Some(http) => http,
            None => match Http::open(world, way, authority) {
                Ok(http) => {
                    tally.connections += 1;
                    http
                }
                Err(error) => {
                    tally.note(Err(error));
                    return tally; // the next would not get further
                }
            },
        };
        let begin = now();
        let answer = world.runtime.block_on(http.get());
        tally.timed(begin, answer.and_then(Answer::good));
        open = Some(http);
    }
    tally
}

/// `PING` as redis' clients send it, and when the answer came.
pub(crate) fn ping(
    world: &World,
    from: Place,
    authority: &str,
) -> anyhow::Result<(String, Duration)> {
    let mut stream = connect(world, from, authority)?;
    let begin = now();
    stream.write_all(b"*1\r\n$4\r\nPING\r\n")?;
    Ok((line(&mut stream)?, now() - begin))
}

/// Says nothing, and gives the first bytes of whoever speaks first, and when they came.
pub(crate) fn greeting(
    world: &World,
    from: Place,
    authority: &str,
) -> anyhow::Result<(Vec<u8>, Duration)> {
    let mut stream = connect(world, from, authority)?;
    let begin = now();
    let mut bytes = vec![0; GREETING];
    let length = stream.read(&mut bytes).context("nothing was said")?;
    bytes.truncate(length);
    Ok((bytes, now() - begin))
}

/// Every address of a name, as the C library finds them.
pub(crate) fn resolve(world: &World, from: Place, name: &str) -> anyhow::Result<Vec<IpAddr>> {
    world.within(from, || {
        let found =
            (name, 80).to_socket_addrs().with_context(|| format!("no address of {name}"))?;
        let mut addresses: Vec<_> = found.map(|address| address.ip()).collect();
        addresses.sort_unstable();
        Ok(addresses)
    })
}

fn line(stream: &mut std::net::TcpStream) -> anyhow::Result<String> {
    let mut text = Vec::new();
    let mut byte = [0];
    while text.len() < GREETING && stream.read(&mut byte).context("nothing was said")? == 1 {
        if byte == *b"\n" {
            return Ok(String::from_utf8_lossy(&text).trim().to_owned());
        }
        text.push(byte[0]);
    }
    bail!("the connection ended in the middle of a line")
}
