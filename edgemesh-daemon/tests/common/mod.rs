//! What the test programs of the daemon share.

pub(crate) mod golden;
