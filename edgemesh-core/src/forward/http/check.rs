//! What is wrong with a request's head, of what hyper lets pass: two readers must not be able to
//! disagree about whom it is for and where it ends.

use http::header::{HOST, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Method, Request, Uri, Version};

use crate::forward::http::serve::MAX_BUFFER;
use crate::refusal::Refusal;

/// Longest target of a request, in bytes; longer ones are refused with 414. The head as a whole has
/// its bound beside the server's other limits, and is refused with 431.
pub(super) const MAX_TARGET: usize = 32 * 1024;

/// Why a request may not pass, if so.
pub(super) fn fault<B>(request: &Request<B>) -> Option<Refusal> {
    match () {
        () if is_target_too_long(request.uri()) => Some(Refusal::TargetTooLong),
        () if is_head_too_large(request.headers()) => Some(Refusal::HeadTooLarge),
        () if !names_one_host(request) => Some(Refusal::BadRequest),
        () if is_authority_form(request) => Some(Refusal::BadRequest),
        () if !is_plainly_coded(request) => Some(Refusal::BadRequest),
        () => None,
    }
}

/// Whether a request names one host, as RFC 9112 §3.2 and RFC 9113 §8.3.1 demand: two readers of
/// two names may disagree about which Service was meant.
fn names_one_host<B>(request: &Request<B>) -> bool {
    let mut hosts = request.headers().get_all(HOST).iter();
    let (first, second) = (hosts.next(), hosts.next());
    let agrees = match (request.version(), request.uri().authority(), first) {
        (Version::HTTP_11, _, None) => false,
        // RFC 9113 §8.3.1: it holds no password.
        (Version::HTTP_2, Some(authority), _) if authority.as_str().contains('@') => false,
        (Version::HTTP_2, Some(authority), Some(host)) => {
            host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes())
        }
        (_, _, _) => true,
    };
    agrees && second.is_none() && first.is_none_or(is_host)
}

/// Whether `host` can be a host and a port (RFC 9110 §7.2), and not a riddle to whoever reads it.
pub(super) fn is_host(host: &HeaderValue) -> bool {
    !host.as_bytes().iter().any(|byte| b"@/?#\\, \t".contains(byte) || !byte.is_ascii())
}

/// Whether a request's target is beyond [`MAX_TARGET`].
fn is_target_too_long(uri: &Uri) -> bool {
    let path = uri.path_and_query().map_or(0, |path| path.as_str().len());
    path + uri.authority().map_or(0, |authority| authority.as_str().len()) > MAX_TARGET
}

/// Whether the fields alone are beyond what a head may be. hyper looks only while a part of a head is
/// missing, so that what it lets pass depends on how it came.
fn is_head_too_large(headers: &HeaderMap) -> bool {
    let sizes = headers.iter().map(|(name, value)| name.as_str().len() + value.len());
    sizes.sum::<usize>() > MAX_BUFFER
}

/// RFC 9112 §3.2.3: `host:port` alone is for CONNECT.
fn is_authority_form<B>(request: &Request<B>) -> bool {
    let alone = request.uri().scheme().is_none() && request.uri().authority().is_some();
    alone && request.method() != Method::CONNECT
}

/// Whether its only transfer coding is `chunked`, once: others would be lost on the way, since each
/// side is framed anew, and what is coded twice is read twice by nobody alike (RFC 9112 §6.1).
fn is_plainly_coded<B>(request: &Request<B>) -> bool {
    let mut codings = request.headers().get_all(TRANSFER_ENCODING).iter();
    let chunked =
        |coding: &HeaderValue| coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked");
    codings.next().is_none_or(chunked) && codings.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_host_is_named() {
        use Version as V;
        let cases: &[(Version, &str, &[&str], bool)] = &[
            (V::HTTP_11, "/x", &["a"], true),
            (V::HTTP_11, "/x", &[""], true),
            (V::HTTP_11, "/x", &[], false),
            (V::HTTP_11, "/x", &["a", "a"], false),
            (V::HTTP_11, "http://b/x", &["a"], true), // the absolute form overrules Host
            (V::HTTP_10, "/x", &[], true),
            (V::HTTP_10, "/x", &["a", "b"], false),
            (V::HTTP_2, "http://a:1/x", &[], true),
            (V::HTTP_2, "http://a:1/x", &["A:1"], true),
            (V::HTTP_2, "http://a:1/x", &["b:1"], false),
            (V::HTTP_2, "http://me@a:1/x", &[], false),
            (V::HTTP_11, "/x", &["me@a"], false),
            (V::HTTP_11, "/x", &["a/b"], false),
            (V::HTTP_11, "/x", &["a, b"], false),
            (V::HTTP_11, "/x", &["[::1]:80"], true),
        ];
        for (version, uri, hosts, want) in cases {
            let mut request = Request::builder().version(*version).uri(*uri);
            for host in *hosts {
                request = request.header("host", *host);
            }
            let request = request.body(()).unwrap();
            assert_eq!(names_one_host(&request), *want, "{version:?} {uri} {hosts:?}");
        }
    }

    #[test]
    fn faults_of_heads() {
        let long = format!("/{}", "x".repeat(MAX_TARGET));
        for (method, uri, coding, want) in [
            ("GET", "/x", &[][..], None),
            ("GET", "a:80", &[], Some(Refusal::BadRequest)),
            ("CONNECT", "a:80", &[], None),
            ("GET", &long, &[], Some(Refusal::TargetTooLong)),
            ("GET", &long[1..], &[], Some(Refusal::BadRequest)),
            ("POST", "/x", &["Chunked "], None),
            ("POST", "/x", &["gzip, chunked"], Some(Refusal::BadRequest)),
            ("POST", "/x", &["chunked", "chunked"], Some(Refusal::BadRequest)),
        ] {
            let mut request = Request::builder().method(method).uri(uri).header("host", "a");
            for coding in coding {
                request = request.header("transfer-encoding", *coding);
            }
            let Ok(request) = request.body(()) else { continue };
            assert_eq!(fault(&request), want, "{method} {uri:.20} {coding:?}");
        }
    }
}
