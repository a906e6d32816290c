-- Version 1. `record` is the synced truth for all kinds; `endpoint` and `rule` are projected
-- from it in the same transaction. Their column names are fixed (design.md, "Metastore").

CREATE TABLE record (
    kind      TEXT NOT NULL,
    namespace TEXT NOT NULL,             -- empty for kinds that have none
    name      TEXT NOT NULL,
    revision  INTEGER NOT NULL,          -- of the change that wrote this body; u64, bit for bit
    body      BLOB NOT NULL,             -- protobuf
    PRIMARY KEY (kind, namespace, name)
) STRICT, WITHOUT ROWID;

-- Exactly one row.
CREATE TABLE sync_state (
    epoch    BLOB NOT NULL CHECK (length(epoch) = 16),
    revision INTEGER NOT NULL,           -- u64, bit for bit
    digest   BLOB NOT NULL CHECK (length(digest) = 32)
) STRICT;
INSERT INTO sync_state VALUES (zeroblob(16), 0, zeroblob(32));

CREATE TABLE virtual_address (
    namespace TEXT NOT NULL,
    name      TEXT NOT NULL,
    hostname  TEXT NOT NULL,             -- empty: the Service itself
    address   TEXT NOT NULL PRIMARY KEY  -- an address belongs to one name
) STRICT, WITHOUT ROWID;

CREATE TABLE endpoint (
    id         TEXT NOT NULL PRIMARY KEY CHECK (length(id) <= 36),
    type       TEXT NOT NULL CHECK (length(type) <= 64),
    name       TEXT NOT NULL CHECK (length(name) <= 64),
    project_id TEXT CHECK (length(project_id) <= 36),
    is_shared  INTEGER NOT NULL DEFAULT 0 CHECK (is_shared IN (0, 1)),
    properties TEXT NOT NULL CHECK (length(properties) <= 10240),
    created_at INTEGER NOT NULL,         -- milliseconds since 1970
    updated_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX endpoint_project ON endpoint (project_id);

-- The references are checked at commit: one change may bring a rule and its endpoints.
CREATE TABLE rule (
    id               TEXT NOT NULL PRIMARY KEY CHECK (length(id) <= 36),
    name             TEXT NOT NULL CHECK (length(name) <= 64),
    project_id       TEXT CHECK (length(project_id) <= 36),
    domain_id        TEXT CHECK (length(domain_id) <= 36),
    source           TEXT NOT NULL REFERENCES endpoint (id) DEFERRABLE INITIALLY DEFERRED,
    source_resource  TEXT NOT NULL CHECK (length(source_resource) <= 1024),
    target           TEXT NOT NULL REFERENCES endpoint (id) DEFERRABLE INITIALLY DEFERRED,
    target_resource  TEXT NOT NULL CHECK (length(target_resource) <= 1024),
    in_use           INTEGER NOT NULL DEFAULT 1 CHECK (in_use IN (0, 1)),
    is_deleted       INTEGER NOT NULL DEFAULT 0 CHECK (is_deleted IN (0, 1)),
    created_at       INTEGER NOT NULL,
    updated_at       INTEGER NOT NULL,
    success_messages INTEGER NOT NULL DEFAULT 0,   -- u64, bit for bit; of this node only
    fail_messages    INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
CREATE INDEX rule_project ON rule (project_id);
CREATE INDEX rule_domain ON rule (domain_id);
CREATE INDEX rule_source ON rule (source);
CREATE INDEX rule_target ON rule (target);

CREATE TABLE rule_error (
    rule_id TEXT NOT NULL REFERENCES rule (id) ON DELETE CASCADE,
    at      INTEGER NOT NULL,            -- milliseconds since 1970
    detail  TEXT NOT NULL CHECK (length(detail) <= 1024)
) STRICT;
CREATE INDEX rule_error_rule ON rule_error (rule_id);

-- The newest 32 errors of each rule stay.
CREATE TRIGGER rule_error_bound AFTER INSERT ON rule_error BEGIN
    DELETE FROM rule_error WHERE rule_id = NEW.rule_id AND rowid NOT IN (
        SELECT rowid FROM rule_error WHERE rule_id = NEW.rule_id ORDER BY rowid DESC LIMIT 32);
END;
