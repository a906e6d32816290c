//! The cloud side of EdgeMesh, as a library.
//!
//! What is here serves one node: the table of record [`sources`]. Registry, hub, certificate
//! authority and the Endpoint/Rule router join it when nodes are linked.

pub mod sources;
