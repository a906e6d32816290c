//! The life of a Rule: paused, limited, changed, deleted, counted.
