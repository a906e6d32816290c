//! Asks a Backend, over a kept connection or a new one, and the next one where the first cannot be
//! reached.

use std::future::poll_fn;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;
use std::time::{Duration, Instant};

use http::HeaderMap;

use crate::forward::Shared;
use crate::forward::across::Calling;
use crate::forward::http::ending::Ending;
use crate::forward::http::exchange::Went;
use crate::forward::http::plain::alarm::Alarm;
use crate::forward::http::plain::answered::{self, Answered, Said};
use crate::forward::http::plain::asked::Asked;
use crate::forward::http::plain::client::{Client, Gone, unless_gone};
use crate::forward::http::plain::delivery::Upstream;
use crate::forward::http::plain::upload::Upload;
use crate::forward::http::plain::{Wire, across};
use crate::forward::http::pool::FRESH_FOR;
use crate::forward::http::upstream::{
    Failure as Undialled, HEAD_TIMEOUT, INTERIM_LIMIT, STALE_TRIES, dial,
};
use crate::io::now;
use crate::plan::{Hop, Outcome, Purpose};
use crate::refusal::Refusal;

/// Why no Backend has answered.
#[derive(Clone, Copy, Debug)]
pub(super) enum Unanswered {
    /// That is why.
    Refused {
        /// What the client is told.
        refusal: Refusal,
        /// Whose fault it is.
        backends_fault: bool,
    },
    /// Nobody waits for the answer any more.
    Gone,
}

/// A Backend that has not answered, and whether it can have heard anything.
#[derive(Clone, Copy, Debug)]
pub(super) struct Failure {
    pub(super) unanswered: Unanswered,
    pub(super) sent: bool,
}

/// A connection that broke before its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broke {
    /// Its client left.
    Gone,
    /// Its Backend took too long.
    Late,
    /// Before it took a byte.
    Unsent,
    /// It ended in order: what servers do with connections that nobody used.
    Ended,
    /// It was reset.
    Reset,
    /// What came is no answer.
    Malformed,
}

/// Asks the Backend that was chosen, and others where that one cannot be reached. An answer's body
/// follows on the connection.
pub(super) async fn ask(
    Ending { call, hop, .. }: &mut Ending,
    asked: &Asked,
    upload: &mut Upload<'_>,
    alarm: &mut Alarm,
) -> Result<(Upstream, Box<Answered>), Unanswered> {
    let shared = call.origin.shared.clone();
    let mut tried = Vec::new();
    loop {
        let attempted = if hop.backend().is_dialled() {
            let at = if tried.is_empty() { call.began } else { now() };
            let asking = Asking { shared: &shared, hop, asked, at };
            asking.attempt(upload, alarm).await.map(|(near, told)| (Upstream::Near(near), told))
        } else {
            let (message, caller) = (call.passes_on(), call.origin.caller());
            let went = Went { call, hop };
            let calling = Calling { shared: &shared, hop, caller, message };
            // In a place of its own: a connection that waits shall not be as large as this.
            let attempted = Box::pin(across::attempt(calling, asked, upload, alarm)).await;
            drop(went);
            attempted.map(|(far, told)| (Upstream::Far(far), told))
        };
        let Failure { unanswered, sent } = match attempted {
            Ok(answered) => return Ok(answered),
            Err(failure) => failure,
        };
        let Unanswered::Refused { refusal, backends_fault } = unanswered else {
            return Err(unanswered);
        };
        if let (false, Refusal::Unhealthy { retry_after }) = (hop.backend().is_dialled(), refusal) {
            hop.rest(retry_after, now()); // the agent of its node leaves it alone
        }
        let policy = hop.service().policy.retries;
        if sent || !policy.on_connect || call.attempts > policy.attempts {
            return Err(unanswered);
        }
        tried.push(hop.spot());
        let next = call.plan(Purpose::Retry(&tried), asked.head(&HeaderMap::new()));
        // Records that have changed since may want more than this.
        let plain = |next: &Hop| {
            next.route().is_none() && (next.backend().is_dialled() || asked.later == 0)
        };
        let Some(next) = next.ok().filter(plain) else { return Err(unanswered) };
        shared.metrics.retries.fetch_add(1, Relaxed);
        let ill = std::mem::replace(hop, next);
        ill.finish(if backends_fault { Outcome::Bad } else { Outcome::Neutral }, now());
    }
}

/// One attempt.
pub(super) struct Asking<'a> {
    pub(super) shared: &'a Shared,
    pub(super) hop: &'a Hop,
    pub(super) asked: &'a Asked,
    /// When it begins.
    pub(super) at: Instant,
}

impl Asking<'_> {
    pub(super) async fn attempt(
        &self,
        client: &mut impl Client,
        alarm: &mut Alarm,
    ) -> Result<(Wire, Box<Answered>), Failure> {
        let Self { shared, hop, asked, at } = *self;
        let harmless = asked.is_idempotent() || hop.service().policy.retries.non_idempotent;
        // What follows its head can be read once.
        let may_repeat = harmless && asked.later == 0;
        for _ in 0..STALE_TRIES {
            let kept = shared.pools.take::<Wire>(hop.address(), !may_repeat, at);
            let Some((mut kept, age)) = kept else { break };
            match say_and_hear(&mut kept, asked, client, alarm).await {
                Ok(answered) => return Ok((kept, answered)),
                Err(Broke::Unsent) => {}
                // Its Backend may have been closing it at that very moment. Once: a request that
                // breaks its Backend must not break several.
                Err(broke) if may_repeat && broke.may_be_stale(age) => break,
                Err(broke) => return Err(broke.into()),
            }
        }
        let dialled = unless_gone(client, dial(shared, hop, None)).await?;
        let mut new = Wire::backend(dialled?);
        let answered = say_and_hear(&mut new, asked, client, alarm).await?;
        Ok((new, answered))
    }
}

