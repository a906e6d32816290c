//! A fingerprint of a set of records, kept up to date one record at a time; store, agent and registry
//! compare by it.
//!
//! Each record is hashed (SHA-256 over kind, namespace, name and body, each but the last with its
//! length in front, so that no two records read alike), and the hashes are added modulo 2^256.
//! Addition makes the order irrelevant and lets a record leave again by subtraction; unlike with
//! XOR, no set that sums to a given value falls out of plain linear algebra. Revisions are no
//! part of it: two stores with equal bodies have equal digests.
//!
//! A set is also summed in [`BUCKETS`] parts by identity ([`Sums`]), so that two that differ find
//! out where.

use edgemesh_proto::message::BUCKETS;
use edgemesh_proto::record::Key;
use rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;

/// The sum of the hashes of a set of records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Digest([u64; 4]);

/// Hashes records; keeps its buffer, since a load hashes every record there is.
#[derive(Clone, Debug, Default)]
pub struct Hasher(Vec<u8>);

/// The digest of a set, whole and by bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sums {
    whole: Digest,
    buckets: Box<[Digest]>,
}

impl Hasher {
    /// The hash of one record: the digest of the set that holds just that one.
    pub fn record(&mut self, kind: &str, namespace: &str, name: &str, body: &[u8]) -> Digest {
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

    /// As [`Hasher::record`], for a key.
    pub fn of(&mut self, key: &Key, body: &[u8]) -> Digest {
        self.record(key.kind.name(), &key.namespace, &key.name, body)
    }

    /// The bucket of a key, whatever its body: the first byte of the hash of an empty one.
    pub fn bucket(&mut self, key: &Key) -> u8 {
        self.of(key, b"").to_bytes()[0]
    }
}

impl Default for Sums {
    fn default() -> Self {
        Self { whole: Digest::default(), buckets: vec![Digest::default(); BUCKETS].into() }
    }
}

impl Sums {
    /// Over all.
    pub fn whole(&self) -> [u8; 32] {
        self.whole.to_bytes()
    }

    /// Of each bucket, as they are sent.
    pub fn buckets(&self) -> Vec<[u8; 32]> {
        self.buckets.iter().map(|bucket| bucket.to_bytes()).collect()
    }

    /// Takes a record into its bucket.
    pub fn add(&mut self, bucket: u8, record: Digest) {
        self.whole.add(record);
        self.buckets[usize::from(bucket)].add(record);
    }

    /// Takes a record out of its bucket.
    pub fn remove(&mut self, bucket: u8, record: Digest) {
        self.whole.remove(record);
        self.buckets[usize::from(bucket)].remove(record);
    }

    /// The buckets that are not as `theirs`.
    pub fn differing(&self, theirs: &[[u8; 32]]) -> Vec<u8> {
        let pairs = (0..=u8::MAX).zip(self.buckets.iter().zip(theirs));
        pairs.filter(|(_, (own, theirs))| own.to_bytes() != **theirs).map(|(at, _)| at).collect()
    }
}

impl Digest {
    /// From its stored form, 32 bytes, lowest first.
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        let mut lanes = [0; 4];
        for (lane, eight) in lanes.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *lane = u64::from_le_bytes(*eight);
        }
        Self(lanes)
    }

    /// The stored form, 32 bytes, lowest first.
    pub fn to_bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for (lane, eight) in self.0.iter().zip(bytes.as_chunks_mut::<8>().0) {
            *eight = lane.to_le_bytes();
        }
        bytes
    }

    /// Takes a record into the set.
    pub fn add(&mut self, record: Self) {
        let mut carry = false;
        for (lane, other) in self.0.iter_mut().zip(record.0) {
            (*lane, carry) = lane.carrying_add(other, carry);
        }
    }

    /// Takes a record out of the set.
    pub fn remove(&mut self, record: Self) {
        let mut borrow = false;
        for (lane, other) in self.0.iter_mut().zip(record.0) {
            (*lane, borrow) = lane.borrowing_sub(other, borrow);
        }
    }
}

#[cfg(test)]
mod tests {
    use edgemesh_proto::record::Kind;

    use super::*;

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

    /// Registry and agents of different versions must agree on them.
    #[test]
    fn buckets_stay() {
        let mut hasher = Hasher::default();
        let mut bucket = |kind, namespace: &str, name: &str| {
            let (namespace, name) = (namespace.into(), name.into());
            hasher.bucket(&Key { kind, namespace, name })
        };
        assert_eq!(bucket(Kind::Service, "default", "hello"), 255);
        assert_eq!(bucket(Kind::Node, "", "edge-1"), 106);
        let used: std::collections::BTreeSet<u8> =
            (0..8000).map(|n| bucket(Kind::Slice, "default", &n.to_string())).collect();
        assert_eq!(used.len(), BUCKETS, "they are all used");
    }

    #[test]
    fn sets_that_differ_find_out_where() {
        let (mut ours, mut theirs) = (Sums::default(), Sums::default());
        let mut hasher = Hasher::default();
        for n in 0..1000_u32 {
            let digest = hasher.record("slice", "default", "web", &n.to_le_bytes());
            ours.add(n as u8, digest);
            if n != 77 && n != 300 {
                theirs.add(n as u8, digest);
            }
        }
        assert_ne!(ours.whole(), theirs.whole());
        assert_eq!(ours.differing(&theirs.buckets()), [44, 77]);
        ours.remove(77, hasher.record("slice", "default", "web", &77_u32.to_le_bytes()));
        ours.remove(44, hasher.record("slice", "default", "web", &300_u32.to_le_bytes()));
        assert_eq!(ours, theirs);
    }

    const EXPECTED: [u8; 4] = [0x9d, 0x90, 0x8e, 0xcf];
}
