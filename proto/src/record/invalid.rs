//! What is wrong with bytes or values from outside, and in which field.

use thiserror::Error;

/// A value that does not fit, with the path of the field it stands in (`ports[1].port`).
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{field}: {reason}")]
pub struct Invalid {
    /// Path of the field as the form at hand names it, outermost first.
    pub field: String,
    /// What is wrong, and what would be right.
    pub reason: String,
}

impl Invalid {
    /// A fault in `field`.
    pub fn new(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { field: field.into(), reason: reason.into() }
    }

    /// The same fault, seen from one level further out.
    pub(crate) fn under(mut self, outer: &str) -> Self {
        let joint = if self.field.starts_with('[') || self.field.is_empty() { "" } else { "." };
        self.field = format!("{outer}{joint}{}", self.field);
        self
    }

    /// The same fault in the `index`-th entry of a list.
    pub(crate) fn at(self, index: usize) -> Self {
        self.under(&format!("[{index}]"))
    }
}
