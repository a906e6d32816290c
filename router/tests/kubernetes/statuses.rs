//! What became of Rules, Endpoints and Policies is written into their status, and not too often.

use std::sync::Arc;
use std::time::Duration;

use edgemesh_core::config::AccessLog;
use edgemesh_core::dial::Dial;
use edgemesh_core::identity::OFFLINE_GRACE;
use edgemesh_core::listen::Listener;
use edgemesh_router::cloud::{Cloud, CloudOptions, Records};
use edgemesh_router::kubernetes::Access;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::{Api, SERVICES, service};
use crate::http::Server;
use crate::world::PATIENCE;

const RULES: &str = "/apis/rules.kubeedge.io/v1/rules";
const ENDPOINTS: &str = "/apis/rules.kubeedge.io/v1/ruleendpoints";
const POLICIES: &str = "/apis/edgemesh.io/v1alpha1/trafficpolicies";

fn object(name: &str, spec: Value) -> Value {
    json!({"metadata": {"namespace": "demo", "name": name, "generation": 3, "uid": name,
        "creationTimestamp": "2026-11-30T10:00:00Z"}, "spec": spec})
}

fn rule(name: &str, path: &str, target: &str) -> Value {
    object(
        name,
        json!({"source": "rest", "sourceResource": {"path": path},
        "target": target, "targetResource": {"resource": "http://127.0.0.1:9/"}}),
    )
}

/// Type, status and reason of each condition.
fn conditions(status: &Value) -> Vec<(String, String, String)> {
    let text = |condition: &Value, key: &str| condition[key].as_str().unwrap().to_owned();
    let mut all = status["conditions"].as_array().cloned().unwrap_or_default();
    all.retain(|condition| condition["type"] != "Odd");
    all.iter().map(|c| (text(c, "type"), text(c, "status"), text(c, "reason"))).collect()
}

async fn until(what: &str, api: &Api, is: impl Fn(&Api) -> bool) {
    let waiting = async {
        while !is(api) {
            sleep(Duration::from_millis(20)).await;
        }
    };
    if timeout(PATIENCE, waiting).await.is_err() {
        let all = [RULES, ENDPOINTS, POLICIES].map(|path| api.objects(path));
        panic!("{what}: {}", json!(all));
    }
}

#[tokio::test]
async fn what_became_of_each_object_is_said() {
    let api = Arc::new(Api::new());
    api.put(SERVICES, service("web", "10.96.0.1"));
    let rest = |name: &str| object(name, json!({"ruleEndpointType": "rest"}));
    api.put(ENDPOINTS, rest("rest"));
    api.put(ENDPOINTS, object("odd", json!({"ruleEndpointType": 7})));
    api.put(RULES, rule("first", "/a", "rest"));
    api.put(RULES, rule("second", "/a", "rest"));
    let mut waits = rule("waits", "/b", "nowhere");
    waits["status"]["conditions"] = json!([{"type": "Odd", "status": "True", "reason": "Somebody",
        "message": "else wrote this", "lastTransitionTime": "2026-11-30T10:00:00Z"}]);
    api.put(RULES, waits);
    let policy = |name: &str, service: &str, qps: Value| {
        object(
            name,
            json!({"targetRef": {"kind": "Service", "name": service},
            "rateLimit": {"client": {"qps": qps}}}),
        )
    };
    api.put(POLICIES, policy("web", "web", 10.into()));
    api.put(POLICIES, policy("web-too", "web", 10.into()));
    api.put(POLICIES, policy("bad", "web", "many".into()));
    api.put(POLICIES, policy("lost", "lost", 10.into()));
    let server = Server::start(api.clone()).await;
    let folder = tempfile::tempdir().unwrap();
    let access = Access::Url { server: server.url(), token_file: None, ca_file: None };
    let options = CloudOptions {
        data_dir: folder.path().into(),
        zone: "cloud".into(),
        records: Records::Kubernetes(access),
        names: vec!["localhost".into()],
        domain: "cluster.local".into(),
        dial: Dial::default(),
        access_log: AccessLog::Off,
        grace: OFFLINE_GRACE,
    };
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    let cloud = Cloud::open(options, stop.clone()).unwrap();
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    tasks.spawn(cloud.run(listener));
    let accepted = ("Accepted", "True", "Accepted");
    for (path, name, want) in [
        (RULES, "first", vec![accepted, ("Active", "True", "Active")]),
        (RULES, "second", vec![accepted, ("Active", "False", "Overruled")]),
        (RULES, "waits", vec![accepted, ("Active", "False", "Waiting")]),
        (ENDPOINTS, "rest", vec![accepted]),
        (ENDPOINTS, "odd", vec![("Accepted", "False", "Invalid")]),
        (POLICIES, "web", vec![accepted]),
        (POLICIES, "web-too", vec![("Accepted", "False", "Conflicted")]),
        (POLICIES, "bad", vec![("Accepted", "False", "Invalid")]),
        (POLICIES, "lost", vec![("Accepted", "True", "NoService")]),
    ] {
        let want: Vec<_> =
            want.into_iter().map(|(a, b, c)| (a.to_owned(), b.to_owned(), c.to_owned())).collect();
        let is = |api: &Api| conditions(&api.status_of(path, name)) == want;
        until(&format!("{name}: {want:?}"), &api, is).await;
        assert_eq!(api.status_of(path, name)["observedGeneration"], 3, "{name}");
    }
    let said = |path, name: &str, at: usize| {
        api.status_of(path, name)["conditions"][at]["message"].as_str().unwrap().to_owned()
    };
    assert_eq!(said(RULES, "waits", 2), "target: there is no Endpoint demo/nowhere yet");
    assert!(said(POLICIES, "bad", 0).starts_with("spec.rateLimit.client.qps: "));
    // What is said does not change what is there, so that nothing more is said.
    let written = api.count("patch");
    assert_eq!(written, 9, "each object once");
    sleep(Duration::from_secs(5)).await;
    assert_eq!(api.count("patch"), written, "nothing is new");
    let since = api.status_of(RULES, "waits")["conditions"][1]["lastTransitionTime"].clone();
    api.put(ENDPOINTS, rest("nowhere"));
    until("it waits no more", &api, |api| {
        conditions(&api.status_of(RULES, "waits"))[1].2 == "Active"
    })
    .await;
    assert_eq!(said(RULES, "waits", 0), "else wrote this");
    let now = &api.status_of(RULES, "waits")["conditions"][1]["lastTransitionTime"];
    assert_eq!(*now, since, "what did not change keeps its time");
    stop.cancel();
    tasks.close();
    tasks.wait().await;
}
