-- The incarnation to which a host showed, after a restore, that it had had this key in between.
ALTER TABLE host_keys ADD COLUMN caught_up INTEGER;
