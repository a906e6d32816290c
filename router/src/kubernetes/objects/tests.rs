//! Listings, changes and mistakes, and what of them is told.

use std::path::Path;

use edgemesh_core::manifests::parse_object;
use serde_json::json;

use super::*;

const ALL: [&str; 5] = ["Service", "EndpointSlice", "TrafficPolicy", "DestinationRule", "Rule"];

fn name(name: &str) -> Name {
    Name { namespace: "demo".into(), name: name.into() }
}

fn put(kind: &str, of: &str, mut object: Value) -> News {
    let version = match kind {
        "EndpointSlice" => "discovery.k8s.io/v1",
        "TrafficPolicy" => "edgemesh.io/v1alpha1",
        _ => "v1",
    };
    (object["apiVersion"], object["kind"]) = (version.into(), kind.into());
    object["metadata"]["name"] = of.into();
    object["metadata"]["namespace"] = "demo".into();
    News::Put(name(of), parse_object(Path::new("x"), object))
}

fn service(of: &str, ip: &str) -> News {
    put("Service", of, json!({"spec": {"clusterIP": ip, "ports": [{"port": 80}]}}))
}

fn slice(of: &str, address: &str) -> News {
    put(
        "EndpointSlice",
        of,
        json!({"metadata": {"labels": {"kubernetes.io/service-name": "web"}}, "addressType": "IPv4",
            "ports": [{"port": 80}], "endpoints": [{"addresses": [address]}]}),
    )
}

/// Records that are put, then those that are gone, then kinds that are whole.
fn told(objects: &mut Objects) -> String {
    let Some(Supplied { whole, put, delete, .. }) = objects.step() else { return "nothing".into() };
    let put = put.iter().map(|record| format!("+{}", record.key()));
    let delete = delete.iter().map(|key| format!("-{key}"));
    let whole = whole.iter().map(|kind| format!("={}", kind.name()));
    let mut all: Vec<String> = put.chain(delete).chain(whole).collect();
    all.sort();
    all.join(" ")
}

fn hear(objects: &mut Objects, kind: &'static str, all: impl IntoIterator<Item = News>) {
    all.into_iter().for_each(|news| objects.hear(kind, news));
}

fn listed(objects: &mut Objects, kind: &'static str, all: impl IntoIterator<Item = News>) {
    let (before, after) = ([News::Listing], [News::Listed { whole: true }]);
    hear(objects, kind, before.into_iter().chain(all).chain(after));
}

#[test]
fn a_kind_is_told_whole_when_it_was_listed_and_then_by_changes() {
    let mut objects = Objects::new(ALL, ServiceFilter::default());
    hear(&mut objects, "Service", [News::Listing, service("web", "10.0.0.1")]);
    assert_eq!(told(&mut objects), "nothing", "there may be more");
    hear(&mut objects, "Service", [News::Listed { whole: true }]);
    assert_eq!(told(&mut objects), "+service demo/web =service");
    listed(&mut objects, "EndpointSlice", [slice("a", "10.1.0.1"), slice("b", "10.1.0.2")]);
    assert_eq!(told(&mut objects), "+slice demo/a +slice demo/b =slice");
    hear(&mut objects, "EndpointSlice", [slice("a", "10.1.0.1")]);
    assert_eq!(told(&mut objects), "nothing", "the same again");
    hear(&mut objects, "EndpointSlice", [slice("a", "10.1.0.9"), News::Gone(name("b"))]);
    assert_eq!(told(&mut objects), "+slice demo/a -slice demo/b");
    // Listed anew, what is not told any more is gone.
    listed(&mut objects, "EndpointSlice", [slice("b", "10.1.0.2")]);
    assert_eq!(told(&mut objects), "+slice demo/b -slice demo/a");
    listed(&mut objects, "Service", []);
    assert_eq!(told(&mut objects), "-service demo/web");
}

#[test]
fn a_listing_that_breaks_off_takes_nothing_away() {
    let mut objects = Objects::new(ALL, ServiceFilter::default());
    listed(&mut objects, "Service", [service("web", "10.0.0.1"), service("shop", "10.0.0.2")]);
    told(&mut objects);
    hear(&mut objects, "Service", [News::Listing, service("web", "10.0.0.1")]);
    assert_eq!(told(&mut objects), "nothing");
    hear(&mut objects, "Service", [News::Listing, service("web", "10.0.0.1")]);
    hear(&mut objects, "Service", [News::Listed { whole: false }]);
    assert_eq!(told(&mut objects), "nothing", "there may be more");
}

