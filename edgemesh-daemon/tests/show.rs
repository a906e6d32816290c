//! What people read of the admin API: tables and pages at 80 columns, and never wider than asked.

mod common;
#[path = "show/samples.rs"]
mod samples;

use edgemesh_daemon::api::BackendView;
use edgemesh_daemon::api::EndpointView;
use edgemesh_daemon::api::Explanation;
use edgemesh_daemon::api::Links;
use edgemesh_daemon::api::NodeView;
use edgemesh_daemon::api::PeerLink;
use edgemesh_daemon::api::PolicyView;
use edgemesh_daemon::api::RouteView;
use edgemesh_daemon::api::RuleView;
use edgemesh_daemon::api::ServiceView;
use edgemesh_daemon::api::Status;
use edgemesh_daemon::cli::Output;
use edgemesh_daemon::show;
use serde::de::DeserializeOwned;

use crate::samples::{ENDPOINTS, RULES};

/// The values as the admin API would send them, which fixes the JSON names too.
fn from_json<T: DeserializeOwned>(text: &str) -> T {
    serde_json::from_str(text).expect("the JSON of the admin API")
}

const SERVICES: &str = r#"[
  {"namespace":"default","name":"hello","addresses":["10.96.0.10","fd00:10:96::a"],"virtual":[],
   "ports":[{"name":"http","port":80,"protocol":"http","transport":"TCP","backends":3,"ready":2},
            {"name":"dns","port":53,"protocol":"sniff","transport":"UDP","backends":3,"ready":3}],
   "policy":{"balance":"leastRequest","locality":"preferNode","clientQps":100.0,"serverQps":0.5,
             "consecutiveFailures":5,"connectTimeoutMs":1000,"requestTimeoutMs":15000,"retries":2},
   "source":"slice"},
  {"namespace":"shop","name":"a-rather-long-name-of-a-service","addresses":[],
   "virtual":["198.18.3.7"],
   "ports":[{"name":"","port":6379,"protocol":"tcp","transport":"TCP","backends":1,"ready":1}],
   "policy":null,"source":"pods"},
  {"namespace":"shop","name":"empty","addresses":["10.96.0.12"],"virtual":[],"ports":[],
   "policy":null,"source":"none"},
  {"namespace":"shop","name":"outside","addresses":[],"virtual":[],"externalName":"pay.example.com",
   "ports":[],"policy":null,"source":"none"}]"#;

const BACKENDS: &str = r#"[
  {"namespace":"default","service":"hello","port":"http","address":"10.244.0.7:8080",
   "node":"edge-1","zone":"site-a","tier":"node","state":"admits","untilSeconds":null,
   "inFlight":3,"requests":120345,"failures":12},
  {"namespace":"default","service":"hello","port":"http","address":"[fd00:10:244::17]:8080",
   "node":"","zone":"","tier":"any","state":"rejects","untilSeconds":17,
   "inFlight":0,"requests":7,"failures":7},
  {"namespace":"shop","service":"redis","port":"6379","address":"10.244.1.9:6379",
   "node":"edge-2","zone":"site-a","tier":"zone","state":"probes","untilSeconds":null,
   "inFlight":1,"requests":1,"failures":0}]"#;

const NODES: &str = r#"[
  {"name":"edge-1","zone":"site-a","addresses":["192.168.1.10","fd00::10"],"here":true,"backends":4},
  {"name":"edge-2","zone":"","addresses":[],"here":false,"backends":0}]"#;

