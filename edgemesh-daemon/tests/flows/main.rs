//! The agent in network namespaces of its own, between real clients and real servers.
//!
//! Each test runs in a world that it makes itself, so it needs no root and disturbs nobody; what
//! belongs into one world is tested in one, since servers take longer to start than to be asked.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "../common"]
mod common {
    pub(crate) mod folder;
    pub(crate) mod namespace;
    pub(crate) mod run;
    pub(crate) mod wait;
}

mod agent;
mod backend;
mod h2peer;
mod raw;
mod servers;
mod world;

mod accounts;
mod bad;
mod balance;
mod cases;
mod doctor;
mod explain;
mod exposing;
mod guards;
mod heal;
mod hosts;
mod http;
mod http_bulk;
mod http_counts;
mod http_deadlines;
mod http_hygiene;
mod http_plain;
mod http_replay;
mod http_versions;
mod kubernetes;
mod life;
mod limits;
mod log;
mod names;
mod outside;
mod protocols;
mod readme;
mod remove;
mod renew;
mod repeats;
mod routes;
mod signup;
mod start;
mod swaps;
