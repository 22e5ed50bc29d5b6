-- The lives of the journal's offsets, from one restore to the next. Offsets are never given twice: see core/incarnation.rs.
CREATE TABLE incarnations (
    number       INTEGER PRIMARY KEY,
    id           BLOB NOT NULL UNIQUE CHECK (length(id) = 16),
    first_offset INTEGER NOT NULL,
    began_ms     INTEGER NOT NULL,
    -- What it was restored from: the backup's id, its time, and the first offset that it did not hold. The first has none.
    backup_id    BLOB CHECK (length(backup_id) = 16),
    backup_ms    INTEGER,
    backup_end   INTEGER
) STRICT;
INSERT INTO incarnations (number, id, first_offset, began_ms) VALUES (1, randomblob(16), 0, 0);
