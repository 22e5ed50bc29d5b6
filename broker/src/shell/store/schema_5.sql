-- The tree over the audit trail (RFC 6962): the hash of each complete subtree of two leaves and more. Leaves are in the trail itself.
CREATE TABLE audit_node (
    level INTEGER NOT NULL CHECK (level BETWEEN 1 AND 63),
    idx   INTEGER NOT NULL,
    hash  BLOB NOT NULL CHECK (length(hash) = 32),
    PRIMARY KEY (level, idx)
) STRICT, WITHOUT ROWID;

-- What was signed of it. At a change of keys both keys signed, and the row stays for good.
CREATE TABLE audit_checkpoint (
    size       INTEGER PRIMARY KEY,
    time_ms    INTEGER NOT NULL,
    is_handing INTEGER NOT NULL,
    note       TEXT NOT NULL CHECK (length(note) <= 32768)
) STRICT;

-- Who signs it, from which size on.
CREATE TABLE audit_key (
    from_size INTEGER PRIMARY KEY,
    vkey      TEXT NOT NULL CHECK (length(vkey) <= 512)
) STRICT;

-- Values that rows commit to and do not show.
CREATE TABLE audit_opening (
    seq   INTEGER NOT NULL,
    field TEXT NOT NULL CHECK (length(field) <= 64),
    salt  BLOB NOT NULL CHECK (length(salt) = 16),
    value TEXT NOT NULL CHECK (length(value) <= 8192),
    PRIMARY KEY (seq, field)
) STRICT, WITHOUT ROWID;
