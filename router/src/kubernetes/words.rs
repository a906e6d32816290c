//! What an API server's refusals and bad answers mean, in words for an operator.

use std::error::Error;

use kube::runtime::watcher;

/// Text of a body or message that is shown.
const SHOWN: usize = 200;

/// In words.
pub(super) fn of(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => of_status(status),
        kube::Error::SerdeError(error) => {
            format!("the answer is not what an API server says ({error}); is the URL right?")
        }
        kube::Error::FromUtf8(_) => {
            "the answer is no text but bytes (protobuf?), although JSON was asked for".into()
        }
        other => brief(&chain(other)),
    }
}

/// The same of a watch.
pub(super) fn of_watch(error: &watcher::Error) -> String {
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => of(error),
        watcher::Error::WatchError(status) => of_status(status),
        watcher::Error::NoResourceVersion => {
            "an object or a list has no resourceVersion, by which changes are followed".into()
        }
    }
}

fn of_status(status: &kube::core::Status) -> String {
    let said = brief(&status.message);
    match status.code {
        401 => {
            format!("it does not accept the credentials (401 {said}): check token and certificate")
        }
        403 => format!("it does not allow that (403 {said}): grant get, list and watch (RBAC)"),
        429 => format!("it is asked too often (429 {said}); trying again later"),
        code => format!("{code} {said}"),
    }
}

/// Its HTTP status, where it has one.
pub(super) fn code(error: &watcher::Error) -> Option<u16> {
    status(error).map(|status| status.code)
}

/// Whether an API server says that it has no such kind; a proxy in front of it that finds nobody does not.
pub(super) fn is_unknown_kind(error: &watcher::Error) -> bool {
    status(error).is_some_and(|status| {
        status.reason == "NotFound" || status.message.trim() == "404 page not found"
    })
}

fn status(error: &watcher::Error) -> Option<&kube::core::Status> {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status))
        | watcher::Error::WatchError(status) => Some(status),
        watcher::Error::InitialListFailed(_)
        | watcher::Error::WatchStartFailed(_)
        | watcher::Error::WatchFailed(_)
        | watcher::Error::NoResourceVersion => None,
    }
}

/// An error with what caused it, each said once.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    text
}

fn brief(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(SHOWN) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line,
    }
}
