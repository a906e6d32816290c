//! Which of several Policies for one Service counts, and how they are listed.

use std::collections::BTreeMap;

use edgemesh_proto::record::{DESTINATION_RULE, Policy};

use crate::snapshot::ListedPolicy;
use crate::snapshot::builder::Builder;

impl Builder {
    pub(super) fn listed_policies(&self) -> Vec<ListedPolicy> {
        let mut out = Vec::new();
        for (service, policies) in &self.policies {
            let winner = winner(policies).map(|(name, _)| name);
            out.extend(policies.iter().map(|(name, policy)| ListedPolicy {
                name: title(name).into(),
                service: service.clone(),
                policy: policy.clone(),
                overruled_by:
                    winner.filter(|winner| *winner != &**name).map(|winner| title(winner).into()),
            }));
        }
        out
    }
}

/// TrafficPolicy before DestinationRule, then the older, then the name.
pub(super) fn winner(policies: &BTreeMap<Box<str>, Policy>) -> Option<(&str, &Policy)> {
    // An unknown age is the youngest: whoever knows better wins.
    let age = |policy: &Policy| (policy.created == 0, policy.created);
    let named = policies.iter().map(|(name, policy)| (&**name, policy));
    named.min_by_key(|(name, policy)| (policy.origin, age(policy), *name))
}

/// The name of the object that a Policy record was made from.
pub(super) fn title(name: &str) -> &str {
    name.strip_prefix(DESTINATION_RULE).unwrap_or(name)
}
