//! Chance that a seed determines.

/// A generator of numbers.
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number below `bound`.
    pub(crate) const fn below(&mut self, bound: usize) -> usize {
        self.0 = edgemesh_core::hash::mix(self.0);
        ((self.0 >> 11) % bound as u64) as usize
    }

    /// `true` once in so many times.
    pub(crate) const fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// Sixteen bytes that nobody had before.
    pub(crate) fn epoch(&mut self) -> [u8; 16] {
        let (a, b) = (self.below(usize::MAX) as u64, self.below(usize::MAX) as u64);
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&a.to_le_bytes());
        bytes[8..].copy_from_slice(&b.to_le_bytes());
        bytes
    }
}
