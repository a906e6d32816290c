//! What the cloud itself counted outlives it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use edgemesh_core::config::AccessLog;
use edgemesh_core::dial::Dial;
use edgemesh_core::identity::OFFLINE_GRACE;
use edgemesh_core::listen::Listener;
use edgemesh_core::snapshot::rules::Rule;
use edgemesh_proto::record::RuleName;
use edgemesh_router::cloud::{Cloud, CloudOptions, Records, count_own};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Nothing here takes so long unless it hangs.
const PATIENCE: Duration = Duration::from_secs(10);

const RULE: &str = "\
{type: rest, name: in}
---
{name: r, source: in, source_resource: {path: /a}, target: in, target_resource: {resource: 'http://a/'}}
";

/// A life of the cloud; in it, `count` happens to the Rule. What is summed at its end.
async fn life(data: &Path, folder: &Path, count: impl FnOnce(&Rule)) -> (u64, u64) {
    let options = CloudOptions {
        data_dir: data.into(),
        zone: "cloud".into(),
        records: Records::Manifests(folder.into()),
        names: vec!["localhost".into()],
        domain: "cluster.local".into(),
        dial: Dial::default(),
        access_log: AccessLog::Off,
        grace: OFFLINE_GRACE,
    };
    let stop = CancellationToken::new();
    let cloud = Cloud::open(options, stop.clone()).unwrap();
    let (mesh, registry) = (cloud.mesh.clone(), cloud.registry.clone());
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let running = TaskTracker::new().spawn(cloud.run(listener));
    let name = RuleName::new("default", "r");
    let found = async {
        loop {
            if let Some(rule) = mesh.snapshot().rules.get(&name) {
                return Arc::clone(rule);
            }
            tokio::task::yield_now().await;
        }
    };
    let rule = timeout(PATIENCE, found).await.expect("the Rule is read");
    count(&rule);
    count_own(&registry, &mesh.snapshot());
    let sum = registry.counts()[&name].clone();
    stop.cancel();
    timeout(PATIENCE, running).await.expect("it stops").unwrap();
    assert_eq!(rule.live.counts(), (sum.success, sum.fail));
    (sum.success, sum.fail)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_clouds_own_counts_go_on_where_they_were() {
    let (data, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(folder.path().join("a.yaml"), RULE).unwrap();
    let once = |rule: &Rule| rule.live.delivered(Duration::from_millis(1), 7);
    let failed = |rule: &Rule| rule.live.failed("no", 8);
    assert_eq!(life(data.path(), folder.path(), once).await, (1, 0));
    assert_eq!(life(data.path(), folder.path(), failed).await, (1, 1));
    assert_eq!(life(data.path(), folder.path(), once).await, (2, 1));
}
