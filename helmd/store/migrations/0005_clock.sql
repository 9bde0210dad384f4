-- Days expire at most four times as fast as upkeep runs, unless the clock is synchronized.

ALTER TABLE store_upkeep ADD COLUMN clock timestamptz NOT NULL DEFAULT now();
COMMENT ON COLUMN store_upkeep.clock IS 'the time by which days expire: it follows the clock of the machine';

ALTER TABLE log_partitions ADD COLUMN begun_up bigint NOT NULL DEFAULT 0;
ALTER TABLE log_partitions ALTER COLUMN begun_up SET DEFAULT upkeep_seconds();
ALTER TABLE metric_partitions ADD COLUMN begun_up bigint NOT NULL DEFAULT 0;
ALTER TABLE metric_partitions ALTER COLUMN begun_up SET DEFAULT upkeep_seconds();
COMMENT ON COLUMN log_partitions.begun_up IS 'upkeep_seconds() when the partition was made; 0 for those made before there was this column';
