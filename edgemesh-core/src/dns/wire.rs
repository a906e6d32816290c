//! Reads DNS messages far enough to judge, forward and cache them, without following a pointer.
//!
//! `simple-dns` builds our own answers, but outside bytes are read here: it rejects types it does
//! not know and a set Z bit, and it looks for version and DO in the wrong octets of an OPT record,
//! while a forwarder has to carry what it does not understand.

/// A DNS header (RFC 1035 §4.1.1), in octets.
pub const HEADER: usize = 12;
/// Fixed part of a record after its owner name: type, class, TTL, length of the data.
pub(super) const RECORD: usize = 10;
/// A name on the wire, in octets, its root label included (RFC 1035 §2.3.4).
const NAME_MAX: usize = 255;

/// Header bits, as the 16-bit word at offset 2.
pub mod flag {
    /// This is a response.
    pub const QR: u16 = 0x8000;
    /// The operation; 0 is QUERY.
    pub const OPCODE: u16 = 0x7800;
    /// The answerer has authority over the name.
    pub const AA: u16 = 0x0400;
    /// Cut to fit: ask again by TCP.
    pub const TC: u16 = 0x0200;
    /// The client wants recursion.
    pub const RD: u16 = 0x0100;
    /// Recursion is on offer.
    pub const RA: u16 = 0x0080;
    /// Authentic data.
    pub const AD: u16 = 0x0020;
    /// Checking disabled.
    pub const CD: u16 = 0x0010;
    /// The low four bits of the response code.
    pub const RCODE: u16 = 0x000f;
}

/// Record and question types that matter here.
pub mod kind {
    /// IPv4 address.
    pub const A: u16 = 1;
    /// Another name for this one.
    pub const CNAME: u16 = 5;
    /// Start of authority.
    pub const SOA: u16 = 6;
    /// The name of an address.
    pub const PTR: u16 = 12;
    /// IPv6 address.
    pub const AAAA: u16 = 28;
    /// Where a service is offered (RFC 2782).
    pub const SRV: u16 = 33;
    /// EDNS pseudo record (RFC 6891).
    pub const OPT: u16 = 41;
    /// Incremental zone transfer.
    pub const IXFR: u16 = 251;
    /// Zone transfer.
    pub const AXFR: u16 = 252;
    /// Everything there is.
    pub const ANY: u16 = 255;
}

/// EDNS option of RFC 7871: the answer is good for one subnet only.
const CLIENT_SUBNET: u16 = 8;

/// The bytes are no DNS message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// What a query's OPT record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edns {
    /// Offset of the record's class, which holds the sender's UDP size.
    pub size_at: usize,
    /// Largest UDP payload that the sender takes, in octets.
    pub size: u16,
    /// EDNS version; only 0 exists.
    pub version: u8,
    /// DNSSEC records are wanted.
    pub dnssec: bool,
    /// The answer depends on a client subnet, so it may not be shared.
    pub subnet: bool,
}

/// A query with exactly one question.
#[derive(Clone, Debug)]
pub struct Query<'a> {
    /// The whole message.
    pub bytes: &'a [u8],
    /// Labels of the asked name, root left out, as written by the client.
    pub labels: Vec<&'a [u8]>,
    /// Offset behind the question.
    pub question_end: usize,
    /// Asked type.
    pub qtype: u16,
    /// Asked class; 1 is IN.
    pub qclass: u16,
    /// The OPT record, if any.
    pub edns: Option<Edns>,
    /// Carries nothing but a question and an OPT record (no signature), so that the answer depends
    /// on nothing else.
    pub plain: bool,
}

/// One record of a response, by offsets.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    /// Section it stands in: 0 answer, 1 authority, 2 additional.
    pub section: u8,
    /// Offset of its owner name.
    pub start: usize,
    /// Offset of its type; class follows at +2, TTL at +4.
    pub fixed: usize,
    /// Record type.
    pub kind: u16,
    /// Time to live, in seconds (for OPT: extended rcode, version, flags).
    pub ttl: u32,
    /// Offset behind its data.
    pub end: usize,
}

impl Query<'_> {
    /// The id that the client chose.
    pub fn id(&self) -> u16 {
        u16_at(self.bytes, 0).unwrap_or_default()
    }

    /// The header's flag word.
    pub fn flags(&self) -> u16 {
        u16_at(self.bytes, 2).unwrap_or_default()
    }

    /// The question section, as the client wrote it.
    pub fn question(&self) -> &[u8] {
        self.bytes.get(HEADER..self.question_end).unwrap_or_default()
    }
}

/// Reads a query.
///
/// # Errors
/// [`Malformed`] when it is cut short, has not exactly one question, has bytes behind its last
/// record, compresses the asked name or carries two OPT records.
pub fn query(bytes: &[u8]) -> Result<Query<'_>, Malformed> {
    if u16_at(bytes, 4)? != 1 {
        return Err(Malformed);
    }
    let (labels, name_end) = question_name(bytes)?;
    let question_end = name_end + 4;
    let (qtype, qclass) = (u16_at(bytes, name_end)?, u16_at(bytes, name_end + 2)?);
    let (mut edns, mut plain) = (None, true);
    let end = walk(bytes, question_end, |record| {
        if record.section != 2 || record.kind != kind::OPT {
            plain = false;
            return Ok(());
        }
        if edns.is_some() || bytes.get(record.start) != Some(&0) {
            return Err(Malformed);
        }
        edns = Some(opt(bytes, record)?);
        Ok(())
    })?;
    if end != bytes.len() {
        return Err(Malformed);
    }
    Ok(Query { bytes, labels, question_end, qtype, qclass, edns, plain })
}

