//! A fingerprint of the whole set of records, kept up to date one record at a time.
//!
//! Each record is hashed (SHA-256 over kind, namespace, name and body, each but the last with its
//! length in front, so that no two records read alike), and the hashes are added modulo 2^256.
//! Addition makes the order irrelevant and lets a record leave again by subtraction; unlike with
//! XOR, no set that sums to a given value falls out of plain linear algebra. Revisions are no
//! part of it: two stores with equal bodies have equal digests.

use rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;

/// The sum of the hashes of a set of records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Digest([u64; 4]);

/// Hashes records; keeps its buffer, since a load hashes every record there is.
#[derive(Default)]
pub(super) struct Hasher(Vec<u8>);

impl Hasher {
    /// The hash of one record: the digest of the set that holds just that one.
    pub(super) fn record(
        &mut self,
        kind: &str,
        namespace: &str,
        name: &str,
        body: &[u8],
    ) -> Digest {
        self.0.clear();
        for part in [kind, namespace, name] {
            self.0.extend_from_slice(&(part.len() as u64).to_le_bytes());
            self.0.extend_from_slice(part.as_bytes());
        }
        self.0.extend_from_slice(body);
        // SHA-256 comes from ring by way of rustls, which the crate has already: a suite of
        // TLS names the hash it is built on.
        let suite = TLS13_AES_128_GCM_SHA256.tls13().expect("a suite of TLS 1.3");
        let hash = suite.common.hash_provider.hash(&self.0);
        Digest::from_bytes(hash.as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }
}

impl Digest {
    /// From its stored form, 32 bytes, lowest first.
    pub(super) fn from_bytes(bytes: &[u8; 32]) -> Self {
        let mut lanes = [0; 4];
        for (lane, eight) in lanes.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *lane = u64::from_le_bytes(*eight);
        }
        Self(lanes)
    }

    /// The stored form, 32 bytes, lowest first.
    pub(super) fn to_bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for (lane, eight) in self.0.iter().zip(bytes.as_chunks_mut::<8>().0) {
            *eight = lane.to_le_bytes();
        }
        bytes
    }

    /// Takes a record into the set.
    pub(super) fn add(&mut self, record: Self) {
        let mut carry = false;
        for (lane, other) in self.0.iter_mut().zip(record.0) {
            (*lane, carry) = lane.carrying_add(other, carry);
        }
    }

    /// Takes a record out of the set.
    pub(super) fn remove(&mut self, record: Self) {
        let mut borrow = false;
        for (lane, other) in self.0.iter_mut().zip(record.0) {
            (*lane, borrow) = lane.borrowing_sub(other, borrow);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Digest, Hasher};

    #[test]
    fn order_does_not_matter_and_what_leaves_leaves_no_trace() {
        let mut hasher = Hasher::default();
        let records: Vec<Digest> =
            (0..50_u8).map(|n| hasher.record("slice", "default", "web", &[n])).collect();
        let mut forwards = Digest::default();
        records.iter().for_each(|record| forwards.add(*record));
        let mut backwards = Digest::default();
        records.iter().rev().for_each(|record| backwards.add(*record));
        assert_eq!(forwards, backwards);
        assert_eq!(Digest::from_bytes(&forwards.to_bytes()), forwards);
        assert_ne!(forwards, Digest::default());
        records.iter().for_each(|record| forwards.remove(*record));
        assert_eq!(forwards, Digest::default());
    }

    #[test]
    fn no_two_records_read_alike() {
        let cases = [
            ("service", "a", "b", b"c".as_slice()),
            ("service", "ab", "", b"c"),
            ("service", "", "ab", b"c"),
            ("service", "a", "", b"bc"),
            ("service", "a", "bc", b""),
            ("slice", "a", "b", b"c"),
            ("service", "a", "b", b"d"),
        ];
        let mut hasher = Hasher::default();
        let mut seen: Vec<Digest> = Vec::new();
        for (kind, namespace, name, body) in cases {
            let digest = hasher.record(kind, namespace, name, body);
            assert!(!seen.contains(&digest), "{kind} {namespace} {name}");
            seen.push(digest);
        }
    }

    #[test]
    fn it_is_sha_256() {
        // Of 24 zero bytes, from `head -c 24 /dev/zero | sha256sum`.
        let digest = Hasher::default().record("", "", "", b"");
        assert_eq!(digest.to_bytes()[..4], EXPECTED);
    }
    const EXPECTED: [u8; 4] = [0x9d, 0x90, 0x8e, 0xcf];
}
