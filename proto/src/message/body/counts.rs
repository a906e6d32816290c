//! What Rules have counted on a node, as it tells the cloud.

use bytes::Bytes;

use crate::message::body::codec::exact;
use crate::pb;
use crate::record::{Invalid, RuleName, bounded, fitting, required};

/// Most Rules of one Message.
pub const MAX_COUNTS: usize = 4096;
/// Longest reason of a trouble, in bytes.
const MAX_REASON: usize = 256;

/// Totals, so that to be told twice changes nothing. Who hears it keeps the highest of each counter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Random, kept with the totals: another one where they do not go on from those before.
    pub counter: [u8; 16],
    /// At most [`MAX_COUNTS`], in no order.
    pub rules: Vec<RuleCount>,
}

/// What one Rule has counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleCount {
    /// Which one.
    pub rule: RuleName,
    /// Messages that were delivered.
    pub success: u64,
    /// Messages that were not.
    pub fail: u64,
    /// When one was delivered last, in milliseconds since 1970; 0 = not known.
    pub last_success: i64,
    /// What is wrong, if the last message was not delivered.
    pub trouble: Option<RuleTrouble>,
}

/// Why messages of a Rule do not arrive on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleTrouble {
    /// In words, at most 256 bytes.
    pub reason: Box<str>,
    /// The first failure after the last success, in milliseconds since 1970.
    pub since: i64,
}

impl RuleTrouble {
    /// With as much of the reason as is told.
    pub fn new(reason: &str, since: i64) -> Self {
        Self { reason: reason[..reason.floor_char_boundary(MAX_REASON)].into(), since }
    }
}

impl From<&Counts> for pb::Counts {
    fn from(counts: &Counts) -> Self {
        Self {
            counter: Bytes::copy_from_slice(&counts.counter),
            rules: counts.rules.iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<pb::Counts> for Counts {
    type Error = Invalid;

    /// A count that cannot be read harms only itself.
    fn try_from(counts: pb::Counts) -> Result<Self, Invalid> {
        let many = counts.rules.len();
        if many > MAX_COUNTS {
            return Err(Invalid::new("counts.rules", format!("{many}: at most {MAX_COUNTS}")));
        }
        Ok(Self {
            counter: exact("counts.counter", &counts.counter)?,
            rules: fitting("counts.rules", counts.rules, &mut Vec::new()),
        })
    }
}

impl From<&RuleCount> for pb::RuleCount {
    fn from(count: &RuleCount) -> Self {
        Self {
            namespace: count.rule.namespace.to_string(),
            name: count.rule.name.to_string(),
            success: count.success,
            fail: count.fail,
            last_success: count.last_success,
            reason: count.trouble.as_ref().map_or_else(String::new, |t| t.reason.to_string()),
            since: count.trouble.as_ref().map_or(0, |trouble| trouble.since),
        }
    }
}

impl TryFrom<pb::RuleCount> for RuleCount {
    type Error = Invalid;

    fn try_from(count: pb::RuleCount) -> Result<Self, Invalid> {
        let rule = RuleName {
            namespace: bounded("namespace", count.namespace)?,
            name: required("name", count.name)?,
        };
        let (success, fail) = (count.success, count.fail);
        let trouble =
            (!count.reason.is_empty()).then(|| RuleTrouble::new(&count.reason, count.since));
        Ok(Self { rule, success, fail, last_success: count.last_success.max(0), trouble })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::MAX_NAME;

    fn count(name: &str) -> pb::RuleCount {
        let (namespace, name) = ("default".to_owned(), name.to_owned());
        let reason = "é".repeat(MAX_REASON);
        pb::RuleCount {
            namespace,
            name,
            success: u64::MAX,
            fail: 1,
            last_success: -5,
            reason,
            since: 3,
        }
    }

    #[test]
    fn a_count_that_cannot_be_read_harms_only_itself() {
        let long = "x".repeat(MAX_NAME + 1);
        let rules = vec![count("a"), count(""), count(&long), count("b")];
        let counts = pb::Counts { counter: vec![7; 16].into(), rules };
        let counts = Counts::try_from(counts).unwrap();
        let names: Vec<&str> = counts.rules.iter().map(|count| &*count.rule.name).collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!((counts.rules[0].success, counts.rules[0].last_success), (u64::MAX, 0));
        let trouble = counts.rules[0].trouble.as_ref().unwrap();
        assert_eq!((trouble.reason.len(), trouble.since), (MAX_REASON, 3));
        let again = Counts::try_from(pb::Counts::from(&counts)).unwrap();
        assert_eq!(again, counts);
    }

    #[test]
    fn counts_are_bounded() {
        let counts = |bytes, many| pb::Counts {
            counter: vec![7; bytes].into(),
            rules: vec![count("a"); many],
        };
        for (bytes, many, field) in
            [(15, 1, "counts.counter"), (16, MAX_COUNTS + 1, "counts.rules")]
        {
            assert_eq!(Counts::try_from(counts(bytes, many)).unwrap_err().field, field);
        }
        assert!(Counts::try_from(counts(16, MAX_COUNTS)).is_ok());
    }
}
