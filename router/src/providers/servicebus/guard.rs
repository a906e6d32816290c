//! Who may call the ServiceBus: programs of this machine. A web page in somebody's browser there can reach
//! its port too, and by a name of its own (DNS rebinding) even read the answers.

use std::net::{IpAddr, SocketAddr};

use http::header::{HOST, HeaderName, ORIGIN};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue};

/// Which page asked, in the words of a browser.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Whether a request with these fields, to the port at `address`, was not made for a web page. Programs
/// that name no host, and browsers in which somebody typed the address, are none.
pub(super) fn is_from_here(headers: &HeaderMap, address: SocketAddr) -> bool {
    let for_no_page = |site: &HeaderValue| matches!(site.as_bytes(), b"none" | b"same-origin");
    !headers.contains_key(ORIGIN)
        && headers.get_all(SEC_FETCH_SITE).iter().all(for_no_page)
        && headers.get_all(HOST).iter().all(|host| is_own(host, address.ip()))
}

/// Whether that host is this machine by loopback, or where the port listens.
fn is_own(host: &HeaderValue, listens: IpAddr) -> bool {
    let Ok(authority) = Authority::try_from(host.as_bytes()) else { return false };
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    match name.parse::<IpAddr>() {
        // Whoever rebinds a name cannot make a browser write an address.
        Ok(ip) => ip.is_loopback() || ip == listens || listens.is_unspecified(),
        Err(_) => name.eq_ignore_ascii_case("localhost"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_call() {
        let usual = "127.0.0.1:9060";
        for (address, fields, want) in [
            (usual, "", true),
            (usual, "host=127.0.0.1:9060", true),
            (usual, "host=127.9.9.9", true),
            (usual, "host=LocalHost:9060", true),
            (usual, "host=[::1]:9060", true),
            (usual, "host=127.0.0.1:9060 sec-fetch-site=none", true),
            (usual, "host=127.0.0.1:9060 sec-fetch-site=same-origin", true),
            (usual, "host=127.0.0.1:9060 sec-fetch-site=cross-site", false),
            (usual, "host=127.0.0.1:9060 sec-fetch-site=same-site", false),
            (usual, "host=127.0.0.1:9060 origin=http://page.example", false),
            (usual, "host=127.0.0.1:9060 origin=null", false),
            (usual, "host=127.0.0.1:9060 origin=http://127.0.0.1:9060", false),
            (usual, "host=page.example:9060", false),
            (usual, "host=localhost.page.example", false),
            (usual, "host=127.0.0.1.page.example", false),
            (usual, "host=10.1.2.3:9060", false),
            (usual, "host=", false),
            (usual, "host=127.0.0.1 host=page.example", false),
            ("10.1.2.3:9060", "host=10.1.2.3:9060", true),
            ("10.1.2.3:9060", "host=10.1.2.4:9060", false),
            ("0.0.0.0:9060", "host=10.1.2.3:9060", true),
            ("0.0.0.0:9060", "host=page.example:9060", false),
        ] {
            let mut headers = HeaderMap::new();
            for (name, value) in fields.split_whitespace().filter_map(|f| f.split_once('=')) {
                headers.append(HeaderName::try_from(name).unwrap(), value.parse().unwrap());
            }
            assert_eq!(
                is_from_here(&headers, address.parse().unwrap()),
                want,
                "{address} {fields}"
            );
        }
    }
}
