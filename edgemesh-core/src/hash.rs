//! A hash on which every node agrees, whatever its version: which Backend a key belongs to hangs on it.

use std::hash::Hasher;
use std::net::{IpAddr, SocketAddr};

use fnv::FnvHasher;

/// FNV-1a (64 bits, its published offset), finished by [`mix`], since the upper bits of FNV alone
/// hardly depend on the last bytes. Not a defence against whoever chooses keys: bounded load is.
pub fn bytes(bytes: &[u8]) -> u64 {
    let mut hasher = FnvHasher::default();
    hasher.write(bytes);
    mix(hasher.finish())
}

/// Of an address; an IPv4 address in IPv6 clothes is the IPv4 address.
pub fn ip(ip: IpAddr) -> u64 {
    match ip.to_canonical() {
        IpAddr::V4(v4) => bytes(&v4.octets()),
        IpAddr::V6(v6) => bytes(&v6.octets()),
    }
}

/// Of an address and its port.
pub fn address(address: SocketAddr) -> u64 {
    mix(ip(address.ip()) ^ u64::from(address.port()))
}

/// SplitMix64's step and finaliser (Steele, Lea, Flood 2014): neighbours become unrelated.
pub const fn mix(seed: u64) -> u64 {
    let z = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A change here moves every key on every node, and nodes of two versions disagree meanwhile.
    #[test]
    fn golden() {
        assert_eq!(bytes(b""), 0xef9e_ad53_f3d8_3e9f);
        assert_eq!(bytes(b"user-1"), 0xebf5_ef5c_b26e_6b06);
        assert_eq!(bytes(b"user-2"), 0x6cd7_465c_aae5_d331);
        assert_eq!(ip([10, 1, 0, 1].into()), 0xd9cc_22f9_766c_77d5);
        assert_eq!(address(([10, 1, 0, 1], 80).into()), 0x9ebf_dc3d_9e74_1043);
        assert_eq!(address("[fd00::1]:80".parse().unwrap()), 0xfcb4_4793_5ec3_cab9);
    }

    #[test]
    fn ipv4_in_ipv6_clothes_is_ipv4() {
        assert_eq!(ip("::ffff:10.1.0.1".parse().unwrap()), ip([10, 1, 0, 1].into()));
    }
}