#[test]
fn what_is_known_in_part_is_told_and_replaces_nothing() {
    let mut objects = Objects::new(ALL, ServiceFilter::default());
    hear(&mut objects, "Service", [News::Listing, service("web", "10.0.0.1")]);
    hear(&mut objects, "Service", [News::Listed { whole: false }]);
    hear(&mut objects, "EndpointSlice", [News::Listing, slice("a", "10.1.0.1")]);
    hear(&mut objects, "EndpointSlice", [News::Listed { whole: false }]);
    assert_eq!(told(&mut objects), "+service demo/web +slice demo/a");
    listed(&mut objects, "Service", [service("web", "10.0.0.1")]);
    listed(&mut objects, "EndpointSlice", [slice("a", "10.1.0.1")]);
    let all = "+service demo/web +slice demo/a =service =slice";
    assert_eq!(told(&mut objects), all, "now all of it, at once");
}

#[test]
fn policies_come_from_two_kinds_and_are_whole_when_both_are() {
    let mut objects = Objects::new(ALL, ServiceFilter::default());
    let policy = json!({"spec": {"targetRef": {"kind": "Service", "name": "web"}}});
    listed(&mut objects, "TrafficPolicy", [put("TrafficPolicy", "web", policy)]);
    assert_eq!(told(&mut objects), "+policy demo/web");
    hear(&mut objects, "DestinationRule", [News::Absent]);
    assert_eq!(told(&mut objects), "+policy demo/web =policy");
}

#[test]
fn a_service_that_is_left_to_others_has_no_ports() {
    let mut objects = Objects::new(ALL, ServiceFilter::default());
    let labels = json!({"service.edgemesh.kubeedge.io/service-proxy-name": "x"});
    let spec = json!({"clusterIP": "10.0.0.1", "ports": [{"port": 80}]});
    let object = json!({"metadata": {"labels": labels}, "spec": spec});
    listed(&mut objects, "Service", [put("Service", "web", object)]);
    let step = objects.step().unwrap();
    assert_eq!(step.put[0].body.service().unwrap().ports, []);
}

#[test]
fn a_mistake_keeps_what_was_there_and_is_said_until_it_is_mended() {
    let mut objects = Objects::new(ALL, ServiceFilter::default());
    listed(&mut objects, "Service", [service("web", "10.0.0.1")]);
    told(&mut objects);
    let bad = put("Service", "web", json!({"spec": {"ports": 7}}));
    hear(&mut objects, "Service", [bad]);
    let step = objects.step().unwrap();
    assert_eq!((step.put, step.delete), (Vec::new(), Vec::new()));
    assert_eq!(step.remarks[0].field, "spec.ports");
    assert_eq!((objects.count("Service"), objects.wrong("Service")), (1, 1));
    assert!(step.remarks[0].reason.ends_with("; what it said before stays in force"));
    assert_eq!(objects.again(Some("away".into())).remarks.len(), 1);
    // Also over a listing.
    listed(&mut objects, "Service", [put("Service", "web", json!({"spec": {"ports": 7}}))]);
    assert_eq!(told(&mut objects), "nothing");
    hear(&mut objects, "Service", [service("web", "10.0.0.1")]);
    assert_eq!(objects.step().unwrap().remarks.len(), 0);
    // What was never right is not there.
    hear(&mut objects, "Service", [put("Service", "new", json!({"spec": {}}))]);
    let step = objects.step().unwrap();
    assert_eq!((step.put, step.remarks.len()), (Vec::new(), 1));
}

