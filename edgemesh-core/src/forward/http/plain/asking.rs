//! Asks a Backend, over a kept connection or a new one, and the next one where the first cannot be
//! reached.

use std::future::poll_fn;
use std::io;
use std::sync::atomic::Ordering::Relaxed;

use http::HeaderMap;

use crate::forward::Shared;
use crate::forward::http::call::Call;
use crate::forward::http::plain::Wire;
use crate::forward::http::plain::answered::{self, Answered, Said};
use crate::forward::http::plain::asked::Asked;
use crate::forward::http::pool::FRESH_FOR;
use crate::forward::http::upstream::{INTERIM_LIMIT, STALE_TRIES, dial};
use crate::io::now;
use crate::plan::{Hop, Outcome, Purpose};
use crate::refusal::Refusal;

/// Why no Backend has answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unanswered {
    pub(super) refusal: Refusal,
    pub(super) backends_fault: bool,
}

/// A Backend that has not answered, and whether it can have heard anything.
#[derive(Clone, Copy, Debug)]
struct Failure {
    unanswered: Unanswered,
    sent: bool,
}

/// A connection that broke before its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Broke {
    /// Before it took a byte.
    Unsent,
    /// It ended in order: what servers do with connections that nobody used.
    Ended,
    /// It was reset.
    Reset,
    /// What came is no answer.
    Malformed,
}

/// Asks the Backend of `hop`, and others where that one cannot be reached; `hop` is the last one's.
/// An answer's body follows on the connection.
pub(super) async fn ask(
    call: &mut Call,
    hop: &mut Hop,
    asked: &Asked,
) -> Result<(Wire, Box<Answered>), Unanswered> {
    let shared = call.origin.shared.clone();
    let mut tried = Vec::new();
    loop {
        let Failure { unanswered, sent } = match attempt(&shared, hop, asked).await {
            Ok(answered) => return Ok(answered),
            Err(failure) => failure,
        };
        let policy = hop.service().policy.retries;
        if sent || !policy.on_connect || call.attempts > policy.attempts {
            return Err(unanswered);
        }
        tried.push(hop.spot());
        let next = call.plan(Purpose::Retry(&tried), asked.head(&HeaderMap::new()));
        // Records that have changed since may want more than this.
        let plain = |next: &Hop| next.backend().is_dialled() && next.route().is_none();
        let Some(next) = next.ok().filter(plain) else { return Err(unanswered) };
        shared.metrics.retries.fetch_add(1, Relaxed);
        let ill = std::mem::replace(hop, next);
        ill.finish(if unanswered.backends_fault { Outcome::Bad } else { Outcome::Neutral }, now());
    }
}

async fn attempt(
    shared: &Shared,
    hop: &Hop,
    asked: &Asked,
) -> Result<(Wire, Box<Answered>), Failure> {
    let may_repeat = asked.is_harmless() || hop.service().policy.retries.non_idempotent;
    for _ in 0..STALE_TRIES {
        let Some((mut kept, age)) = shared.pools.take::<Wire>(hop.address(), !may_repeat, now())
        else {
            break;
        };
        match say_and_hear(&mut kept, asked).await {
            Ok(answered) => return Ok((kept, answered)),
            Err(Broke::Unsent) => {}
            // Its Backend may have been closing it at that very moment. Once: a request that breaks
            // its Backend must not break several.
            Err(broke) if may_repeat && (broke == Broke::Ended || age >= FRESH_FOR) => {
                break;
            }
            Err(broke) => return Err(broke.into()),
        }
    }
    let stream = dial(shared, hop, None).await.map_err(|failure| {
        let crate::forward::http::upstream::Failure { refusal, backends_fault, .. } = failure;
        Failure { unanswered: Unanswered { refusal, backends_fault }, sent: false }
    })?;
    let mut new = Wire::backend(stream);
    let answered = say_and_hear(&mut new, asked).await?;
    Ok((new, answered))
}

/// Sends a request, and reads the head of its answer.
async fn say_and_hear(backend: &mut Wire, asked: &Asked) -> Result<Box<Answered>, Broke> {
    let mut sent = 0;
    let said = poll_fn(|cx| backend.poll_write(cx, &asked.sent, &mut sent)).await;
    match said {
        // What it said before it stopped listening may still be an answer.
        Ok(()) => {}
        Err(_) if sent == 0 => return Err(Broke::Unsent),
        Err(_) => {}
    }
    let mut interim = 0;
    loop {
        if let Some(answered) = heard(backend, asked, &mut interim)? {
            return Ok(answered);
        }
        match poll_fn(|cx| backend.poll_read(cx)).await {
            Ok(0) => return Err(Broke::Ended),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Err(Broke::Ended),
            Err(_) => return Err(Broke::Reset),
        }
    }
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

impl From<Broke> for Failure {
    fn from(broke: Broke) -> Self {
        let refusal = match broke {
            Broke::Unsent | Broke::Ended | Broke::Reset => Refusal::BackendReset,
            Broke::Malformed => Refusal::BackendProtocol,
        };
        let unanswered = Unanswered { refusal, backends_fault: true };
        Self { unanswered, sent: broke != Broke::Unsent }
    }
}
