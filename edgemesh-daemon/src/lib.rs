//! The daemon as a library: the command line, the configuration file, and what people read.

pub mod api;
pub mod cli;
pub mod client;
pub mod config;
pub mod log;
pub mod read;
pub mod say;
pub mod show;
