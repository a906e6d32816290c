//! Which of several Rules takes a message: the longest path, then the oldest.

use std::cmp::Ordering;
use std::sync::Arc;

use edgemesh_proto::record::RuleName;

use crate::snapshot::rules::{Rule, Source};

/// The longer path first, then the older, then the name. An unknown age is the youngest.
pub(super) fn order(one: &Arc<Rule>, other: &Arc<Rule>) -> Ordering {
    let paths = match (one.path(), other.path()) {
        (Some(one), Some(other)) => one.order(other),
        (one, other) => other.is_some().cmp(&one.is_some()),
    };
    paths.then_with(|| one.age().cmp(&other.age()))
}

impl Rule {
    /// By which of two Rules the older is told.
    pub(in crate::snapshot) fn age(&self) -> (bool, i64, &RuleName) {
        (self.record.created_at == 0, self.record.created_at, &self.name)
    }

    /// Whether both take the same messages, so that one of them can take none. Of one topic each
    /// gets every message.
    pub(in crate::snapshot) fn contends(&self, other: &Self) -> bool {
        match (&self.source, &other.source) {
            (Some(Source::Rest { path }), Some(Source::Rest { path: same })) => {
                self.name.namespace == other.name.namespace && path.is_same(same)
            }
            (
                Some(Source::ServiceBus { url, node }),
                Some(Source::ServiceBus { url: same, node: there }),
            ) => url == same && node == there,
            (
                Some(Source::Service { service, port, path }),
                Some(Source::Service { service: same, port: there, path: alike }),
            ) => {
                let paths = match (path, alike) {
                    (Some(path), Some(alike)) => path.is_same(alike),
                    (path, alike) => path.is_none() && alike.is_none(),
                };
                service == same && port == there && paths
            }
            _ => false,
        }
    }
}
