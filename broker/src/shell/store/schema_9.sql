-- The incarnation to which a host showed, after a restore, that it had had this key in between.
ALTER TABLE host_keys ADD COLUMN caught_up INTEGER;

-- When a dispatcher's key is followed by another it ends then; the key that named it, for one that another named.
ALTER TABLE dispatchers ADD COLUMN until_ms INTEGER;
ALTER TABLE dispatchers ADD COLUMN named_by BLOB CHECK (length(named_by) = 32);

-- What dispatchers said about each other's keys, as signed, in the order in which it came: hosts get all of it at every subscription.
CREATE TABLE dispatcher_statements (
    seq       INTEGER PRIMARY KEY,
    statement BLOB NOT NULL UNIQUE CHECK (length(statement) <= 512),
    taken_ms  INTEGER NOT NULL
) STRICT;
