//! An agent alone at an API server, and at KubeEdge's MetaServer: captured calls go where their objects say,
//! also when the server is gone.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::agent::{Agent, PATIENCE};
use crate::backend::Backend;
use crate::common::namespace::{in_namespace, sh};
use crate::common::run::{need, run};
use crate::common::wait::eventually;
use crate::world::{ONE, TWO, World, listen};

const SERVICES: &str = "/api/v1/services";
const SLICES: &str = "/apis/discovery.k8s.io/v1/endpointslices";
const ENDPOINTS: &str = "/api/v1/endpoints";
const RANGES: &str = "/apis/networking.k8s.io/v1/servicecidrs";

/// A server that lists what it holds and tells changes to who watches.
#[derive(Clone, Default)]
struct Api(Arc<Mutex<Held>>);

#[derive(Default)]
struct Held {
    version: u64,
    objects: BTreeMap<&'static str, BTreeMap<String, Value>>,
    watchers: Vec<(String, TcpStream)>,
    gone: bool,
}

impl Api {
    fn start(at: &str) -> Self {
        let (api, listener) = (Self::default(), listen("", at));
        let serving = api.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let api = serving.clone();
                std::thread::spawn(move || api.answer(stream));
            }
        });
        api
    }

    fn put(&self, path: &'static str, mut object: Value) {
        let mut held = self.0.lock().unwrap();
        held.version += 1;
        object["metadata"]["namespace"] = "default".into();
        object["metadata"]["resourceVersion"] = held.version.to_string().into();
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        let event = format!("{}\n", json!({"type": "MODIFIED", "object": object}));
        held.objects.entry(path).or_default().insert(name, object);
        held.watchers.retain(|(of, stream)| {
            let mut stream = stream;
            of != path || write!(stream, "{:x}\r\n{event}\r\n", event.len()).is_ok()
        });
    }

    /// From now on it breaks every connection.
    fn is_gone(&self, gone: bool) {
        let mut held = self.0.lock().unwrap();
        held.gone = gone;
        for (_, stream) in held.watchers.drain(..) {
            stream.shutdown(Shutdown::Both).ok();
        }
    }

    fn answer(&self, mut stream: TcpStream) -> Option<()> {
        let mut reader = BufReader::new(stream.try_clone().ok()?);
        let (mut first, mut line) = (String::new(), String::new());
        reader.read_line(&mut first).ok()?;
        while reader.read_line(&mut line).ok()? > 2 {
            line.clear();
        }
        let target = first.split(' ').nth(1)?;
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut held = self.0.lock().unwrap();
        if held.gone {
            return None;
        }
        if query.contains("watch=true") {
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
            stream.write_all(head.as_bytes()).ok()?;
            held.watchers.push((path.into(), stream));
            return Some(());
        }
        let all = held.objects.get(path);
        let items: Vec<&Value> = all.into_iter().flat_map(BTreeMap::values).collect();
        let body = match path {
            "/version" => json!({"major": "1", "minor": "30"}),
            _ => json!({"kind": "List", "apiVersion": "v1", "items": items,
                "metadata": {"resourceVersion": held.version.to_string()}}),
        };
        let body = body.to_string();
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            body.len()
        );
        stream.write_all(format!("{head}{body}").as_bytes()).ok()
    }
}

fn service() -> Value {
    json!({"metadata": {"name": "web"},
        "spec": {"clusterIP": "10.96.0.80", "ports": [{"port": 80, "targetPort": 8080}]}})
}

