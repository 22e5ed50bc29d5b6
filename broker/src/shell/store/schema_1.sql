-- Times are milliseconds since 1970. Names of hosts stay for ever: a name is never used for another host.
CREATE TABLE hosts (
    name        TEXT PRIMARY KEY CHECK (length(name) BETWEEN 1 AND 64 AND name NOT GLOB '*[^a-z0-9-]*'),
    kind        TEXT NOT NULL CHECK (kind IN ('docker', 'kubernetes')),
    created_ms  INTEGER NOT NULL,
    state       TEXT NOT NULL CHECK (state IN ('new', 'enrolled', 'locked', 'revoked')),
    generation  INTEGER NOT NULL,
    public_key  BLOB CHECK (length(public_key) = 32)
) STRICT;

-- Every key a host has had. No succession: the key came with an install key, and a chain begins here.
CREATE TABLE host_keys (
    host        TEXT NOT NULL REFERENCES hosts (name),
    generation  INTEGER NOT NULL,
    public_key  BLOB NOT NULL UNIQUE CHECK (length(public_key) = 32),
    succession  BLOB CHECK (length(succession) <= 65536),
    enrolled_ms INTEGER NOT NULL,
    PRIMARY KEY (host, generation)
) STRICT;

CREATE TABLE install_keys (
    kid           BLOB PRIMARY KEY CHECK (length(kid) = 8),
    host          TEXT NOT NULL REFERENCES hosts (name),
    secret_sha256 BLOB NOT NULL CHECK (length(secret_sha256) = 32),
    state         TEXT NOT NULL CHECK (state IN ('new', 'used', 'retired')),
    expires_ms    INTEGER NOT NULL,
    bound_pk      BLOB CHECK (length(bound_pk) = 32),
    used_ms       INTEGER,
    -- When somebody else first presented it after its use.
    misused_ms    INTEGER
) STRICT;
-- At most one key of a host can be redeemed at any time.
CREATE UNIQUE INDEX install_keys_new ON install_keys (host) WHERE state = 'new';

CREATE TABLE sandboxes (
    host            TEXT NOT NULL REFERENCES hosts (name),
    id              TEXT NOT NULL CHECK (length(id) BETWEEN 1 AND 64 AND id NOT GLOB '*[^a-z0-9-]*'),
    state           TEXT NOT NULL CHECK (length(state) <= 64),
    ended           INTEGER NOT NULL CHECK (ended IN (0, 1)),
    reason          TEXT CHECK (length(reason) <= 1024),
    exit_code       INTEGER,
    created_ms      INTEGER NOT NULL,
    updated_ms      INTEGER NOT NULL,
    public_key      BLOB CHECK (length(public_key) = 32),
    launched_offset INTEGER,
    name            TEXT CHECK (length(name) <= 1024),
    image           TEXT CHECK (length(image) <= 1024),
    isolation       TEXT CHECK (length(isolation) <= 1024),
    detail          TEXT CHECK (length(detail) <= 65536),
    PRIMARY KEY (host, id)
) STRICT;
CREATE INDEX sandboxes_live ON sandboxes (created_ms) WHERE ended = 0;

CREATE TABLE commands (
    id             BLOB PRIMARY KEY CHECK (length(id) = 16),
    host           TEXT NOT NULL REFERENCES hosts (name),
    sandbox        TEXT CHECK (length(sandbox) <= 64),
    kind           TEXT NOT NULL CHECK (length(kind) <= 64),
    bytes_hash     BLOB NOT NULL CHECK (length(bytes_hash) = 32),
    offset         INTEGER NOT NULL,
    expires_ms     INTEGER NOT NULL,
    -- The journal offset of the report that settled it.
    settled_offset INTEGER
) STRICT;
CREATE INDEX commands_open ON commands (host, offset) WHERE settled_offset IS NULL;
CREATE INDEX commands_expiry ON commands (expires_ms);

CREATE TABLE dispatchers (
    public_key   BLOB PRIMARY KEY CHECK (length(public_key) = 32),
    name         TEXT NOT NULL UNIQUE CHECK (length(name) BETWEEN 1 AND 64),
    added_ms     INTEGER NOT NULL,
    added_by_uid INTEGER NOT NULL
) STRICT;

CREATE TABLE meta (
    name  TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT;
INSERT INTO meta (name, value) VALUES ('time_ms', 0);

CREATE TABLE audit (
    seq     INTEGER PRIMARY KEY,
    time_ms INTEGER NOT NULL,
    name    TEXT NOT NULL CHECK (length(name) BETWEEN 1 AND 64),
    subject TEXT NOT NULL CHECK (length(subject) <= 256),
    actor   TEXT NOT NULL CHECK (length(actor) <= 256),
    fields  TEXT NOT NULL CHECK (length(fields) <= 8192),
    prev    BLOB NOT NULL CHECK (length(prev) = 32),
    hash    BLOB NOT NULL CHECK (length(hash) = 32)
) STRICT;
-- Against our own mistakes; against anyone else there is the chain.
CREATE TRIGGER audit_no_update BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'the audit trail is only added to'); END;
CREATE TRIGGER audit_no_delete BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'the audit trail is only added to'); END;
