//! Kubernetes as a source of records: what is asked of an API server, and how its answers are followed.
//!
//! [`source`] finds the server and follows each kind of object that [`asked`] names, [`objects`] makes records
//! of what is told. What is wrong is said and changes nothing: the last records stay in force. [`crds`]
//! defines the mesh's own kinds, and `statuses` writes what became of each of their objects.

pub mod asked;
pub mod crds;
mod following;
mod meta_server;
pub mod objects;
mod seen;
mod server;
pub mod source;
mod statuses;
mod words;

pub use meta_server::LOOK_EVERY;
pub use server::Access;

/// Where objects are, for Remarks: they have no file.
const PLACE: &str = "kubernetes";
