//! The ingress as clients in the cloud use it: real sockets on ports of the kernel's choice, Backends
//! on loopback.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod backend;
mod bytes;
mod client;
mod envoy;
mod envoy_config;
mod forms;
mod precedence;
mod refusals;
mod secured;
mod world;
