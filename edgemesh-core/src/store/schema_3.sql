-- Version 3. What Rules count: while they wait for an Endpoint, and for whom.

-- Rules that wait for an Endpoint have no row in `rule`.

CREATE TABLE waiting_count (
    id               TEXT NOT NULL PRIMARY KEY CHECK (length(id) <= 36),   -- of the Rule
    success_messages INTEGER NOT NULL,   -- as in `rule`
    fail_messages    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Exactly one row: under which name the cloud is told the counts. A store whose counts went back has
-- another, since the cloud keeps the highest of each.
CREATE TABLE counter (id BLOB NOT NULL CHECK (length(id) = 16)) STRICT;
INSERT INTO counter VALUES (randomblob(16));
