//! What a call has in common with those it belongs to: the key of consistent hashing.

use edgemesh_proto::record::HashKey;
use http::header::{COOKIE, HOST};

use crate::hash;
use crate::plan::{Destination, Head};

/// The hash of the key; `None` when the call has none.
pub(super) fn of(key: &HashKey, destination: &Destination<'_>) -> Option<u64> {
    let head = destination.request.as_ref();
    match key {
        HashKey::SourceIp => destination.caller.map(hash::ip),
        HashKey::Header(name) => header(head?, name).map(hash::bytes),
        HashKey::Cookie(name) => cookie(head?, name).map(hash::bytes),
        HashKey::Query(name) => query(head?, name).map(|value| hash::bytes(value.as_bytes())),
    }
}

/// The first field of that name. HTTP/2 says `Host` as the authority.
fn header<'h>(head: &Head<'h>, name: &str) -> Option<&'h [u8]> {
    let field = head.headers.get(name).map(|value| value.as_bytes());
    let authority = || head.uri.authority().filter(|_| name == HOST.as_str());
    field.or_else(|| authority().map(|authority| authority.as_str().as_bytes()))
}

fn cookie<'h>(head: &Head<'h>, name: &str) -> Option<&'h [u8]> {
    // HTTP/2 may split the field (RFC 9113 §8.2.3).
    let fields = head.headers.get_all(COOKIE).into_iter();
    let mut pairs = fields.flat_map(|field| field.as_bytes().split(|byte| *byte == b';'));
    pairs.find_map(|pair| pair.trim_ascii().strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

/// As written: escapes are not undone.
fn query<'h>(head: &Head<'h>, name: &str) -> Option<&'h str> {
    let mut pairs = head.uri.query()?.split('&');
    pairs.find_map(|pair| {
        let (found, value) = pair.split_once('=').unwrap_or((pair, ""));
        (found == name).then_some(value)
    })
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;
    use crate::plan::{Arrival, Purpose, Target};

    /// Key, URL, header fields, and what is hashed.
    #[test]
    fn keys_of_requests() {
        let header = || HashKey::Header("x-user".into());
        let cookie = || HashKey::Cookie("sid".into());
        let query = || HashKey::Query("u".into());
        let host = || HashKey::Header("host".into());
        type Row<'r> = (HashKey, &'r str, &'r [(&'r str, &'r str)], Option<&'r str>);
        let rows: &[Row<'_>] = &[
            (header(), "/", &[("X-User", "ann"), ("x-user", "bob")], Some("ann")),
            (header(), "/", &[("x-users", "ann")], None),
            (host(), "/", &[("host", "a.b")], Some("a.b")),
            (host(), "http://c.d/", &[], Some("c.d")),
            (header(), "http://c.d/", &[], None),
            (cookie(), "/", &[("cookie", "a=1; sid=xyz; b=2")], Some("xyz")),
            (cookie(), "/", &[("cookie", "a=1"), ("cookie", "sid=xyz")], Some("xyz")),
            (cookie(), "/", &[("cookie", "asid=1; sidb=2; sid")], None),
            (cookie(), "/", &[("cookie", "sid=")], Some("")),
            (query(), "/?a=1&u=ann&u=bob", &[], Some("ann")),
            (query(), "/?u", &[], Some("")),
            (query(), "/?U=ann&uu=bob", &[], None),
            (query(), "/u=ann", &[], None),
            (HashKey::SourceIp, "/", &[], None),
        ];
        for (key, url, fields, want) in rows {
            let mut request = Request::get(*url);
            for (name, value) in *fields {
                request = request.header(*name, *value);
            }
            let request = request.body(()).unwrap();
            let to = Target::Address(([10, 96, 0, 1], 80).into());
            let mut call = Destination::new(to, Arrival::Captured, Purpose::Call);
            assert_eq!(of(key, &call), None, "bytes have no key, nobody no address");
            call.request = Some(Head::of(&request));
            let want = want.map(|want| hash::bytes(want.as_bytes()));
            assert_eq!(of(key, &call), want, "{key:?} {url} {fields:?}");
        }
    }

    #[test]
    fn the_key_of_a_caller_is_its_address() {
        let to = Target::Address(([10, 96, 0, 1], 80).into());
        let mut call = Destination::new(to, Arrival::Captured, Purpose::Call);
        call.caller = Some([10, 0, 0, 7].into());
        assert_eq!(of(&HashKey::SourceIp, &call), Some(hash::ip([10, 0, 0, 7].into())));
    }
}