const LINKED_NODES: &str = r#"[
  {"name":"edge-1","zone":"site-a","addresses":["192.168.1.10","fd00::10"],"here":true,"backends":4,
   "agent":true,"viaCloud":false},
  {"name":"edge-2","zone":"site-a","addresses":["192.168.1.11"],"here":false,"backends":2,"agent":true,
   "viaCloud":false,"link":{"node":"edge-2","path":"direct","reason":"it answers at its address",
     "rttMs":0.42,"sinceSeconds":11000,"address":"192.168.1.11:15008"}},
  {"name":"edge-3","zone":"site-b","addresses":["10.7.0.3"],"here":false,"backends":1,"agent":true,
   "viaCloud":false,"link":{"node":"edge-3","path":"hub",
     "reason":"10.7.0.3:15008: no answer within 3 s; tried again in 21 s","rttMs":31.4,"sinceSeconds":42,
     "address":""}},
  {"name":"edge-4.site-b.example","zone":"site-b","addresses":[],"here":false,"backends":1,"agent":true,
   "viaCloud":false,"link":{"node":"edge-4.site-b.example","path":"none",
     "reason":"neither the node nor the cloud can be reached","rttMs":null,"sinceSeconds":4000,"address":""}},
  {"name":"vm-1","zone":"cloud","addresses":["10.0.0.5"],"here":false,"backends":1,"agent":false,
   "viaCloud":true,"link":{"node":"vm-1","path":"hub","reason":"reached through the cloud","rttMs":null,
     "sinceSeconds":42,"address":""}},
  {"name":"plain-1","zone":"","addresses":["192.168.1.40"],"here":false,"backends":1}]"#;

const LINKED_BACKENDS: &str = r#"[
  {"namespace":"default","service":"hello","port":"http","address":"192.168.1.11:8080",
   "node":"edge-2","zone":"site-a","tier":"zone","path":"direct","state":"admits","untilSeconds":null,
   "inFlight":3,"requests":120345,"failures":12},
  {"namespace":"default","service":"hello","port":"http","address":"10.7.0.3:8080",
   "node":"edge-3","zone":"site-b","tier":"any","path":"hub","state":"admits","untilSeconds":null,
   "inFlight":0,"requests":7,"failures":7}]"#;

const POLICIES: &str = r#"[
  {"namespace":"default","name":"hello","service":"hello","origin":"TrafficPolicy","active":true,
   "conflicted":null,"balance":"roundRobin","locality":"onlyNode","clientQps":100.0},
  {"namespace":"default","name":"hello-istio","service":"hello","origin":"DestinationRule",
   "active":false,"conflicted":"TrafficPolicy default/hello wins"}]"#;

const ROUTES: &str = r#"[
  {"namespace":"default","name":"hello","parents":[{"service":"default/hello","port":"","found":true}],
   "rules":[{"name":"canary","matches":["prefix /, header x-canary: yes"],"redirect":null,"edits":[],
       "backends":[{"service":"default/hello-2","port":80,"weight":1}],
       "requestTimeoutMs":null,"backendTimeoutMs":null},
     {"name":"","matches":["prefix /"],"redirect":null,"edits":["request headers","path"],
       "backends":[{"service":"default/hello-1","port":80,"weight":90},{"service":"","port":0,"weight":10}],
       "requestTimeoutMs":500,"backendTimeoutMs":100}],
   "state":"partly","conditions":["rules[1].backendRefs[1]: is no Service; its share gets 500"]},
  {"namespace":"shop","name":"moved","parents":[{"service":"shop/web","port":"80","found":true},
     {"service":"shop/web","port":"alt","found":true}],
   "rules":[{"name":"","matches":["path /a","path ~ /b[0-9]+"],"redirect":"301 host example.org",
       "edits":[],"backends":[],"requestTimeoutMs":null,"backendTimeoutMs":null}],
   "state":"accepted","conditions":[]}]"#;

const STATUS: &str = r#"{"node":"edge-1","version":"0.1.0","ready":false,
  "notReady":["capture rules: iptables is not installed",
    "no records yet: neither from the store nor from the source"],"revision":42,"epoch":"7f3a91c2-5b0d-4e86-9a4f-0c1d2e3f4a5b",
  "dataAgeSeconds":4000,"store":"storeReadOnly",
  "repairs":["meta.db was damaged; meta.db.good of revision 40 took its place"],
  "capture":{"state":"failed","backend":"nft","device":"edgemesh0",
    "include":["10.96.0.0/12","198.18.0.0/16"],
    "outside":[{"service":"shop/far","address":"172.30.0.9"}],
    "notes":["another chain jumps first: KUBE-SERVICES"],"udpPorts":2,"udpElsewhere":1},
  "listeners":["proxy 127.0.0.1:15001","admin 127.0.0.1:15000"],
  "services":1,"backends":4,"ejected":1,"flows":{"open":2,"total":12345},
  "refusals":{"noBackend":2,"rateLimited":17},
  "remarks":[{"severity":"rejected","file":"shop.yaml","line":12,"object":"Service shop/far",
      "field":"spec.ports[0].port","reason":"70000 is no port"},
    {"severity":"warning","file":"","line":0,"object":"","field":"","reason":"two Services have 10.96.0.10"}]}"#;

