//! The contract of EdgeMesh: Message, records, and their protobuf and JSON forms.
//!
//! No I/O, no tokio and no clock lives here; every other crate depends on this one.

pub mod beehive;
pub mod frame;
pub mod message;
pub mod pb;
pub mod record;
pub mod rule;
