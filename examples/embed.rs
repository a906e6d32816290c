//! A mesh inside an application: opened from manifests, serving a Service, calling it by name.
//!
//! `cargo run -p edgemesh-examples --bin embed`: no agent, no root, no Kubernetes.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::body::to_bytes;
use axum::routing::get;
use bytes::Bytes;
use edgemesh_core::mesh::{Http, Mesh};
use futures_util::StreamExt as _;
use http::Request;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// Longest greeting, in bytes.
const MAX_GREETING: usize = 1024;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mesh =
        Mesh::builder().manifests(concat!(env!("CARGO_MANIFEST_DIR"), "/embed")).open().await?;

    // Serve: an ordinary listener, signed up under a name for as long as `signed_up` lives.
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let signed_up = mesh.serve("greeting.default", &listener).await?;
    let (stop, stopped) = oneshot::channel::<()>();
    let app = Router::new().route("/{name}", get(greet));
    let server = axum::serve(listener, app).with_graceful_shutdown(async {
        let _ = stopped.await;
    });

    let calls = async {
        // Call: one request, by a name that no resolver knows.
        println!("{}", call(&mesh.http(), "http://greeting.default/one").await?);

        // Call many, at most two at once; the answers come in order. The TrafficPolicy beside this
        // file lets three calls through, so that the last two are refused, each with its reason.
        let names = ["two", "three", "four", "five"];
        let requests = names.map(|name| {
            let uri = format!("http://greeting.default/{name}");
            Request::get(uri).body(Bytes::new()).expect("the names above fit a path")
        });
        let mut answers = mesh.http().map_ordered(requests, 2);
        while let Some(answer) = answers.next().await {
            match answer {
                Ok(answer) => println!("{}", String::from_utf8_lossy(answer.body())),
                Err(error) => println!("{error}"),
            }
        }

        // Connect: bytes both ways, for whatever is not HTTP; here to nobody.
        let refused = mesh.connect("nobody.default:6379").await;
        println!("{}", refused.err().context("there is no such Service")?);

        drop(signed_up);
        let _ = stop.send(());
        anyhow::Ok(())
    };
    let (served, called) = tokio::join!(server, calls);
    served?;
    called?;

    // Wait for whatever ends the application; here, nothing more is to be done.
    mesh.run(tokio::time::sleep(Duration::from_millis(1))).await;
    Ok(())
}

async fn greet(axum::extract::Path(name): axum::extract::Path<String>) -> String {
    format!("hello, {name}")
}

/// `http` is a `tower::Service`, for any body and below any layer.
async fn call(http: &Http, uri: &str) -> anyhow::Result<String> {
    use tower_service::Service as _;
    let request = Request::get(uri).body(String::new())?;
    let answer = http.clone().call(request).await?;
    let body = to_bytes(axum::body::Body::new(answer.into_body()), MAX_GREETING).await?;
    Ok(String::from_utf8(body.into())?)
}
