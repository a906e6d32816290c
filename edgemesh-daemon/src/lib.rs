//! The daemon as a library: everything between the command line and `edgemesh-core`.

pub mod agent;
pub mod api;
pub mod capture;
pub mod cli;
pub mod client;
#[cfg(feature = "cloud")]
pub mod cloud;
#[cfg(not(feature = "cloud"))]
#[path = "no_cloud.rs"]
pub mod cloud;
pub mod config;
pub mod demo;
pub mod doctor;
pub mod expose;
pub mod guard;
pub(crate) mod handover;
pub mod log;
mod memory;
pub(crate) mod ports;
mod proc_net;
pub mod read;
pub mod redirect;
pub mod say;
pub mod secret_file;
pub mod serve_command;
pub mod show;
