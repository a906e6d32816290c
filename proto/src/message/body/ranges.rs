//! Where addresses of Services lie, as the hub's source has it.

use ipnet::IpNet;

use crate::pb;

/// Most ranges that are told.
pub const MAX_RANGES: usize = 256;

/// Said by the hub after Welcome when it is known, and again with each change: all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges {
    /// Kubernetes' ServiceCIDRs; empty = the source has none.
    pub service_cidrs: Vec<IpNet>,
}

impl From<&Ranges> for pb::Ranges {
    fn from(ranges: &Ranges) -> Self {
        let told = ranges.service_cidrs.iter().take(MAX_RANGES);
        Self { service_cidrs: told.map(IpNet::to_string).collect() }
    }
}

impl From<pb::Ranges> for Ranges {
    /// What only a newer version can read is left out: addresses in it count one by one then.
    fn from(ranges: pb::Ranges) -> Self {
        let told = ranges.service_cidrs.iter().take(MAX_RANGES);
        Self { service_cidrs: told.filter_map(|range| range.parse().ok()).collect() }
    }
}