/// Reads a response to a query whose question section was `question`; its records in order.
///
/// # Errors
/// [`Malformed`] when it is no response, asks something else (case of letters apart) or is cut
/// short.
pub fn response(bytes: &[u8], question: &[u8]) -> Result<Vec<Record>, Malformed> {
    let flags = u16_at(bytes, 2)?;
    if flags & flag::QR == 0 || flags & flag::OPCODE != 0 || !same_question(bytes, question) {
        return Err(Malformed);
    }
    let mut records = Vec::new();
    walk(bytes, HEADER + question.len(), |record| {
        records.push(record);
        Ok(())
    })?;
    Ok(records)
}

/// Offset behind the first question of a message.
///
/// # Errors
/// [`Malformed`] when it has none that can be read.
pub fn query_end(bytes: &[u8]) -> Result<usize, Malformed> {
    let (_, end) = question_name(bytes)?;
    if end + 4 <= bytes.len() { Ok(end + 4) } else { Err(Malformed) }
}

/// Whether a message has exactly this question section, case of letters apart. (Lengths of labels
/// are below `A`, and type and class are compared as they are wherever they are no letters.)
pub fn same_question(bytes: &[u8], question: &[u8]) -> bool {
    let Some(split) = question.len().checked_sub(4) else { return false };
    let Some(theirs) = bytes.get(HEADER..HEADER + question.len()) else { return false };
    u16_at(bytes, 4) == Ok(1)
        && theirs[..split].eq_ignore_ascii_case(&question[..split])
        && theirs[split..] == question[split..]
}

/// The 16-bit number at an offset.
///
/// # Errors
/// [`Malformed`] past the end.
pub fn u16_at(bytes: &[u8], at: usize) -> Result<u16, Malformed> {
    let two = bytes.get(at..).and_then(<[u8]>::first_chunk).ok_or(Malformed)?;
    Ok(u16::from_be_bytes(*two))
}

/// The 32-bit number at an offset.
///
/// # Errors
/// [`Malformed`] past the end.
pub fn u32_at(bytes: &[u8], at: usize) -> Result<u32, Malformed> {
    let four = bytes.get(at..).and_then(<[u8]>::first_chunk).ok_or(Malformed)?;
    Ok(u32::from_be_bytes(*four))
}

/// Writes a 16-bit number over what is at an offset; past the end, nothing happens.
pub fn put_u16(bytes: &mut [u8], at: usize, value: u16) {
    if let Some(place) = bytes.get_mut(at..at + 2) {
        place.copy_from_slice(&value.to_be_bytes());
    }
}

/// Writes a 32-bit number over what is at an offset; past the end, nothing happens.
pub fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
    if let Some(place) = bytes.get_mut(at..at + 4) {
        place.copy_from_slice(&value.to_be_bytes());
    }
}

fn question_name(bytes: &[u8]) -> Result<(Vec<&[u8]>, usize), Malformed> {
    let (mut labels, mut at) = (Vec::new(), HEADER);
    loop {
        // A pointer (two high bits set) could only lead back into the header: no client does that.
        let length = usize::from(*bytes.get(at).ok_or(Malformed)?);
        if length > 63 || at + 1 + length - HEADER > NAME_MAX {
            return Err(Malformed);
        }
        at += 1;
        if length == 0 {
            return Ok((labels, at));
        }
        labels.push(bytes.get(at..at + length).ok_or(Malformed)?);
        at += length;
    }
}

/// Visits each record from `at`; says where the last one ends. Each step moves forward, so the
/// work is bounded by the message's length, whatever its counters claim.
fn walk(
    bytes: &[u8],
    mut at: usize,
    mut visit: impl FnMut(Record) -> Result<(), Malformed>,
) -> Result<usize, Malformed> {
    for section in 0..3u8 {
        for _ in 0..u16_at(bytes, 6 + 2 * usize::from(section))? {
            let fixed = skip_name(bytes, at)?;
            let end = fixed + RECORD + usize::from(u16_at(bytes, fixed + 8)?);
            if end > bytes.len() {
                return Err(Malformed);
            }
            let (kind, ttl) = (u16_at(bytes, fixed)?, u32_at(bytes, fixed + 4)?);
            visit(Record { section, start: at, fixed, kind, ttl, end })?;
            at = end;
        }
    }
    Ok(at)
}

fn skip_name(bytes: &[u8], mut at: usize) -> Result<usize, Malformed> {
    loop {
        match *bytes.get(at).ok_or(Malformed)? {
            0 => return Ok(at + 1),
            length @ 1..=63 => at += 1 + usize::from(length),
            0xc0.. => return Ok(at + 2),
            64..0xc0 => return Err(Malformed),
        }
    }
}

fn opt(bytes: &[u8], record: Record) -> Result<Edns, Malformed> {
    let (mut at, mut subnet) = (record.fixed + RECORD, false);
    while at < record.end {
        subnet |= u16_at(bytes, at)? == CLIENT_SUBNET;
        at += 4 + usize::from(u16_at(bytes, at + 2)?);
    }
    if at != record.end {
        return Err(Malformed);
    }
    let [_extended, version, high, _] = record.ttl.to_be_bytes();
    let size_at = record.fixed + 2;
    let size = u16_at(bytes, size_at)?;
    Ok(Edns { size_at, size, version, dnssec: high & 0x80 != 0, subnet })
}