#[test]
fn what_became_of_objects_is_told_when_it_is_new() {
    let mut objects = Objects::new(ALL, ServiceFilter::default());
    let policy = |qps: Value| {
        put(
            "TrafficPolicy",
            "web",
            json!({"spec": {"targetRef": {"kind": "Service", "name": "web"},
                "rateLimit": {"client": {"qps": qps}}}}),
        )
    };
    let mark = Mark { generation: Some(1), status: Value::Null };
    objects.mark("TrafficPolicy", name("web"), mark.clone());
    listed(&mut objects, "TrafficPolicy", [policy("x".into())]);
    told(&mut objects);
    let judged = objects.judged().unwrap();
    let remark = judged[0].remark.as_ref().unwrap();
    assert_eq!(remark.field, "spec.rateLimit.client.qps");
    assert_eq!(objects.judged(), None, "that was told");
    objects.mark("TrafficPolicy", name("web"), mark);
    hear(&mut objects, "TrafficPolicy", [policy(5.into())]);
    told(&mut objects);
    let judged = objects.judged().unwrap();
    assert!(judged[0].remark.as_ref().is_none_or(|remark| remark.severity == Severity::Note));
    hear(&mut objects, "TrafficPolicy", [News::Gone(name("web"))]);
    told(&mut objects);
    assert_eq!(objects.judged().unwrap(), []);
}

/// Ranges that are told anew, then what is said of the objects.
fn ranges(objects: &mut Objects) -> (Option<Vec<String>>, usize) {
    let Some(step) = objects.step() else { return (None, objects.said.1.len()) };
    let text = |ranges: Arc<[IpNet]>| ranges.iter().map(IpNet::to_string).collect();
    (step.service_cidrs.map(text), step.remarks.len())
}

#[test]
fn ranges_are_told_when_all_are_known_and_the_last_good_ones_stay() {
    let cidr = |of: &str, said: Result<&[&str], &str>| {
        let remark = |reason: &str| Remark {
            severity: Severity::Rejected,
            file: Default::default(),
            line: 0,
            object: of.into(),
            field: String::new(),
            reason: reason.into(),
        };
        let parse = |all: &[&str]| all.iter().map(|range| range.parse().unwrap()).collect();
        News::Ranges(name(of), said.map(parse).map_err(|reason| Box::new(remark(reason))))
    };
    let told = |all: &[&str], remarks| {
        (Some(all.iter().map(|range| (*range).to_owned()).collect::<Vec<_>>()), remarks)
    };
    let mut objects = Objects::new([RANGES], ServiceFilter::default());
    hear(&mut objects, RANGES, [News::Listing, cidr("a", Ok(&["10.96.0.0/16", "fd00::/112"]))]);
    assert_eq!(ranges(&mut objects), (None, 0), "there may be more");
    let rest =
        [cidr("b", Ok(&["10.97.0.0/16"])), cidr("c", Err("no")), News::Listed { whole: true }];
    hear(&mut objects, RANGES, rest);
    assert_eq!(ranges(&mut objects), told(&["10.96.0.0/15", "fd00::/112"], 1));
    assert_eq!((objects.count(RANGES), objects.wrong(RANGES)), (2, 1));
    // The same again is nothing new; what is wrong changes nothing but what is said of it.
    listed(&mut objects, RANGES, [cidr("a", Err("odd")), cidr("b", Ok(&["10.97.0.0/16"]))]);
    assert_eq!(ranges(&mut objects), told(&["10.96.0.0/15", "fd00::/112"], 1));
    assert_eq!(objects.said.1[0].reason, "odd; what it said before stays in force");
    hear(&mut objects, RANGES, [News::Gone(name("a"))]);
    assert_eq!(ranges(&mut objects), told(&["10.97.0.0/16"], 0));
    // A list in which one is missing, and a server that has no such kind any more.
    listed(&mut objects, RANGES, [cidr("d", Ok(&["10.0.0.0/24"]))]);
    assert_eq!(ranges(&mut objects), told(&["10.0.0.0/24"], 0));
    hear(&mut objects, RANGES, [News::Absent]);
    assert_eq!(ranges(&mut objects), told(&[], 0));
    hear(&mut objects, RANGES, [News::Absent]);
    assert_eq!(ranges(&mut objects), (None, 0));
}

#[test]
fn whatever_is_asked_for_becomes_a_record_or_a_range() {
    for asked in crate::kubernetes::asked::ASKED {
        assert!(KINDS.iter().any(|row| row.0 == asked.kind), "{} is not in KINDS", asked.kind);
        assert_eq!(record_of(asked.kind).is_none(), asked.kind == RANGES, "{}", asked.kind);
    }
}
