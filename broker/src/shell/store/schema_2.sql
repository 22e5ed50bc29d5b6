-- Readers and bench principals: who may read, by a token whose secret's hash is here.
CREATE TABLE readers (
    name          TEXT PRIMARY KEY CHECK (length(name) BETWEEN 1 AND 64 AND name NOT GLOB '*[^a-z0-9-]*'),
    kid           BLOB NOT NULL UNIQUE CHECK (length(kid) = 8),
    secret_sha256 BLOB NOT NULL CHECK (length(secret_sha256) = 32),
    -- A list of words: events, reports, metrics; or bench alone.
    may           TEXT NOT NULL CHECK (length(may) <= 64),
    host          TEXT CHECK (length(host) <= 64),
    sandbox       TEXT CHECK (length(sandbox) <= 64),
    added_ms      INTEGER NOT NULL,
    expires_ms    INTEGER NOT NULL
) STRICT;

-- Where readers that went away go on: their filters, and the first journal offset that they did not acknowledge.
CREATE TABLE reader_sessions (
    reader      TEXT NOT NULL REFERENCES readers (name) ON DELETE CASCADE,
    client_id   TEXT NOT NULL CHECK (length(client_id) BETWEEN 1 AND 128),
    filters     TEXT NOT NULL CHECK (length(filters) <= 65536),
    next_offset INTEGER,
    sent_offset INTEGER NOT NULL,
    expires_ms  INTEGER NOT NULL,
    PRIMARY KEY (reader, client_id)
) STRICT;