const QUIET: &str = r#"{"node":"edge-1","version":"0.1.0","ready":true,"notReady":[],"revision":1,
  "epoch":"7f3a91c2-5b0d-4e86-9a4f-0c1d2e3f4a5b","dataAgeSeconds":null,"store":"ok","repairs":[],
  "capture":{"state":"off","backend":"","device":"","include":[],"outside":[],"notes":[]},
  "listeners":[],"services":2,"backends":1,"ejected":0,"flows":{"open":0,"total":0},
  "refusals":{},"remarks":[]}"#;

const LINKS: &str = r#"{"cloud":{"state":"linked","sinceSeconds":11000,"server":"cloud.example:10000",
    "rttMs":31.4,"epoch":"7f3a91c25b0d4e869a4f0c1d2e3f4a5b","revision":42,"dataAgeSeconds":2,
    "certificate":{"node":"edge-1","notAfter":"2026-12-30T12:02:20Z","expiredForSeconds":null},
    "lastError":null},
  "peers":[
    {"node":"edge-2","path":"direct","reason":"it answers at its address","rttMs":0.42,
     "sinceSeconds":11000,"address":"192.168.1.11:15008"},
    {"node":"edge-3","path":"hub","reason":"10.7.0.3:15008: no answer within 3 s; tried again in 21 s",
     "rttMs":31.4,"sinceSeconds":42,"address":""},
    {"node":"edge-4.site-b.example","path":"none","reason":"neither the node nor the cloud can be reached",
     "rttMs":null,"sinceSeconds":4000,"address":""}]}"#;

const AWAY: &str = r#"{"cloud":{"state":"away","sinceSeconds":400000,"server":"[fd00::1]:10000",
    "rttMs":null,"epoch":"7f3a91c25b0d4e869a4f0c1d2e3f4a5b","revision":42,"dataAgeSeconds":400000,
    "certificate":{"node":"edge-1","notAfter":"2026-12-30T12:02:20Z","expiredForSeconds":90000},
    "lastError":"cannot reach [fd00::1]:10000: Network is unreachable"}}"#;

const REFUSED_LINK: &str = r#"{"cloud":{"state":"refused","sinceSeconds":5,"server":"cloud.example:10000",
    "rttMs":null,"epoch":"","revision":0,"dataAgeSeconds":null,"certificate":null,
    "lastError":"the token has expired: make another with `edgemesh token create` on the cloud"}}"#;

/// Records from an API server.
fn followed() -> Status {
    const SOURCE: &str = r#"{"server":"https://10.96.0.1:443","kinds":[
        {"kind":"DestinationRule","objects":0,"wrong":0,"state":"absent","failures":0},
        {"kind":"EndpointSlice","objects":120,"wrong":0,"state":"followed","failures":1},
        {"kind":"HTTPRoute","objects":0,"wrong":0,"state":"absent","failures":0},
        {"kind":"Node","objects":5,"wrong":0,"state":"followed","failures":0},
        {"kind":"Pod","objects":0,"wrong":0,"state":"waiting","trouble":"403","failures":7},
        {"kind":"Service","objects":88,"wrong":2,"state":"followed","failures":0}]}"#;
    Status { source: Some(from_json(SOURCE)), ..from_json(QUIET) }
}

/// A status with `links`.
fn linked(links: &str) -> Status {
    Status { links: from_json(links), ..from_json(QUIET) }
}

