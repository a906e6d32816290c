//! The form in which a request leaves for its Backend: HTTP/1 or HTTP/2, whatever it came as.
//!
//! A Backend is spoken to in what its port declares, else in what the client speaks; nobody
//! probes. A form is made anew before each attempt, so that it must not matter which form a request
//! has already.

use http::header::{CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, HOST, TE, TRANSFER_ENCODING};
use http::request::Parts;
use http::uri::{Authority, Scheme};
use http::{HeaderMap, HeaderValue, Method, Request, Uri, Version};

use crate::forward::http::Towards;
use crate::forward::http::answer::is_grpc;
use crate::forward::http::call::Call;
use crate::forward::http::head::without_userinfo;
use crate::forward::http::upgrade;
use crate::forward::http::upload::Upload;
use crate::plan::Hop;
use crate::refusal::Refusal;
use crate::snapshot::Reach;
use crate::sniff::Declared;

/// Gives `request` the form that the Backend of `hop` expects.
pub(super) fn towards_backend(
    request: &mut Request<Upload>,
    call: &Call,
    hop: &Hop,
) -> Result<(), Refusal> {
    let version = spoken(hop.service().ports[hop.port()].declared, call.version);
    let tunnel = request.method() == Method::CONNECT;
    let crosses = (version == Version::HTTP_2) != (call.version == Version::HTTP_2);
    match version {
        // HTTP/1 has no trailers that a gRPC client could rely on, and a tunnel of HTTP/2 is a
        // stream, which only the explicit proxy ends.
        _ if tunnel && (crosses || version == Version::HTTP_2) => Err(Refusal::Unsupported),
        Version::HTTP_2 => to_http2(request, &call.origin.towards),
        _ if call.grpc && crosses => Err(Refusal::Unsupported),
        _ => {
            let to_inbox = matches!(hop.backend().reach, Reach::Inbox);
            to_http1(request, &call.origin.towards, to_inbox);
            Ok(())
        }
    }
}

/// Gives `request` a form in which another node can pass it on: it names whom the client means, and
/// is as the client sent it otherwise. The agent there decides what its Backend is spoken to in.
pub(super) fn towards_node(request: &mut Request<Upload>, call: &Call) {
    let towards = &call.origin.towards;
    request.headers_mut().remove(TRANSFER_ENCODING);
    if request.version() == Version::HTTP_2 {
        if request.uri().authority().is_none() {
            name_host(request, towards);
        }
        return;
    }
    *request.version_mut() = Version::HTTP_11; // also of 1.0
    if request.method() != Method::CONNECT {
        to_origin_form(request, towards);
    }
}

/// What a Backend whose port says `declared` is spoken to in.
const fn spoken(declared: Declared, client: Version) -> Version {
    match declared {
        Declared::Http => Version::HTTP_11,
        Declared::Http2 => Version::HTTP_2,
        Declared::Unknown | Declared::Tls | Declared::Opaque => match client {
            Version::HTTP_2 => Version::HTTP_2,
            _ => Version::HTTP_11, // also to clients of 1.0
        },
    }
}