fn slice(address: &str) -> Value {
    json!({"metadata": {"name": "web-x", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4", "ports": [{"port": 8080}], "endpoints": [{"addresses": [address]}]})
}

fn endpoints(address: &str) -> Value {
    json!({"metadata": {"name": "web"},
        "subsets": [{"addresses": [{"ip": address}], "ports": [{"port": 8080}]}]})
}

fn ranges(cidrs: &[&str]) -> Value {
    json!({"metadata": {"name": "kubernetes"}, "spec": {"cidrs": cidrs}})
}

fn config(world: &World, server: &str) -> String {
    format!(
        "node: node-1\ndataDir: {}\nsource: {{ kubernetes: {{ server: 'http://{server}' }} }}\nservices: {}\n",
        world.path("data").display(),
        world.path("services").display(),
    )
}

#[track_caller]
fn answers(name: &str) {
    let ask = || run("", "curl -sS --max-time 2 http://10.96.0.80/").out.trim().to_owned();
    eventually(&format!("{name} answers"), PATIENCE, || (ask() == name).then_some(()));
}

/// Serves at `at` what it is told to be, which `place` makes of an address.
fn follows(at: &'static str, path: &'static str, place: fn(&str) -> Value) {
    need(&["curl"]);
    let world = World::new();
    let _one = Backend::start("", "one", ONE, 8080);
    let _two = Backend::start("", "two", TWO, 8080);
    let api = Api::start(at);
    api.put(SERVICES, service());
    api.put(path, place(ONE[0]));
    let agent = Agent::start_with(&world, &config(&world, at));
    answers("one");
    api.put(path, place(TWO[0]));
    answers("two");
    let source = agent.get("/v1/status")["source"].clone();
    assert_eq!(source["server"], format!("http://{at}"));
    let kinds = source["kinds"].as_array().unwrap();
    let services = kinds.iter().find(|kind| kind["kind"] == "Service").unwrap();
    assert_eq!((&services["objects"], &services["state"]), (&json!(1), &json!("followed")));
    let metrics = agent.metrics();
    assert!(metrics.contains("edgemesh_source_objects{kind=\"Service\"} 1"), "{metrics}");
    // The server goes, and a new agent knows only what the last one stored.
    api.is_gone(true);
    agent.kill_all();
    let agent = Agent::start_with(&world, &config(&world, at));
    answers("two");
    eventually("it is said that the server is gone", PATIENCE, || {
        let remarks = agent.get("/v1/status")["remarks"].to_string();
        remarks.contains(&format!("API server http://{at}")).then_some(())
    });
    api.put(path, place(ONE[0]));
    api.is_gone(false);
    answers("one");
}

#[test]
fn an_agent_alone_follows_an_api_server() {
    in_namespace("kubernetes::an_agent_alone_follows_an_api_server", || {
        follows("127.0.0.1:6443", SLICES, slice);
    });
}

#[test]
fn an_agent_alone_follows_a_meta_server() {
    in_namespace("kubernetes::an_agent_alone_follows_a_meta_server", || {
        follows("127.0.0.1:10550", ENDPOINTS, endpoints);
    });
}

/// Destinations in the rules of the host's own connections: captured, and left alone.
fn in_rules() -> [Vec<String>; 2] {
    let rules = sh("iptables-save -t nat");
    ["-p tcp -m comment --comment edgemesh -j REDIRECT", "-m comment --comment edgemesh -j RETURN"]
        .map(|what| {
            let of_kind = rules
                .lines()
                .filter(|rule| rule.starts_with("-A EDGEMESH_OUT -d 10.") && rule.contains(what));
            of_kind.map(|rule| rule.split(' ').nth(3).unwrap().to_owned()).collect()
        })
}

#[track_caller]
fn captures(include: &[&str], alone: &[&str]) {
    let what = format!("captured: {include:?}, left alone: {alone:?}");
    eventually(&what, PATIENCE, || (in_rules() == [include, alone]).then_some(()));
}

/// What lies in a ServiceCIDR is captured, but not what is left to others; what is unknown there passes through.
#[test]
fn service_cidrs_are_captured() {
    in_namespace("kubernetes::service_cidrs_are_captured", || {
        need(&["curl"]);
        let at = "127.0.0.1:6443";
        let world = World::new();
        let _one = Backend::start("", "one", ONE, 8080);
        let _two = Backend::start("", "two", TWO, 8080);
        let api = Api::start(at);
        api.put(SERVICES, service());
        api.put(SLICES, slice(ONE[0]));
        let agent = Agent::start_with(&world, &config(&world, at));
        answers("one");
        captures(&["10.96.0.80/32"], &[]);
        api.put(RANGES, ranges(&["10.96.0.0/16", "10.4.0.0/24"]));
        captures(&["10.4.0.0/24", "10.96.0.0/16"], &[]);
        let mut theirs = service();
        theirs["metadata"] = json!({"name": "theirs",
            "labels": {"service.edgemesh.kubeedge.io/service-proxy-name": "other"}});
        theirs["spec"]["clusterIP"] = "10.96.0.81".into();
        api.put(SERVICES, theirs);
        captures(&["10.4.0.0/24", "10.96.0.0/16"], &["10.96.0.81/32"]);
        // A Service whose address lies elsewhere is captured all the same.
        let mut elsewhere = service();
        elsewhere["metadata"]["name"] = "elsewhere".into();
        elsewhere["spec"]["clusterIP"] = "10.97.0.1".into();
        api.put(SERVICES, elsewhere);
        captures(&["10.4.0.0/24", "10.96.0.0/16", "10.97.0.1/32"], &["10.96.0.81/32"]);
        assert_eq!(agent.get("/v1/status")["capture"]["outside"], json!([]));
        answers("one");
        let unknown = format!("curl -sS --max-time 2 http://{}:8080/", TWO[0]);
        assert_eq!(run("", &unknown).out.trim(), "two");
        let metrics = agent.metrics();
        assert!(metrics.contains("connections_passed_through_total 1"), "{metrics}");
        // The server goes: a new agent has what the last one was told.
        api.is_gone(true);
        agent.kill_all();
        let _agent = Agent::start_with(&world, &config(&world, at));
        captures(&["10.4.0.0/24", "10.96.0.0/16", "10.97.0.1/32"], &["10.96.0.81/32"]);
        api.put(RANGES, ranges(&["10.96.0.0/12"]));
        api.is_gone(false);
        captures(&["10.96.0.0/12"], &["10.96.0.81/32"]);
    });
}
