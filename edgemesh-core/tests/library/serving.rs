//! Listeners that the application signs up with its own mesh.

use std::sync::Arc;

use bytes::Bytes;
use edgemesh_core::mesh::{Mesh, ServeError};
use edgemesh_core::refusal::Refusal;
use http::Request;
use http_body_util::Empty;
use tokio::net::TcpListener;
use tower_service::Service;

use crate::world::{Act, Backend, Folder, PATIENCE};

async fn call(mesh: &Mesh, uri: &str) -> Result<u16, Refusal> {
    let request = Request::get(uri).body(Empty::<Bytes>::new()).unwrap();
    let answer = mesh.http().call(request).await;
    answer.map(|answer| answer.status().as_u16()).map_err(|refused| refused.refusal)
}

/// Waits until a call ends like this.
async fn becomes(mesh: &Mesh, uri: &str, want: Result<u16, Refusal>) {
    let status = mesh.status();
    let mut changes = status.changes();
    let all = async {
        while call(mesh, uri).await != want {
            changes.changed().await.unwrap();
        }
    };
    tokio::time::timeout(PATIENCE, all).await.unwrap_or_else(|_| panic!("{uri}: {want:?}"));
}

#[tokio::test]
async fn who_signs_up_is_called_until_it_signs_off() {
    for listen in ["127.0.0.1:0", "[::1]:0", "0.0.0.0:0", "[::]:0"] {
        let listener = TcpListener::bind(listen).await.unwrap();
        let mesh = Mesh::builder().open().await.unwrap();
        let (new, old) = ("http://new.default:8080/", "http://new.default/");
        assert_eq!(call(&mesh, new).await, Err(Refusal::NoService), "{listen}");
        let signed_up = mesh.serve("new.default:8080", &listener).await.unwrap();
        let _backend = Backend::on(listener, Act::Answer, Arc::new(|_, _| true));
        assert_eq!(call(&mesh, new).await, Ok(200), "{listen}");
        assert_eq!(call(&mesh, old).await, Err(Refusal::NoPort), "{listen}");
        drop(signed_up);
        becomes(&mesh, new, Err(Refusal::NoService)).await;
        tokio::time::timeout(PATIENCE, mesh.run(async {})).await.expect("in time");
    }
}

/// The kernel's choice of a port is nobody's business: the Service has port 80, once.
#[tokio::test]
async fn a_name_without_a_port_is_port_80() {
    let mesh = Mesh::builder().open().await.unwrap();
    let mut signed_up = Vec::new();
    for _ in 0..2 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let serving = mesh.serve("new.default", &listener).await.unwrap();
        signed_up.push((serving, Backend::on(listener, Act::Answer, Arc::new(|_, _| true))));
    }
    for _ in 0..2 {
        assert_eq!(call(&mesh, "http://new.default/").await, Ok(200));
    }
    assert!(signed_up.iter().all(|(_, backend)| backend.requests() == 1), "both are called");
    let snapshot = mesh.snapshot();
    let ports = &snapshot.by_name("default", "new").unwrap().ports;
    assert_eq!(ports.iter().map(|port| port.port).collect::<Vec<_>>(), [80]);
}

#[tokio::test]
async fn a_service_of_the_manifests_gets_another_backend() {
    let (near, far) = (Backend::start(Act::Answer).await, Backend::start(Act::Answer).await);
    let folder = Folder::new();
    folder.service("svc", &[far.address], "");
    let mesh = folder.open().await;
    assert_eq!(call(&mesh, "http://svc.default/").await, Ok(200));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let signed_up = mesh.serve("svc.default", &listener).await.unwrap();
    let own = Backend::on(listener, Act::Answer, Arc::new(|_, _| true));
    for _ in 0..8 {
        assert_eq!(call(&mesh, "http://svc.default/").await, Ok(200));
    }
    assert!(own.requests() >= 4, "{} of 8", own.requests());
    // The manifests change meanwhile, and what is signed up stays.
    folder.service("svc", &[near.address], "");
    let mut changes = mesh.status().changes();
    tokio::time::timeout(PATIENCE, changes.changed()).await.expect("in time").unwrap();
    let before = own.requests();
    for _ in 0..8 {
        assert_eq!(call(&mesh, "http://svc.default/").await, Ok(200));
    }
    assert!(own.requests() - before >= 4);
    // A mesh that ends waits for nobody who forgot to sign off.
    tokio::time::timeout(PATIENCE / 10, mesh.run(async {})).await.expect("in time");
    drop(signed_up);
}

#[tokio::test]
async fn names_that_are_none() {
    let mesh = Mesh::builder().open().await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    for name in ["", "svc", "svc.default:0", "svc.default:http", "Svc.default", "a/b.default", ".x"]
    {
        let error = mesh.serve(name, &listener).await.unwrap_err();
        assert!(matches!(&error, ServeError::Name(wrong) if wrong == name), "{name}: {error}");
    }
}