/// More nodes than a page should have, those that are cut off last in the alphabet.
fn many() -> Status {
    let mut status = linked(LINKS);
    let few = status.links.peers.clone();
    for number in 10..30 {
        let node = format!("board-{number}");
        status.links.peers.push(PeerLink { node, ..few[0].clone() });
    }
    status
}

const HOP: &str = r#"{"destination":"http://hello.default/","verdict":"hop","steps":[
  {"step":"resolve","what":"Service default/hello, port http (80)","why":"by Host"},
  {"step":"limit","what":"client 100/s, 19 of 20 left","why":""},
  {"step":"balance","what":"10.244.0.7:8080","why":"roundRobin among 2 of 3 Backends on this node; 10.244.0.8:8080 is ejected for another 17 s"}],
  "backend":{"address":"10.244.0.7:8080","node":"edge-1","via":"local"},"refusal":null}"#;

const REFUSED: &str = r#"{"destination":"redis.shop:6379","verdict":"refused","steps":[
  {"step":"resolve","what":"Service shop/redis, port 6379","why":"by name"}],"backend":null,
  "refusal":{"label":"noBackend","status":503,"text":"the Service has no backend"}}"#;

const NO_SERVICE: &str = r#"{"destination":"http://hello/","verdict":"refused","steps":[],
  "backend":null,"refusal":{"label":"noService","status":404,"text":"no Service has this name"}}"#;

/// Every page: its name, and its text at a width.
fn pages(width: u16) -> Vec<(&'static str, String)> {
    vec![
        ("get-services", show::services(&from_json::<Vec<ServiceView>>(SERVICES), width)),
        ("get-services-none", show::services(&[], width)),
        ("get-backends", show::backends(&from_json::<Vec<BackendView>>(BACKENDS), width)),
        ("get-nodes", show::nodes(&from_json::<Vec<NodeView>>(NODES), width)),
        ("get-nodes-linked", show::nodes(&from_json::<Vec<NodeView>>(LINKED_NODES), width)),
        (
            "get-backends-linked",
            show::backends(&from_json::<Vec<BackendView>>(LINKED_BACKENDS), width),
        ),
        ("status-linked", show::status(&linked(LINKS), width)),
        ("status-away", show::status(&linked(AWAY), width)),
        ("status-refused", show::status(&linked(REFUSED_LINK), width)),
        ("status-many", show::status(&many(), width)),
        ("get-policies", show::policies(&from_json::<Vec<PolicyView>>(POLICIES), width)),
        ("get-routes", show::routes(&from_json::<Vec<RouteView>>(ROUTES), width)),
        ("get-endpoints", show::endpoints(&from_json::<Vec<EndpointView>>(ENDPOINTS), width)),
        ("get-rules", show::rules(&from_json::<Vec<RuleView>>(RULES), width)),
        ("status", show::status(&from_json::<Status>(STATUS), width)),
        ("status-source", show::status(&followed(), width)),
        ("status-quiet", show::status(&from_json::<Status>(QUIET), width)),
        ("explain-hop", show::explanation(&from_json::<Explanation>(HOP), width)),
        ("explain-refused", show::explanation(&from_json::<Explanation>(REFUSED), width)),
        ("explain-no-service", show::explanation(&from_json::<Explanation>(NO_SERVICE), width)),
    ]
}

#[test]
fn pages_look_as_they_did() {
    for (name, text) in pages(80) {
        common::golden::check(name, &text);
    }
}

#[test]
fn no_page_is_wider_than_asked() {
    for width in 60..=140 {
        for (name, text) in pages(width) {
            let widest = text.lines().map(|line| line.chars().count()).max().unwrap_or(0);
            assert!(widest <= usize::from(width), "{name} at {width}: {widest}\n{text}");
        }
    }
}

#[test]
fn the_facts_of_status_take_a_line_each() {
    let status = show::status(&from_json::<Status>(STATUS), 80);
    for line in [
        "records   revision 42 of epoch 7f3a91c2, confirmed 1 h 6 min ago",
        "          not ready: no records yet: neither from the store nor from the source",
        "          1 Service, 4 Backends, 1 ejected",
    ] {
        assert!(status.lines().any(|have| have == line), "no {line:?} in\n{status}");
    }
}

