//! What carries messages to and from what is no Service, against real brokers and servers.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod broker;
mod eventbus_source;
mod eventbus_target;
mod outage;
mod recorded;
mod rest;
mod server;
mod servicebus;
mod world;
