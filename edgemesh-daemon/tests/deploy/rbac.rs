//! Rights at the API server: what is asked of it, and nothing more.

use std::collections::BTreeSet;

use edgemesh_router::kubernetes::asked::{ASKED, By, READ, WRITTEN};
use serde_json::Value;

use crate::helm::{Chart, render, words};

type Rights = BTreeSet<(String, String, String)>;

/// Group, resource and verb of everything that the role lets its subject do.
fn granted(role: &Value) -> Rights {
    let mut all = Rights::new();
    for rule in role["rules"].as_array().unwrap() {
        assert!(
            rule.get("resourceNames").is_none() && rule.get("nonResourceURLs").is_none(),
            "{rule}"
        );
        for group in words(&rule["apiGroups"]) {
            for resource in words(&rule["resources"]) {
                all.extend(
                    words(&rule["verbs"])
                        .into_iter()
                        .map(|verb| (group.to_owned(), resource.to_owned(), verb.to_owned())),
                );
            }
        }
    }
    all
}

fn reads() -> Rights {
    // MetaServer, which alone is asked for the others, knows no rights.
    let rows = ASKED.iter().filter(|asked| asked.by == By::All);
    let each = rows.flat_map(|asked| READ.iter().map(move |verb| (asked, verb)));
    each.map(|(asked, verb)| (asked.group.into(), asked.resource.into(), (*verb).into())).collect()
}

/// The role that is bound to this ServiceAccount, if any; it is the only binding in the chart.
fn bound<'c>(chart: &'c Chart, account: &str) -> Option<&'c Value> {
    for kind in ["Role", "RoleBinding"] {
        assert!(chart.all(kind).is_empty(), "{kind}");
    }
    chart.one("ServiceAccount", account);
    let subject = |binding: &&Value| binding["subjects"][0]["name"] == account;
    let binding = chart.all("ClusterRoleBinding").into_iter().find(subject)?;
    assert_eq!(binding["subjects"].as_array().unwrap().len(), 1, "{binding}");
    assert_eq!(binding["subjects"][0]["namespace"], "edgemesh", "{binding}");
    Some(chart.one("ClusterRole", binding["roleRef"]["name"].as_str().unwrap()))
}

#[test]
fn the_cloud_may_what_it_asks_for() {
    let chart = render(&[]);
    let patch = "patch".to_owned();
    let writes = WRITTEN
        .iter()
        .map(|(group, resource)| ((*group).to_owned(), (*resource).to_owned(), patch.clone()));
    let want: Rights = reads().into_iter().chain(writes).collect();
    assert_eq!(granted(bound(&chart, "edgemesh-cloud").unwrap()), want);
    assert_eq!(chart.cloud()["serviceAccountName"], "edgemesh-cloud");
    assert_eq!(chart.cloud()["automountServiceAccountToken"], true);
}

/// The source of the agents, and whether they may read.
const AGENTS: &[(&str, bool)] = &[("cloud", false), ("metaserver", false), ("kubernetes", true)];

#[test]
fn agents_may_read_where_they_ask_the_api_server_themselves() {
    for (source, may) in AGENTS {
        let chart = render(&[&format!("agent.source={source}")]);
        let granted = bound(&chart, "edgemesh-agent").map(granted);
        assert_eq!(granted, may.then(reads), "{source}");
        assert_eq!(chart.agent()["serviceAccountName"], "edgemesh-agent");
        assert_eq!(chart.agent()["automountServiceAccountToken"], *may, "{source}");
    }
}

#[test]
fn who_asks_nothing_may_nothing() {
    let chart = render(&["cloud.source=none"]);
    assert!(chart.all("ClusterRole").is_empty());
    assert_eq!(chart.cloud()["automountServiceAccountToken"], false);
    let chart = render(&["rbac.create=false", "agent.source=kubernetes"]);
    assert!(chart.all("ClusterRole").is_empty() && chart.all("ClusterRoleBinding").is_empty());
}
