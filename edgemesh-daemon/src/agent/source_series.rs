//! How an API server is followed, as series of `/metrics`: the names that agents and clouds share.

/// Name and text of the series of `/metrics`, by kind of object.
pub(crate) const OBJECTS: (&str, &str) =
    ("source_objects", "Objects of the API server that are known, by kind");
/// See [`OBJECTS`].
pub(crate) const WRONG: (&str, &str) = (
    "source_objects_wrong",
    "Objects of the API server that are wrong and count as before or not at all, by kind",
);
/// See [`OBJECTS`].
pub(crate) const FAILURES: (&str, &str) =
    ("source_failures", "How often objects of a kind could not be followed at the API server");
