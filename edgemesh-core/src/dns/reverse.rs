//! The address behind a name of `in-addr.arpa` or `ip6.arpa` (RFC 1035 §3.5, RFC 3596 §2.5).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The address that a reverse name is about; `None` for any other name, parts of a reverse tree
/// too.
pub(super) fn address(labels: &[&[u8]]) -> Option<IpAddr> {
    let (front, [family, arpa]) = labels.split_last_chunk::<2>()?;
    if !arpa.eq_ignore_ascii_case(b"arpa") {
        return None;
    }
    if family.eq_ignore_ascii_case(b"in-addr") {
        let [d, c, b, a] = *front else { return None };
        return Some(Ipv4Addr::new(octet(a)?, octet(b)?, octet(c)?, octet(d)?).into());
    }
    if family.eq_ignore_ascii_case(b"ip6") && front.len() == 32 {
        let bits = front.iter().rev().try_fold(0u128, |bits, label| {
            let [digit] = *label else { return None };
            let nibble = char::from(*digit).to_digit(16)?;
            Some(bits << 4 | u128::from(nibble))
        })?;
        return Some(Ipv6Addr::from_bits(bits).into());
    }
    None
}

/// One octet as it is written in a reverse name: no sign, no zeros in front.
fn octet(label: &[u8]) -> Option<u8> {
    let text = std::str::from_utf8(label).ok()?;
    let canonical =
        text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| canonical)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reverse_names() {
        let six = "6.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.6.9.d.F.ip6.arpa";
        for (name, want) in [
            ("7.0.18.198.in-addr.arpa", Some("198.18.0.7")),
            ("7.0.18.198.IN-ADDR.ARPA", Some("198.18.0.7")),
            (six, Some("fd96::6")),
            ("0.18.198.in-addr.arpa", None),
            ("1.7.0.18.198.in-addr.arpa", None),
            ("07.0.18.198.in-addr.arpa", None),
            ("+7.0.18.198.in-addr.arpa", None),
            ("256.0.18.198.in-addr.arpa", None),
            ("7.0.18.198.example.arpa", None),
            ("7.0.18.198.in-addr.example", None),
            (&six[2..], None),
            (&six.replace("9", "x"), None),
            (&six.replace("9", "99"), None),
            ("arpa", None),
            ("", None),
        ] {
            let labels: Vec<&[u8]> = name.split('.').map(str::as_bytes).collect();
            assert_eq!(address(&labels), want.map(|ip| ip.parse().unwrap()), "{name}");
        }
    }
}
