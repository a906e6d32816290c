-- Version 2. What this node adds to records that come from a registry: what was signed up here, and
-- its own folder. Not part of the digest.

CREATE TABLE local_record (
    kind      TEXT NOT NULL,
    namespace TEXT NOT NULL,
    name      TEXT NOT NULL,
    body      BLOB NOT NULL,             -- protobuf
    PRIMARY KEY (kind, namespace, name)
) STRICT, WITHOUT ROWID;
