//! Why an exchange or a Link failed, and what a peer is told of it.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;

use h2::Reason;

use crate::link::BoxError;
use crate::link::wire::Line;

/// What a failure means to whoever asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Nothing of the exchange can have had an effect: it may be tried elsewhere, whatever it is.
    NotSent,
    /// The other side's application gave the exchange up.
    Cancelled,
    /// The Link, or the exchange, broke off. Whatever was said until then may have had its effect.
    Broken,
    /// The other side breaks the rules of a Link, or speaks something else.
    Protocol,
    /// The other side did not answer in time.
    TimedOut,
}

/// Why an exchange or a Link failed.
pub struct LinkError(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: Failure,
    what: Cow<'static, str>,
    /// The other side said so; the connection goes on.
    is_remote: bool,
    /// The label that came in the trailers.
    refusal: Option<Box<str>>,
    source: Option<BoxError>,
}

impl LinkError {
    pub(super) fn new(kind: Failure, what: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner {
            kind,
            what: what.into(),
            is_remote: false,
            refusal: None,
            source: None,
        }))
    }

    pub(super) fn because(mut self, source: impl Into<BoxError>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Ends a body before its end for a reason that the other side is told: the label of a Refusal.
    /// As the error of a [`Rest`](crate::link::Rest) it becomes trailers in place of a reset.
    pub fn refused(label: &str) -> Self {
        let mut error = Self::new(Failure::Broken, format!("broken off: {label}"));
        error.0.refusal = Some(label.into());
        error
    }

    /// What HTTP/2 says of an exchange; `untouched` = it did not so much as take its first bytes.
    pub(super) fn of_http2(error: h2::Error, untouched: bool) -> Self {
        let (reason, remote) = (error.reason(), error.is_remote());
        // RFC 9113 §8.7: neither REFUSED_STREAM nor what lies beyond the last stream of an orderly
        // GOAWAY was looked at.
        let unseen = remote
            && (reason == Some(Reason::REFUSED_STREAM)
                || reason == Some(Reason::NO_ERROR) && error.is_go_away());
        let (kind, what) = if unseen {
            (Failure::NotSent, "the other side takes no more exchanges")
        } else if untouched {
            (Failure::NotSent, "the Link was closed before anything left")
        } else {
            return Self::of_body(error);
        };
        let mut made = Self::new(kind, what).because(error);
        made.0.is_remote = remote;
        made
    }

    /// What HTTP/2 says in the middle of an exchange, where something was done already.
    pub(super) fn of_body(error: h2::Error) -> Self {
        let remote = error.is_remote();
        let (kind, what) = match error.reason() {
            Some(Reason::CANCEL) if remote => {
                (Failure::Cancelled, "the other side gave the exchange up")
            }
            Some(Reason::NO_ERROR) if remote => {
                (Failure::Broken, "the other side broke the exchange off in silence")
            }
            _ if remote && error.is_reset() => {
                (Failure::Broken, "the other side broke the exchange off")
            }
            _ => (Failure::Broken, "the Link broke"),
        };
        let mut made = Self::new(kind, what).because(error);
        made.0.is_remote = remote;
        made
    }

    /// The same, in the words of the connection where it is the connection that broke.
    pub(super) fn or_of_line(mut self, line: &Line) -> Self {
        if !self.0.is_remote
            && let Some(why) = line.why()
        {
            self.0.what = format!("the Link broke: {why}").into();
        }
        self
    }

    /// What it means.
    pub const fn kind(&self) -> Failure {
        self.0.kind
    }

    /// The label of the Refusal for which the other side broke its answer off, if it said so.
    pub fn refusal(&self) -> Option<&str> {
        self.0.refusal.as_deref()
    }

    /// What a third is told, to whom the exchange is passed on.
    pub(super) const fn reason(&self) -> Reason {
        match self.0.kind {
            Failure::Cancelled => Reason::CANCEL,
            Failure::NotSent | Failure::Broken | Failure::Protocol | Failure::TimedOut => {
                Reason::INTERNAL_ERROR
            }
        }
    }
}

impl fmt::Debug for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.what)
    }
}

impl Error for LinkError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

/// Why a body of ours ends before its end, and how.
#[derive(Debug)]
pub(super) struct Cut {
    pub(super) reason: Reason,
    pub(super) why: Cow<'static, str>,
}

impl Cut {
    pub(super) fn new(reason: Reason, why: impl Into<Cow<'static, str>>) -> Self {
        Self { reason, why: why.into() }
    }
}
