//! The small values inside bodies, from protobuf to checked form and back.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::{NonZeroU16, NonZeroU32};
use std::time::Duration;

use bytes::Bytes;

use crate::pb;
use crate::record::Invalid;

/// Longest namespace or name, in bytes: the length of a DNS name, which Kubernetes uses.
pub const MAX_NAME: usize = 253;
/// Largest weight of a Backend.
pub const MAX_WEIGHT: u16 = 1000;
/// Label of a Pod, or of an EndpointSlice, that says the weight of its Backends.
pub const WEIGHT_LABEL: &str = "edgemesh.io/weight";

/// Checks each entry of a list, and names the one that does not fit.
pub(super) fn list<P, T>(
    field: &str,
    entries: Vec<P>,
    check: impl Fn(P) -> Result<T, Invalid>,
) -> Result<Vec<T>, Invalid> {
    // Not `collect`: it would keep the room of the wider protobuf form, twice what is needed.
    let mut checked = Vec::with_capacity(entries.len());
    for (i, entry) in entries.into_iter().enumerate() {
        checked.push(check(entry).map_err(|e| e.at(i).under(field))?);
    }
    Ok(checked)
}

pub(super) fn port(field: &str, number: u32) -> Result<NonZeroU16, Invalid> {
    let fits = u16::try_from(number).ok().and_then(NonZeroU16::new);
    fits.ok_or_else(|| Invalid::new(field, format!("{number} is no port: 1 to 65535")))
}

pub(super) fn not_zero(field: &str, number: u32) -> Result<NonZeroU32, Invalid> {
    NonZeroU32::new(number).ok_or_else(|| Invalid::new(field, "is 0: 1 or more"))
}

pub(super) fn small(field: &str, number: u32, most: u8) -> Result<u8, Invalid> {
    let fits = u8::try_from(number).ok().filter(|n| *n <= most);
    fits.ok_or_else(|| Invalid::new(field, format!("{number} is too much: 0 to {most}")))
}

/// A weight, if there is one.
pub(super) fn weight(field: &str, number: Option<u32>) -> Result<Option<u16>, Invalid> {
    let Some(number) = number else { return Ok(None) };
    let fits = u16::try_from(number).ok().filter(|n| *n <= MAX_WEIGHT);
    let wrong = || Invalid::new(field, format!("{number} is too much: 0 to {MAX_WEIGHT}"));
    fits.map(Some).ok_or_else(wrong)
}

pub(crate) fn required(field: &str, text: String) -> Result<Box<str>, Invalid> {
    if text.is_empty() {
        return Err(Invalid::new(field, "is empty"));
    }
    bounded(field, text)
}

pub(crate) fn bounded(field: &str, text: String) -> Result<Box<str>, Invalid> {
    if text.len() > MAX_NAME {
        let reason = format!("{} bytes: at most {MAX_NAME}", text.len());
        return Err(Invalid::new(field, reason));
    }
    Ok(text.into())
}

pub(super) fn addresses(field: &str, entries: Vec<Bytes>) -> Result<Vec<IpAddr>, Invalid> {
    list(field, entries, |bytes| {
        if let Ok(v4) = <[u8; 4]>::try_from(&*bytes) {
            return Ok(v4.into());
        }
        let v6 = <[u8; 16]>::try_from(&*bytes).map(IpAddr::from);
        v6.map_err(|_| Invalid::new("", format!("an address of {} bytes: 4 or 16", bytes.len())))
    })
}

pub(super) fn address_bytes(addresses: &[IpAddr]) -> Vec<Bytes> {
    let bytes = |address: &IpAddr| match address {
        IpAddr::V4(v4) => Bytes::copy_from_slice(&v4.octets()),
        IpAddr::V6(v6) => Bytes::copy_from_slice(&v6.octets()),
    };
    addresses.iter().map(bytes).collect()
}

pub(super) fn duration(field: &str, span: pb::Span) -> Result<Duration, Invalid> {
    if span.nanos >= 1_000_000_000 {
        return Err(Invalid::new(format!("{field}.nanos"), "a whole second or more"));
    }
    Ok(Duration::new(span.seconds, span.nanos))
}

pub(super) fn span(duration: Duration) -> pb::Span {
    pb::Span { seconds: duration.as_secs(), nanos: duration.subsec_nanos() }
}

pub(super) fn text(value: Option<&str>) -> Option<String> {
    value.map(str::to_owned)
}

pub(super) fn labels(labels: BTreeMap<String, String>) -> BTreeMap<Box<str>, Box<str>> {
    labels.into_iter().map(|(key, value)| (key.into(), value.into())).collect()
}

pub(super) fn label_strings(labels: &BTreeMap<Box<str>, Box<str>>) -> BTreeMap<String, String> {
    labels.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
}

/// The variant of a protobuf enum.
pub(super) fn variant<E: TryFrom<i32>>(field: &str, number: i32) -> Result<E, Invalid> {
    let unknown = |_| Invalid::new(field, format!("{number} is no value that this version knows"));
    E::try_from(number).map_err(unknown)
}
