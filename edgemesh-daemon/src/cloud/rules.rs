//! Rules as the cloud shows them: with what all nodes together counted.

use std::collections::BTreeMap;
use std::sync::Arc;

use edgemesh_core::snapshot::Snapshot;
use edgemesh_core::snapshot::rules::Rule;
use edgemesh_proto::message::RuleTrouble;
use edgemesh_proto::record::RuleName;
use edgemesh_router::registry::Counted;

use crate::agent::views::rule_view;
use crate::api::{RuleState, RuleView};

/// Every Rule, with what all nodes together counted.
pub(super) fn of_all_nodes(
    snapshot: &Snapshot,
    counts: &BTreeMap<RuleName, Counted>,
) -> Vec<RuleView> {
    let view = |rule: &Arc<Rule>| {
        let Counted { success, fail, last_success, trouble } =
            counts.get(&rule.name).cloned().unwrap_or_default();
        let mut own = rule_view(snapshot, rule);
        if let (RuleState::Active, Some((node, RuleTrouble { reason, since }))) =
            (own.state, trouble)
        {
            let reason = format!("on node {node}: {reason}");
            own = RuleView {
                state: RuleState::Degraded,
                reason: Some(reason),
                since: Some(since),
                ..own
            };
        }
        RuleView {
            success_messages: success,
            fail_messages: fail,
            last_success: own.last_success.max(last_success),
            ..own
        }
    };
    snapshot.rules.all().map(view).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use edgemesh_core::io::now;
    use edgemesh_core::manifests;
    use edgemesh_core::snapshot::{Builder, Change};
    use edgemesh_proto::record::NodeName;

    use super::*;

    fn text() -> String {
        let rule = |name: &str| {
            serde_json::json!({"name": name, "source": "in", "source_resource": {"path": format!("/{name}")},
                "target": "in", "target_resource": {"resource": "http://a/"}})
        };
        let endpoint = serde_json::json!({"type": "rest", "name": "in"});
        format!("{endpoint}\n---\n{}\n---\n{}\n", rule("r"), rule("s"))
    }

    #[test]
    fn the_cloud_tells_the_sums() {
        let parsed = manifests::parse(Path::new("a.yaml"), &text());
        let put = parsed.documents.into_iter().flat_map(|document| document.records).collect();
        let mut builder = Builder::new(NodeName("cloud".into()), None);
        let snapshot = builder.apply(Change { put, ..Change::default() }, now());
        let name = RuleName::new("default", "r");
        snapshot.rules.get(&name).unwrap().live.delivered(Duration::from_millis(2), 7);
        let trouble = Some(("n9".into(), RuleTrouble::new("no answer", 5)));
        let sum = Counted { success: 9, fail: 3, last_success: Some(99), trouble };
        let told = of_all_nodes(&snapshot, &BTreeMap::from([(name, sum)]));
        assert_eq!((told[0].success_messages, told[0].fail_messages), (9, 3));
        assert_eq!((told[0].last_success, told[1].success_messages), (Some(99), 0));
        assert_eq!((told[0].state, told[0].since), (RuleState::Degraded, Some(5)));
        assert_eq!(told[0].reason.as_deref(), Some("on node n9: no answer"));
    }
}
