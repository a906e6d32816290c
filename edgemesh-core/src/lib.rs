//! EdgeMesh as a library: applications call services by name, on one machine or across many.
//!
//! A connection is sniffed ([`sniff`]), its Service resolved and a Backend chosen
//! ([`plan::plan`]), and its bytes or requests forwarded. Everything the decision reads comes
//! from one immutable [`snapshot::Snapshot`]; nothing here needs root, Kubernetes or a global.
//!
//! The modules form layers, lowest first; `tests/tidy.rs` enforces who may use whom.

pub mod breaker;
pub mod config;
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
pub mod listen;
pub mod manifests;
pub mod store;

pub mod health;

pub mod registrations;
pub mod sync;

pub mod dns;
pub mod forward;

pub mod proxy;

pub mod mesh;