/// Sends a request, and reads the head of its answer, for which its Backend has [`HEAD_TIMEOUT`] once
/// it was asked.
async fn say_and_hear(
    backend: &mut Wire,
    asked: &Asked,
    client: &mut impl Client,
    alarm: &mut Alarm,
) -> Result<Box<Answered>, Broke> {
    let (mut sent, mut interim) = (0, 0);
    poll_fn(|cx| {
        match backend.poll_write(cx, &asked.sent, &mut sent) {
            Poll::Ready(Err(_)) if sent == 0 => return Poll::Ready(Err(Broke::Unsent)),
            // What it said before it stopped listening may still be an answer.
            Poll::Ready(Ok(()) | Err(_)) => {}
            Poll::Pending if client.has_left(cx) => {
                return Poll::Ready(Err(Broke::Gone));
            }
            Poll::Pending => return Poll::Pending,
        }
        loop {
            if let Some(answered) = heard(backend, asked, &mut interim)? {
                return Poll::Ready(Ok(answered));
            }
            match backend.poll_read(cx) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(Broke::Ended)),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Broke::Reset)),
                Poll::Pending => break,
            }
        }
        let was_asking = !client.is_whole();
        client.poll(cx, backend).map_err(|Gone| Broke::Gone)?;
        if !client.is_whole() {
            return Poll::Pending; // who is still being asked cannot be late
        }
        if was_asking {
            alarm.set(now(), HEAD_TIMEOUT);
        }
        alarm.poll(cx).map(|()| Err(Broke::Late))
    })
    .await
}

/// The answer, if its head is here. Interim ones, which nobody waits for, are left out.
fn heard(
    backend: &mut Wire,
    asked: &Asked,
    interim: &mut usize,
) -> Result<Option<Box<Answered>>, Broke> {
    while !backend.unread.is_empty() {
        match answered::read(&backend.unread, &asked.named.method) {
            Said::Answer(answered, length) => {
                backend.used(length);
                return Ok(Some(answered));
            }
            Said::Interim(length) => {
                *interim += length;
                if *interim > INTERIM_LIMIT {
                    return Err(Broke::Malformed);
                }
                backend.used(length);
            }
            Said::Part => return Ok(None),
            Said::Malformed => return Err(Broke::Malformed),
        }
    }
    Ok(None)
}

impl Broke {
    /// Whether a kept connection that nobody used for `age` may just have been closed.
    fn may_be_stale(self, age: Duration) -> bool {
        match self {
            Self::Ended => true,
            Self::Reset | Self::Malformed => age >= FRESH_FOR,
            Self::Unsent | Self::Gone | Self::Late => false,
        }
    }
}

impl From<Broke> for Failure {
    fn from(broke: Broke) -> Self {
        let refusal = match broke {
            Broke::Gone => return Self { unanswered: Unanswered::Gone, sent: true },
            Broke::Late => Refusal::RequestTimeout,
            Broke::Unsent | Broke::Ended | Broke::Reset => Refusal::BackendReset,
            Broke::Malformed => Refusal::BackendProtocol,
        };
        let unanswered = Unanswered::Refused { refusal, backends_fault: true };
        Self { unanswered, sent: broke != Broke::Unsent }
    }
}

impl From<Gone> for Failure {
    fn from(Gone: Gone) -> Self {
        Broke::Gone.into()
    }
}

impl From<Undialled> for Failure {
    fn from(Undialled { refusal, backends_fault, .. }: Undialled) -> Self {
        Self { unanswered: Unanswered::Refused { refusal, backends_fault }, sent: false }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::forward::http::plain::asked;
    use crate::forward::http::upload::Uploaded;
    use crate::io::pair;

    /// A body may take longer to say than an answer may: its time begins when it was asked for.
    #[tokio::test(start_paused = true)]
    async fn a_backend_is_late_only_once_it_was_asked() {
        let ((near, mut client), (to_backend, _backend)) = (pair().await, pair().await);
        let said = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n";
        let asked::Said::Plain(asked) = asked::read(said, "") else { panic!("it is plain") };
        let mut near = Wire::client(near, Vec::new());
        let mut upload = Upload::new(&mut near, asked.later, Arc::new(Uploaded::of_bytes(0)));
        let (mut backend, mut alarm) = (Wire::backend(to_backend), Alarm::new());
        let start = tokio::time::Instant::now();
        let (mut asking, talk) =
            (std::pin::pin!(say_and_hear(&mut backend, &asked, &mut upload, &mut alarm)), async {
                for piece in [b"a", b"b", b"c"] {
                    tokio::time::sleep(HEAD_TIMEOUT).await;
                    client.write_all(piece).await.unwrap();
                }
            });
        tokio::select! {
            answered = &mut asking => panic!("{answered:?} while it is being asked"),
            () = talk => {}
        }
        assert_eq!(asking.await.unwrap_err(), Broke::Late);
        assert_eq!(start.elapsed().as_secs() / HEAD_TIMEOUT.as_secs(), 4);
    }
}