fn to_http1(request: &mut Request<Upload>, towards: &Towards, to_inbox: bool) {
    if request.version() == Version::HTTP_2 {
        join_cookies(request.headers_mut());
    }
    *request.version_mut() = Version::HTTP_11;
    let waits = request.headers().get(EXPECT);
    let waits = waits.is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    // The inbox says nothing before its answer.
    if waits && !to_inbox {
        upgrade::wait_for_continue(request);
    }
    // RFC 9110 §10.1.4: whoever sends TE names it as between neighbours.
    if request.headers().contains_key(TE) && !request.headers().contains_key(CONNECTION) {
        request.headers_mut().insert(CONNECTION, HeaderValue::from_static("te"));
    }
    // hyper frames a body of unknown length by itself, but for methods that seldom have one it
    // takes no header for no body.
    if !request.body().is_empty() && !request.headers().contains_key(CONTENT_LENGTH) {
        request.headers_mut().insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    if request.method() == Method::CONNECT {
        return;
    }
    to_origin_form(request, towards);
}

/// HTTP/1.0 may leave it out; what leaves here is HTTP/1.1 or newer, which may not.
fn name_host(request: &mut Request<Upload>, towards: &Towards) {
    if let (false, Towards::Address(to)) = (request.headers().contains_key(HOST), towards)
        && let Ok(host) = HeaderValue::from_str(&to.to_string())
    {
        request.headers_mut().insert(HOST, host);
    }
}

/// A path, and a Host beside it.
fn to_origin_form(request: &mut Request<Upload>, towards: &Towards) {
    let Some(authority) = request.uri().authority() else {
        name_host(request, towards);
        return;
    };
    // RFC 9112 §3.2.2: the absolute form, as clients send it to a proxy, overrules Host.
    if let Ok(host) = HeaderValue::from_str(without_userinfo(authority)) {
        request.headers_mut().insert(HOST, host);
    }
    let path = request.uri().path_and_query().cloned();
    *request.uri_mut() = path.map_or_else(|| Uri::from_static("/"), Uri::from);
}

fn to_http2(request: &mut Request<Upload>, towards: &Towards) -> Result<(), Refusal> {
    *request.version_mut() = Version::HTTP_2;
    // RFC 9113 §8.2.2; what it frames by itself is HTTP/1's.
    request.headers_mut().remove(CONNECTION);
    request.headers_mut().remove(TRANSFER_ENCODING);
    let named = match (request.uri().authority(), request.headers().get(HOST), towards) {
        (Some(authority), ..) if !authority.as_str().contains('@') && has_scheme(request) => {
            request.headers_mut().remove(HOST);
            return Ok(());
        }
        (Some(authority), ..) => without_userinfo(authority).parse(),
        (None, Some(host), _) => Authority::try_from(host.as_bytes()),
        (None, None, Towards::Address(to)) => to.to_string().parse(),
        (None, None, Towards::Named | Towards::Library | Towards::Ingress | Towards::Link) => {
            return Err(Refusal::BadRequest);
        }
    };
    let mut parts = request.uri().clone().into_parts();
    parts.authority = Some(named.map_err(|_| Refusal::BadRequest)?);
    parts.scheme.get_or_insert(Scheme::HTTP);
    *request.uri_mut() = Uri::from_parts(parts).map_err(|_| Refusal::BadRequest)?;
    request.headers_mut().remove(HOST);
    Ok(())
}

/// Makes a request of HTTP/2 one of HTTP/1.1, unless it is gRPC or a tunnel: for clients that speak
/// HTTP/2 because a handshake offered it, and not because they know that the Backend does.
pub fn as_http1(request: &mut Parts) {
    let chosen = request.method == Method::CONNECT || is_grpc(&request.headers);
    if request.version != Version::HTTP_2 || chosen {
        return;
    }
    join_cookies(&mut request.headers);
    request.version = Version::HTTP_11;
    let (uri, headers) = (&mut request.uri, &mut request.headers);
    let host = uri.authority().map(|authority| HeaderValue::from_str(without_userinfo(authority)));
    if let Some(Ok(host)) = host {
        headers.insert(HOST, host);
    }
    *uri = uri.path_and_query().cloned().map_or_else(|| Uri::from_static("/"), Uri::from);
}

fn has_scheme(request: &Request<Upload>) -> bool {
    request.uri().scheme().is_some()
}

/// RFC 9113 §8.2.3: HTTP/2 may send a cookie in crumbs, HTTP/1 has one line.
fn join_cookies(headers: &mut HeaderMap) {
    let mut crumbs = headers.get_all(COOKIE).iter();
    if crumbs.nth(1).is_none() {
        return;
    }
    let crumbs: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(cookie) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        headers.insert(COOKIE, cookie);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_is_spoken_to_as_declared() {
        let (one, two) = (Version::HTTP_11, Version::HTTP_2);
        for (declared, client, want) in [
            (Declared::Http, one, one),
            (Declared::Http, two, one),
            (Declared::Http2, one, two),
            (Declared::Http2, Version::HTTP_10, two),
            (Declared::Http2, two, two),
            (Declared::Unknown, Version::HTTP_10, one),
            (Declared::Unknown, one, one),
            (Declared::Unknown, two, two),
            (Declared::Opaque, two, two),
        ] {
            assert_eq!(spoken(declared, client), want, "{declared:?} {client:?}");
        }
    }

    #[test]
    fn crumbs_become_a_cookie() {
        for (crumbs, want) in
            [(&[][..], &[][..]), (&["a=1"], &["a=1"]), (&["a=1", "b=2", "c=3"], &["a=1; b=2; c=3"])]
        {
            let mut headers = HeaderMap::new();
            for crumb in crumbs {
                headers.append(COOKIE, HeaderValue::from_static(crumb));
            }
            join_cookies(&mut headers);
            let left: Vec<_> =
                headers.get_all(COOKIE).iter().map(|v| v.to_str().unwrap()).collect();
            assert_eq!(left, want);
        }
    }
}
