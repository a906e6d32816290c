//! Weighted shares: which of them the n-th request gets, exactly by weight and well mixed.

/// Shares by weight.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Split {
    /// Sums of the weights up to and with each share.
    ends: Vec<u64>,
    /// Coprime to the sum of all, so that as many turns visit every place once.
    step: u64,
}

impl Split {
    /// Shares of these weights, divided by what they have in common.
    pub fn new(weights: &[u32]) -> Self {
        let common = weights.iter().fold(0, |common, weight| gcd(common, u64::from(*weight)));
        let mut total = 0;
        let ends: Vec<u64> = weights
            .iter()
            .map(|weight| {
                total += u64::from(*weight) / common.max(1);
                total
            })
            .collect();
        // Near the golden ratio, neighbours in time are far apart in place (Weyl; Knuth vol. 3,
        // §6.4): a share of one in ten comes every tenth time, not ten times after ninety.
        let golden = (total.saturating_mul(618) / 1000).max(1);
        let step = (golden..).find(|step| gcd(*step, total) == 1).unwrap_or(1);
        Self { ends, step }
    }

    /// Index of the share that `turn` falls to; `None` when all weights are 0.
    pub fn choose(&self, turn: u64) -> Option<usize> {
        let total = self.ends.last().copied().filter(|total| *total > 0)?;
        let place = u128::from(turn % total) * u128::from(self.step) % u128::from(total);
        Some(self.ends.partition_point(|end| u128::from(*end) <= place))
    }
}

const fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_exact_and_mixed() {
        let rows: &[(&[u32], u64, &[u64])] = &[
            (&[90, 10], 1000, &[900, 100]),
            (&[1], 7, &[7]),
            (&[1, 1, 1], 9, &[3, 3, 3]),
            (&[0, 5], 10, &[0, 10]),
            (&[7, 0, 3], 100, &[70, 0, 30]),
            (&[999_999, 1], 1_000_000, &[999_999, 1]),
            (&[u32::MAX, u32::MAX], 10, &[5, 5]),
        ];
        for (weights, turns, want) in rows {
            let (split, mut got) = (Split::new(weights), vec![0; weights.len()]);
            (0..*turns).for_each(|turn| got[split.choose(turn).unwrap()] += 1);
            assert_eq!(got, *want, "{weights:?}");
        }
        let split = Split::new(&[80, 20]);
        let rare: Vec<_> = (0..20).filter(|turn| split.choose(*turn) == Some(1)).collect();
        assert!(rare.windows(2).all(|pair| pair[1] - pair[0] > 1), "{rare:?}");
        assert_eq!(Split::new(&[0, 0]).choose(3), None);
        assert_eq!(Split::new(&[]).choose(3), None);
    }
}
