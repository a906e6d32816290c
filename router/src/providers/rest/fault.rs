//! Why a call of a URL has no answer: which Refusal that is, and the words for it.

use std::error::Error;
use std::io;

use edgemesh_core::forward::inbox::Undelivered;
use edgemesh_core::refusal::Refusal;
use http::uri::Authority;
use hyper_util::client::legacy::Error as CallError;

use crate::providers::connect::Unreached;

/// What became of a call.
pub(super) fn undelivered(error: &CallError, at: &Authority) -> Undelivered {
    if let Some(unreached) = source::<Unreached>(error) {
        let Unreached { refusal, reason } = unreached.clone();
        return Undelivered { refusal, sent: false, reason };
    }
    let (refusal, why) = told(error);
    // Whatever hyper does not say to be of the connection may have been read by the other side.
    let sent = !error.is_connect();
    Undelivered { refusal, sent, reason: format!("{at}: {why}").into() }
}

fn told(error: &CallError) -> (Refusal, String) {
    let Some(http) = source::<hyper::Error>(error) else {
        return (Refusal::BackendReset, words(error));
    };
    if http.is_parse() {
        return (Refusal::BackendProtocol, format!("its answer is not HTTP ({http})"));
    }
    if http.is_user() {
        return (Refusal::BadRequest, format!("the message broke off before its end ({http})"));
    }
    let broke = source::<io::Error>(http).map(ToString::to_string);
    let broke = broke.unwrap_or_else(|| http.to_string());
    (Refusal::BackendReset, format!("it broke the connection before its answer ({broke})"))
}

/// The first of its kind among what led to `error`.
fn source<'e, E: Error + 'static>(error: &'e (dyn Error + 'static)) -> Option<&'e E> {
    let mut next = error.source();
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

fn words(error: &CallError) -> String {
    let why = error.source().map(ToString::to_string);
    why.unwrap_or_else(|| error.to_string())
}
