-- What people call a host beside its name, who added it, and when it was taken out of the lists. Its row stays: a name is never used
-- for another host.
ALTER TABLE hosts ADD COLUMN label TEXT CHECK (length(label) BETWEEN 1 AND 64);
ALTER TABLE hosts ADD COLUMN added_by TEXT CHECK (length(added_by) <= 256);
ALTER TABLE hosts ADD COLUMN removed_ms INTEGER;
-- Its keys up to this generation were revoked.
ALTER TABLE hosts ADD COLUMN void_generation INTEGER NOT NULL DEFAULT 0;

-- Sandboxes that may not connect any more, whatever their host mints for them.
CREATE TABLE revoked_sandboxes (
    host       TEXT NOT NULL REFERENCES hosts (name),
    id         TEXT NOT NULL CHECK (length(id) BETWEEN 1 AND 64 AND id NOT GLOB '*[^a-z0-9-]*'),
    revoked_ms INTEGER NOT NULL,
    PRIMARY KEY (host, id)
) STRICT;
