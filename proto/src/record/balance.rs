//! How the Backend of a call is chosen: the words of a Policy for it.

/// Which Backend of a pool takes the next call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum BalancePolicy {
    /// In turn.
    #[default]
    RoundRobin,
    /// By chance.
    Random,
    /// The less busy of two drawn by chance.
    LeastRequest,
    /// The quicker of two drawn by chance: latency, peaks kept, times calls in flight.
    PeakEwma,
    /// Calls with the same [`HashKey`] to the same Backend.
    ConsistentHash,
}

/// The part of a call that calls which belong together have in common.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum HashKey {
    /// The caller's address.
    #[default]
    SourceIp,
    /// A header field, lower case.
    Header(Box<str>),
    /// A cookie.
    Cookie(Box<str>),
    /// A name in the query of the URL.
    Query(Box<str>),
}

/// Which Backends come first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Locality {
    /// All are equal.
    None,
    /// This node, then this zone, then anywhere.
    #[default]
    PreferNode,
    /// This node or nobody.
    OnlyNode,
}
