-- What retention and purges took out of the journal, written before it goes: for each rewriting of a segment what each host lost and
-- why. Of the oldest rows only the sums are kept, as of a segment 0 that was rewritten 0 times.
CREATE TABLE dropped (
    segment     INTEGER NOT NULL,
    serial      INTEGER NOT NULL,
    host        TEXT NOT NULL CHECK (length(host) <= 64),
    cause       TEXT NOT NULL CHECK (length(cause) <= 64),
    from_offset INTEGER NOT NULL,
    to_offset   INTEGER NOT NULL,
    first_ms    INTEGER NOT NULL,
    last_ms     INTEGER NOT NULL,
    records     INTEGER NOT NULL,
    bytes       INTEGER NOT NULL,
    dropped_ms  INTEGER NOT NULL,
    UNIQUE (segment, serial, host, cause)
) STRICT;
