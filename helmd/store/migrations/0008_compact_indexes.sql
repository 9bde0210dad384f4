-- Indexes of closed days are rebuilt without free space.

ALTER TABLE log_partitions ADD COLUMN compact boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN log_partitions.compact IS 'its indexes were rebuilt without free space, or need not be';
-- Those of days that are over already would all be rebuilt at once.
UPDATE log_partitions SET compact = sealed;
