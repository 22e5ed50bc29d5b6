-- Access tokens: who may use the control plane over HTTPS, by a token whose secret's hash is here.
CREATE TABLE access_tokens (
    name          TEXT PRIMARY KEY CHECK (length(name) BETWEEN 1 AND 64 AND name NOT GLOB '*[^a-z0-9-]*'),
    kid           BLOB NOT NULL UNIQUE CHECK (length(kid) = 8),
    secret_sha256 BLOB NOT NULL CHECK (length(secret_sha256) = 32),
    role          TEXT NOT NULL CHECK (length(role) <= 64),
    host          TEXT CHECK (length(host) <= 64),
    added_by      TEXT NOT NULL CHECK (length(added_by) <= 128),
    added_ms      INTEGER NOT NULL,
    expires_ms    INTEGER NOT NULL
) STRICT;

-- Who added a dispatcher, where it was not a user of the broker's machine: then added_by_uid is -1.
ALTER TABLE dispatchers ADD COLUMN added_by TEXT CHECK (length(added_by) <= 128);
