//! Servers that refuse, talk nonsense or fall silent: told, and the last records stay.

use std::sync::Arc;
use std::time::Duration;

use edgemesh_router::registry::shared::Shared as Registry;
use serde_json::json;

use crate::api::{Api, SERVICES, Trick, service, status};
use crate::http::Server;
use crate::world::World;

fn refusal(code: u16, reason: &str) -> Trick {
    Trick::Answer(code, "application/json", status(code, reason, "because").to_string())
}

/// What a server answers, and what is said of it.
fn answers() -> Vec<(Trick, &'static str)> {
    let text = |kind, body: &str| Trick::Answer(200, kind, body.into());
    vec![
        (refusal(401, "Unauthorized"), "does not accept the credentials (401 because)"),
        (refusal(403, "Forbidden"), "does not allow that (403 because): grant get, list and watch"),
        (refusal(429, "TooManyRequests"), "asked too often (429 because)"),
        (refusal(500, "InternalError"), "500 because"),
        (Trick::Answer(502, "text/html", "<html>bad gateway</html>".into()), "502"),
        (text("text/html", "<html>log in</html>"), "is the URL right?"),
        (text("application/json", r#"{"kind": "ServiceList", "items": [{"#), "is the URL right?"),
        (text("application/json", "k8s\0\n\u{c}\n\u{2}v1"), "is the URL right?"),
        (text("application/json", r#"{"kind": "ServiceList", "items": []}"#), "no resourceVersion"),
    ]
}

#[tokio::test]
async fn what_is_wrong_is_told_and_the_last_records_stay() {
    let api = Arc::new(Api::new());
    api.put(SERVICES, service("web", "10.96.0.1"));
    let server = Server::start(api.clone()).await;
    let address = server.address;
    let world = World::at(server.url());
    world.until("the Service is there", |w| w.names() == ["service demo/web"]).await;
    for (trick, want) in answers() {
        let (shown, one) = (format!("{trick:?}"), trick);
        // Watches break off and cannot begin, and what is listed is nonsense.
        *api.tricks.lock() = Box::new(move |asked, _| match asked.path == SERVICES {
            true if asked.is_watch() => Some(Trick::Answer(410, "text/plain", "gone".into())),
            true => Some(one.clone()),
            false => None,
        });
        api.hang_up();
        let is_said = |w: &World| w.said().trouble.is_some_and(|said| said.contains(want));
        world.until(&format!("{shown}: {want}"), is_said).await;
        let trouble = world.said().trouble.unwrap();
        assert!(
            trouble.contains("Service: ") && trouble.contains(&address.to_string()),
            "{trouble}"
        );
        assert_eq!(world.names(), ["service demo/web"], "{shown}");
        *api.tricks.lock() = Box::new(|_, _| None);
        world.until("it is followed again", |w| w.said().trouble.is_none()).await;
    }
    assert!(world.followed().kinds["Service"].failures >= 9);
}

/// Lists and watches that fall silent, at any place, are given up and begun anew.
#[tokio::test]
async fn streams_that_stall_are_given_up() {
    let api = Arc::new(Api::new());
    api.put(SERVICES, service("web", "10.96.0.1"));
    let mut stalls = [0, 60, 100].into_iter();
    *api.tricks.lock() = Box::new(move |asked, _| match asked.path == SERVICES {
        true if !asked.is_watch() => stalls.next().map(Trick::Stall),
        true => None,
        false => None,
    });
    let server = Server::start(api.clone()).await;
    let registry = Registry::in_memory([1; 16]);
    let world = World::patient(registry, server.url(), Duration::from_secs(1));
    world.until("the Service is there", |w| w.names() == ["service demo/web"]).await;
    // A watch that is silent for longer than the server may be.
    *api.tricks.lock() = Box::new(|asked, _| asked.is_watch().then_some(Trick::Stall(40)));
    api.hang_up();
    world.until("it is silent", |_| api.count("watch") > 10).await;
    *api.tricks.lock() = Box::new(|_, _| None);
    api.put(SERVICES, service("shop", "10.96.0.2"));
    let want = ["service demo/shop", "service demo/web"];
    world.until("and is begun anew", |w| w.names() == want).await;
}

/// A proxy in front of the server that finds nobody says nothing of which kinds there are.
#[tokio::test]
async fn a_page_of_a_proxy_takes_nothing_away() {
    const POLICIES: &str = "/apis/edgemesh.io/v1alpha1/trafficpolicies";
    let api = Arc::new(Api::new());
    let spec = json!({"targetRef": {"kind": "Service", "name": "web"}});
    api.put(POLICIES, json!({"metadata": {"namespace": "demo", "name": "web"}, "spec": spec}));
    let server = Server::start(api.clone()).await;
    let world = World::at(server.url());
    world.until("the Policy is there", |w| w.names() == ["policy demo/web"]).await;
    for page in ["<html>default backend - 404</html>", "nobody is at home"] {
        *api.tricks.lock() = Box::new(move |asked, _| {
            (asked.path == POLICIES).then(|| Trick::Answer(404, "text/html", page.into()))
        });
        api.hang_up();
        let is_said = |w: &World| w.said().trouble.is_some_and(|said| said.contains(page));
        world.until("it is told", is_said).await;
        assert_eq!(world.names(), ["policy demo/web"]);
        *api.tricks.lock() = Box::new(|_, _| None);
        world.until("it is followed again", |w| w.said().trouble.is_none()).await;
    }
    let gone = status(404, "NotFound", "the server could not find the requested resource");
    *api.tricks.lock() = Box::new(move |asked, _| {
        let answer = Trick::Answer(404, "application/json", gone.to_string());
        (asked.path == POLICIES).then_some(answer)
    });
    api.hang_up();
    world.until("its definition is gone, and it with that", |w| w.names().is_empty()).await;
    assert_eq!(world.said().trouble, None);
}

/// What may not be read spoils nothing else, also from the start.
#[tokio::test]
async fn one_kind_that_is_forbidden_spoils_no_other() {
    let api = Arc::new(Api::new());
    api.put(SERVICES, service("web", "10.96.0.1"));
    *api.tricks.lock() =
        Box::new(|asked, _| (asked.path == "/api/v1/pods").then(|| refusal(403, "Forbidden")));
    let server = Server::start(api.clone()).await;
    let world = World::at(server.url());
    world.until("the Service is there", |w| w.names() == ["service demo/web"]).await;
    let trouble = world.said().trouble.unwrap();
    assert!(trouble.contains("Pod: it does not allow that"), "{trouble}");
}
