//! Kubernetes as a source of records: what is asked of an API server, and how its answers are followed.

pub mod asked;
pub mod crds;
