//! EdgeMesh as a library: applications call services by name, on one machine or across many.
//!
//! ```no_run
//! use edgemesh_core::mesh::Mesh;
//! use futures_util::StreamExt;
//! use http::Request;
//! use tokio::io::AsyncWriteExt;
//! use tower_service::Service;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let mesh = Mesh::builder().manifests("/etc/edgemesh/manifests").open().await?;
//!
//! // Requests by name: a `tower::Service`, balanced, limited and retried as the Policy says.
//! let hello = Request::get("http://hello.default/").body(String::new())?;
//! println!("{}", mesh.http().call(hello).await?.status());
//!
//! // Many at once, the answers in order, also while Backends die.
//! let tiles = (0..256).map(|i| Request::get(format!("http://tiles.default/{i}")));
//! let tiles: Result<Vec<_>, _> = tiles.map(|tile| tile.body(bytes::Bytes::new())).collect();
//! let mut answers = mesh.http().map_ordered(tiles?, 16);
//! while let Some(answer) = answers.next().await {
//!     println!("{} bytes", answer?.body().len());
//! }
//!
//! // Bytes both ways.
//! mesh.connect("redis.default:6379").await?.write_all(b"PING\r\n").await?;
//!
//! // A listener of the application's own, under a name, until it is dropped.
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! let signed_up = mesh.serve("mine.default", &listener).await?;
//! # Ok(())
//! # }
//! ```
//!
//! A connection is sniffed ([`sniff`]), its Service resolved and a Backend chosen
//! ([`plan::plan`]), and its bytes or requests forwarded. Everything the decision reads comes
//! from one immutable [`snapshot::Snapshot`]; nothing here needs root, Kubernetes or a global, and
//! nothing is printed. [`mesh::Mesh`] puts it together, for the daemon and for applications.
//!
//! The modules form layers, lowest first; `tests/tidy.rs` enforces who may use whom.

pub mod breaker;
pub mod config;
pub mod digest;
pub mod hash;
pub mod identity;
pub mod io;
pub mod limit;
pub mod refusal;
pub mod sniff;

pub mod backends;
pub mod metrics;

pub mod balance;
pub mod snapshot;

pub mod plan;

pub mod dial;
pub mod lanes;
pub mod link;
pub mod listen;
pub mod manifests;
pub mod store;

pub mod health;

pub mod peers;
pub mod registrations;
pub mod sync;
pub mod tunnel;

pub mod dns;
pub mod forward;

pub mod proxy;

pub mod mesh;