#[test]
fn where_not_all_nodes_are_listed_the_cut_off_ones_are() {
    let page = show::status(&many(), 80);
    let row = |node: &str| page.lines().position(|line| line.trim_start().starts_with(node));
    assert!(row("edge-4.site-b") < row("edge-3"), "{page}");
    assert!(row("edge-3") < row("board-10"), "{page}");
    assert_eq!((row("board-29"), row("… and 7 more").is_some()), (None, true), "{page}");
    assert!(page.contains("nodes     21 direct, 1 by the hub, 1 cut off\n"), "{page}");
}

/// A row of 77 columns, the last of them a title's.
#[test]
fn a_row_that_fits_is_not_broken() {
    let json = r#"[{"namespace":"default","service":"hello","port":"80",
      "address":"127.0.0.1:8000","node":"","zone":"","tier":"anywhere","state":"admits",
      "untilSeconds":null,"inFlight":0,"requests":0,"failures":0}]"#;
    let backend = from_json::<Vec<BackendView>>(json);
    for width in 76..=90 {
        let text = show::backends(&backend, width);
        let whole = text.lines().count() == 2 && text.contains("\ndefault/hello:80 ");
        assert_eq!(whole, width >= 77, "at {width}:\n{text}");
    }
}

#[test]
fn only_a_name_that_is_no_service_is_told_of_the_name_server() {
    for (json, told) in [(NO_SERVICE, true), (REFUSED, false), (HOP, false)] {
        let text = show::explanation(&from_json::<Explanation>(json), 80);
        assert_eq!(text.contains("name server"), told, "{text}");
    }
}

#[test]
fn nothing_is_lost_by_wrapping() {
    let squeeze = |text: &str| text.split_whitespace().collect::<String>();
    let narrow = show::explanation(&from_json::<Explanation>(HOP), 60);
    let wide = show::explanation(&from_json::<Explanation>(HOP), 400);
    assert_eq!(squeeze(&narrow), squeeze(&wide));
}

/// The objects of the API come back whole, in both forms.
fn check_objects<T>(json: &str)
where
    T: DeserializeOwned + serde::Serialize + PartialEq + std::fmt::Debug,
{
    let value: T = from_json(json);
    let text = |output| show::render(&value, output, |_| unreachable!()).expect("an answer");
    assert_eq!(from_json::<T>(&text(Output::Json)), value);
    let yaml: T = serde_saphyr::from_str(&text(Output::Yaml)).expect("YAML");
    assert_eq!(yaml, value);
    let sent: serde_json::Value = from_json(json);
    let shown: serde_json::Value = from_json(&text(Output::Json));
    assert_eq!(keys(&sent).difference(&keys(&shown)).next(), None, "a key got lost");
}

fn keys(value: &serde_json::Value) -> std::collections::BTreeSet<String> {
    use serde_json::Value;
    match value {
        Value::Object(map) => {
            let inner = map.values().flat_map(keys);
            map.keys().cloned().chain(inner).collect()
        }
        Value::Array(items) => items.iter().flat_map(keys).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => [].into(),
    }
}

#[test]
fn json_and_yaml_are_the_objects_of_the_api() {
    check_objects::<Vec<ServiceView>>(SERVICES);
    check_objects::<Vec<BackendView>>(BACKENDS);
    check_objects::<Vec<NodeView>>(NODES);
    check_objects::<Vec<PolicyView>>(POLICIES);
    check_objects::<Vec<RouteView>>(ROUTES);
    check_objects::<Vec<EndpointView>>(ENDPOINTS);
    check_objects::<Vec<RuleView>>(RULES);
    check_objects::<Vec<NodeView>>(LINKED_NODES);
    check_objects::<Vec<BackendView>>(LINKED_BACKENDS);
    check_objects::<Status>(STATUS);
    for links in [LINKS, AWAY, REFUSED_LINK] {
        check_objects::<Links>(links);
        check_objects::<Status>(&serde_json::to_string(&linked(links)).expect("JSON"));
    }
    check_objects::<Explanation>(HOP);
    check_objects::<Explanation>(REFUSED);
}
