-- Version 1. What every owner says; which of several counts is decided in memory.

CREATE TABLE owned (
    owner     TEXT NOT NULL,             -- manifests, cloud, or node/ and its name
    kind      TEXT NOT NULL,
    namespace TEXT NOT NULL,             -- empty for kinds that have none
    name      TEXT NOT NULL,
    body      BLOB NOT NULL,             -- protobuf
    PRIMARY KEY (owner, kind, namespace, name)
) STRICT, WITHOUT ROWID;

-- Exactly one row: the digest over all of `owned`.
CREATE TABLE state (
    digest BLOB NOT NULL CHECK (length(digest) = 32)
) STRICT;
INSERT INTO state VALUES (zeroblob(32));
