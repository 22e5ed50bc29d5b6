-- What each host, as witness of the audit trail, cosigned last; and what it showed that the trail does not go on from.
CREATE TABLE witnesses (
    host        TEXT PRIMARY KEY REFERENCES hosts (name),
    size        INTEGER,
    note        TEXT CHECK (length(note) <= 1024),
    cosigned_ms INTEGER,
    conflict    TEXT CHECK (length(conflict) <= 1024)
) STRICT;
CREATE INDEX witnesses_newest ON witnesses (cosigned_ms) WHERE note IS NOT NULL;
