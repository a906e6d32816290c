//! Bad input and bad days: each is told in words, and nothing is sent that should not be.

use serde_json::Value;

use crate::PATIENCE;
use crate::common::namespace::in_namespace;
use crate::common::run::{need, run};
use crate::common::wait::eventually;
use crate::nodes::EDGEMESH;
use crate::site::{EDGE, INGRESS, Site, named, rule};
use crate::world::CLOUD;

fn endpoint(name: &str, kind: &str, properties: &str) -> String {
    format!(
        "apiVersion: rules.kubeedge.io/v1\nkind: RuleEndpoint\nmetadata: {{name: {name}, namespace: default}}\n\
         spec: {{ruleEndpointType: {kind}, properties: {{{properties}}}}}\n"
    )
}

fn at(path: &str) -> String {
    format!("{INGRESS}/{EDGE}/default/{path}")
}

/// Asks, and reads the JSON of the refusal.
#[track_caller]
fn refused(site: &Site, arguments: &str) -> (u16, Value) {
    let (status, body) = site.ask(arguments);
    (status, serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {status} {body}")))
}

#[test]
fn what_is_wrong_is_told() {
    in_namespace("bad::what_is_wrong_is_told", || {
        need(&["curl"]);
        let site = Site::open(&[
            ("waits", rule("waits", ("my-rest", "path: /waits"), ("late", "path: /target"))),
            ("ports", endpoint("far", "servicebus", "service_port: \"70000\"")),
            ("far", rule("far", ("my-rest", "path: /far"), ("far", "path: /"))),
            ("nul", rule("nul", ("my-rest", "path: /nul"), ("my-eventbus", "topic: \"a\\0b\""))),
            (
                "small",
                rule(
                    "small",
                    ("my-rest", "path: /small, max_body: 1000"),
                    ("my-servicebus", "path: /x"),
                ),
            ),
            (
                "never",
                rule(
                    "never",
                    ("my-rest", "path: /never"),
                    ("my-servicebus", "path: /never, timeout: 1s"),
                ),
            ),
            (
                "topic",
                rule("topic", ("my-rest", "path: /t, max_body: 1000"), ("my-eventbus", "topic: t")),
            ),
            ("big", endpoint("big", "rest", &format!("huge: \"{}\"", "x".repeat(10_300)))),
        ]);
        waits(&site);
        faulty(&site);
        too_large(&site);
        never(&site);
    });
}

/// A Rule waits for its Endpoint, says so, and serves once that is there.
fn waits(site: &Site) {
    let (status, said) = refused(site, &at("waits"));
    assert_eq!((status, &said["error"]), (503, &"ruleWaiting".into()), "{said}");
    assert!(
        said["reason"].as_str().unwrap().contains("there is no Endpoint default/late yet"),
        "{said}"
    );
    let rules = site.cloud.get("/v1/rules");
    let rule = named(rules.as_array().unwrap(), "waits").unwrap();
    assert_eq!((&rule["state"], &rule["target"]), (&"waiting".into(), &Value::Null), "{rule}");
    let late = endpoint("late", "servicebus", "service_port: \"6666\"");
    site.change("late", Some(&late), |rules| {
        named(rules, "waits").is_some_and(|rule| rule["state"] == "active")
    });
    assert_eq!(site.ask(&at("waits")), (200, "edge-app answers GET /target".into()));
}

fn faulty(site: &Site) {
    let (status, said) = refused(site, &at("far"));
    assert_eq!(status, 503, "the Endpoint was rejected, so the Rule waits: {said}");
    let (status, said) = refused(site, &at("nul"));
    assert_eq!((status, &said["error"]), (500, &"ruleFault".into()), "{said}");
    assert!(said["reason"].as_str().unwrap().contains("control character, such as NUL"), "{said}");
    let log = site.cloud.log();
    for part in ["`70000` is no port: 1 to 65535", "bytes as JSON: at most 10240"] {
        assert!(log.contains(part), "{part}");
    }
    let ran = site.cloud.sh(&format!("{EDGEMESH} explain rule nul --admin http://127.0.0.1:15010"));
    assert!(ran.out.contains("control character"), "{ran:?}");
}

/// Of what says that it is too large nothing is sent; of what turns out to be nothing is whole.
fn too_large(site: &Site) {
    let known = site.app.arrived().len();
    let file = site.world.write("large", &"x".repeat(1001));
    let file = file.display();
    for form in ["", "-H 'Transfer-Encoding: chunked'"] {
        let (status, said) =
            refused(site, &format!("{form} --data-binary @{file} {}", at("small")));
        assert_eq!((status, &said["error"]), (413, &"bodyTooLarge".into()), "{form}: {said}");
        let (status, _) = refused(site, &format!("{form} --data-binary @{file} {}", at("t")));
        assert_eq!(status, 413, "{form}");
    }
    assert_eq!(site.app.arrived().len(), known);
    assert!(site.broker.heard("t ").is_empty());
    let fits = site.world.write("fits", &"x".repeat(1000));
    for form in ["", "-H 'Transfer-Encoding: chunked'"] {
        let line = format!("{form} --data-binary @{} {}", fits.display(), at("small"));
        assert_eq!(site.ask(&line).0, 200, "{form}");
    }
    assert_eq!(site.app.after(known, 2)[1].length, 1000);
}

fn never(site: &Site) {
    let (status, said) = refused(site, &format!("-d x {}", at("never")));
    assert_eq!((status, &said["error"]), (504, &"requestTimeout".into()), "{said}");
    assert_eq!(said["hop"], format!("application 127.0.0.1:6666 on node {EDGE}"), "{said}");
    let there = |line: &Value| line["message"] == said["message"];
    let here = &site.cloud.lines("the one line", 0, 1, there)[0];
    assert_eq!(here["outcome"], "requestTimeout");
    site.edge().lines("and the other end's", 0, 1, there);
}

#[test]
fn a_broker_may_refuse_the_login_or_be_away() {
    in_namespace("bad::a_broker_may_refuse_the_login_or_be_away", || {
        need(&["curl", "mosquitto"]);
        let manifests = [
            ("topic", rule("topic", ("my-rest", "path: /t"), ("my-eventbus", "topic: t"))),
            (
                "up",
                rule(
                    "up",
                    ("my-eventbus", "topic: up"),
                    ("my-rest", "resource: \"http://127.0.0.1:7777/\""),
                ),
            ),
        ];
        let site = Site::with(&manifests, "allow_anonymous false", "");
        eventually("the login is refused", PATIENCE, || {
            let (status, said) = refused(&site, &format!("-d x {}", at("t")));
            let reason = said["reason"].as_str().unwrap().to_owned();
            assert_eq!((status, said["hop"].as_str()), (503, Some("broker of node a1")), "{said}");
            (reason.contains("127.0.0.1:1883") && reason.contains("refuses")).then_some(())
        });
        let rules = site.cloud.get("/v1/rules");
        let rule = named(rules.as_array().unwrap(), "topic").unwrap();
        assert_eq!(rule["state"], "degraded", "{rule}");
        assert!(rule["fail_messages"].as_u64() > Some(0), "{rule}");
        let said = site.edge().log();
        assert!(said.contains("refuses"), "{said}");
        let page = site.edge().sh(&format!("{EDGEMESH} status"));
        assert!(page.out.contains("mqtt://127.0.0.1:1883, away since"), "{page:?}");
    });
}

/// Paths below a Rule that takes every path to `/target`, and what arrives; none = it is refused.
const ODD_PATHS: &[(&str, Option<&str>)] = &[
    ("a%00b", Some("/target/a%00b")),
    ("%ff", Some("/target/%ff")),
    ("*", Some("/target/*")),
    ("{x}", Some("/target/{x}")),
    ("a//b/", Some("/target/a//b/")),
    ("a/../../b", None),
    ("..%2f..", None),
    ("%2E%2e/b", None),
    ("./b", None),
];

#[test]
fn garbage_at_every_door() {
    in_namespace("bad::garbage_at_every_door", || {
        need(&["curl", "nc"]);
        let key = format!("target_url: \"http://x/key\", node_name: {EDGE}");
        let url = "resource: \"http://127.0.0.1:7777/\"";
        let app = ("my-servicebus", "path: /target");
        let site = Site::open(&[
            ("key", rule("key", ("my-servicebus", &key), ("my-rest", url))),
            ("all", rule("all", ("my-rest", "path: /"), app)),
        ]);
        eventually("the ServiceBus listens", PATIENCE, || {
            (run(EDGE, "nc -z 127.0.0.1 9060").code == Some(0)).then_some(())
        });
        for bytes in [
            "\\x00\\xff\\xfe",
            "GET / HTTP/9.9\\r\\n\\r\\n",
            "{}",
            "POST / HTTP/1.1\\r\\nContent-Length: 99\\r\\n\\r\\nx",
        ] {
            run(EDGE, &format!("printf '{bytes}' | nc -N -w 1 127.0.0.1 9060"));
            run(CLOUD.name, &format!("printf '{bytes}' | nc -N -w 1 127.0.0.1 9443"));
        }
        let body = "'{\"method\":\"BR EW\",\"targetURL\":\"http://x/key\"}'";
        let ran = run(EDGE, &format!("curl -sS -d {body} http://127.0.0.1:9060/"));
        assert!(ran.out.contains("\"code\":400"), "{ran:?}");
        for (path, want) in ODD_PATHS {
            let (status, said) = site.ask(&format!("-g '{}'", at(path)));
            let told = said.lines().next().unwrap_or_default();
            match want {
                Some(arrives) => assert_eq!(told, format!("edge-app answers GET {arrives}")),
                None => assert_eq!(status, 400, "{path}: {said}"),
            }
        }
        let body = "'{\"method\":\"PUT\",\"targetURL\":\"http://x/key\",\"payload\":\"fine\"}'";
        let ran = run(EDGE, &format!("curl -sS -d {body} http://127.0.0.1:9060/"));
        assert!(ran.out.contains("rest-target answers PUT /"), "all goes on: {ran:?}");
    });
}
