//! The protobuf forms as prost generates them from `proto/edgemesh/v1`; `tests/drift.rs` keeps them true.

#![allow(missing_docs, reason = "prost copies comments, and enum helpers have none")]
#![allow(unreachable_pub, clippy::all, clippy::use_self, reason = "generated, never edited")]

include!("gen/edgemesh.v1.rs");
