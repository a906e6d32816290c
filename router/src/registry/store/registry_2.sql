-- Version 2. What Rules have counted, by who counted it. Not part of the digest: nodes tell it again.

CREATE TABLE rule_count (
    namespace    TEXT NOT NULL,          -- of the Rule
    name         TEXT NOT NULL,
    node         TEXT NOT NULL,          -- who counted; `cloud` is this process
    counter      BLOB NOT NULL CHECK (length(counter) = 16),
    success      INTEGER NOT NULL,       -- the highest of that counter; u64, bit for bit
    fail         INTEGER NOT NULL,
    past_success INTEGER NOT NULL,       -- of the node's counters before it, together
    past_fail    INTEGER NOT NULL,
    last_success INTEGER NOT NULL,       -- milliseconds since 1970; 0 = not known
    PRIMARY KEY (namespace, name, node)
) STRICT, WITHOUT ROWID;
