//! One cloud and one edge node with everything that Rules lead to: an application and a broker at the
//! edge, a REST target in the cloud.

use serde_json::Value;

use crate::PATIENCE;
use crate::apps::{App, Broker};
use crate::common::run::{Ran, run};
use crate::common::wait::eventually;
use crate::nodes::{self, Node};
use crate::world::{A1, CLOUD, World};

/// The edge's name, where recordings say `edge-1`.
pub(crate) const EDGE: &str = A1.name;
/// Where callers in the cloud come in.
pub(crate) const INGRESS: &str = "http://127.0.0.1:9443";

/// See the module. What is dropped first is stopped first.
pub(crate) struct Site {
    pub(crate) edge: Option<Node>,
    pub(crate) cloud: Node,
    /// At 127.0.0.1:6666 of the edge.
    pub(crate) app: App,
    /// At 127.0.0.1:7777 of the cloud.
    pub(crate) target: App,
    pub(crate) broker: Broker,
    pub(crate) world: World,
}

/// The Endpoints that KubeEdge's recordings use.
pub(crate) const ENDPOINTS: &str = "
apiVersion: rules.kubeedge.io/v1
kind: RuleEndpoint
metadata: {name: my-rest, namespace: default}
spec: {ruleEndpointType: rest, properties: {}}
---
apiVersion: rules.kubeedge.io/v1
kind: RuleEndpoint
metadata: {name: my-eventbus, namespace: default}
spec: {ruleEndpointType: eventbus, properties: {}}
---
apiVersion: rules.kubeedge.io/v1
kind: RuleEndpoint
metadata: {name: my-servicebus, namespace: default}
spec: {ruleEndpointType: servicebus, properties: {service_port: \"6666\"}}
---
apiVersion: rules.kubeedge.io/v1
kind: RuleEndpoint
metadata: {name: my-servicebus-down, namespace: default}
spec: {ruleEndpointType: servicebus, properties: {service_port: \"6667\"}}
";

/// A Rule of namespace `default`; both resource maps as flow mappings.
pub(crate) fn rule(name: &str, source: (&str, &str), target: (&str, &str)) -> String {
    format!(
        "apiVersion: rules.kubeedge.io/v1\nkind: Rule\nmetadata: {{name: {name}, namespace: default}}\nspec:\n  \
         source: {}\n  sourceResource: {{{}}}\n  target: {}\n  targetResource: {{{}}}\n",
        source.0, source.1, target.0, target.1
    )
}

impl Site {
    /// Starts everything, with these manifests beside the Endpoints and a Service that every agent
    /// knows.
    pub(crate) fn open(manifests: &[(&str, String)]) -> Self {
        Self::with(manifests, "allow_anonymous true", "")
    }

    /// The same with `broker` lines for the broker, and `agent` lines for the agent.
    pub(crate) fn with(manifests: &[(&str, String)], broker: &str, agent: &str) -> Self {
        let world = World::new();
        world.service("any", "10.96.200.1", "http:80:6666", &[A1]);
        world.manifest("endpoints", ENDPOINTS);
        for (name, text) in manifests {
            world.manifest(name, text);
        }
        let broker = Broker::start(&world, EDGE, broker);
        let app = App::start(&world, EDGE, "edge-app", 6666);
        let target = App::start(&world, CLOUD.name, "rest-target", 7777);
        let cloud = nodes::cloud(&world);
        let edge = nodes::agent_with(&world, A1, agent);
        Self { edge: Some(edge), cloud, app, target, broker, world }
    }

    pub(crate) fn edge(&self) -> &Node {
        self.edge.as_ref().unwrap()
    }

    /// Puts a manifest in place and waits until cloud and edge read it so that `seen` says so of each.
    pub(crate) fn change(&self, name: &str, text: Option<&str>, seen: impl Fn(&[Value]) -> bool) {
        match text {
            Some(text) => self.world.manifest(name, text),
            None => self.world.remove_manifest(name),
        }
        for node in [&self.cloud, self.edge()] {
            eventually("the change of a Rule is seen", PATIENCE, || {
                let rules = node.try_get("/v1/rules")?;
                seen(rules.as_array()?).then_some(())
            });
        }
    }

    /// `curl` on the cloud's machine.
    #[track_caller]
    pub(crate) fn curl(&self, arguments: &str) -> Ran {
        run(CLOUD.name, &format!("curl -sS -m 28 --path-as-is {arguments}"))
    }

    /// Status and body of a request at the ingress.
    #[track_caller]
    pub(crate) fn ask(&self, arguments: &str) -> (u16, String) {
        let ran = self.curl(&format!("-w '\\n%{{http_code}}' {arguments}"));
        assert_eq!(ran.code, Some(0), "{arguments}: {ran:?}");
        let (body, status) = ran.out.rsplit_once('\n').unwrap();
        (status.parse().unwrap(), body.to_owned())
    }
}

/// A Rule in `/v1/rules`.
pub(crate) fn named<'v>(rules: &'v [Value], name: &str) -> Option<&'v Value> {
    rules.iter().find(|rule| rule["name"] == name)
}
