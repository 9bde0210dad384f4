-- Expiry depends on the running time of upkeep and on the order of arrival as well as on the clock, which may be wrong.

-- Seconds for which upkeep has run, by the monotonic clock.
CREATE TABLE store_upkeep (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    seconds   bigint NOT NULL
);
INSERT INTO store_upkeep (seconds) VALUES (0);

CREATE FUNCTION upkeep_seconds() RETURNS bigint LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT seconds FROM store_upkeep
$$;

ALTER TABLE log_partitions ADD COLUMN begun bigint, ADD COLUMN expired_at bigint;
COMMENT ON COLUMN log_partitions.begun IS 'the highest id of an entry when the partition was made: its entries have higher ones';
COMMENT ON COLUMN log_partitions.expired_at IS 'upkeep_seconds() when it was first seen to be expired; null when it is not';
DO $$
DECLARE
    partition record;
    lowest bigint;
BEGIN
    FOR partition IN SELECT leaf FROM log_partitions LOOP
        EXECUTE format('SELECT min(id) - 1 FROM %I', partition.leaf) INTO lowest;
        UPDATE log_partitions SET begun = coalesce(lowest, (SELECT last_value FROM log_entry_ids)) WHERE leaf = partition.leaf;
    END LOOP;
END
$$;
ALTER TABLE log_partitions ALTER COLUMN begun SET NOT NULL;

CREATE OR REPLACE FUNCTION make_log_partition(class smallint, asked date) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    parent text := format('log_entries_%s', class);
    made   text := format('log_entries_%s_%s', class, to_char(asked, 'YYYYMMDD'));
    granted record;
BEGIN
    IF class NOT IN (7, 30, 90, 365) OR NOT asked BETWEEN '1970-01-01' AND '9999-12-30' THEN
        RAISE EXCEPTION 'there is no retention class %, or no day %', class, asked;
    END IF;
    IF EXISTS (SELECT FROM log_partitions WHERE leaf = made) THEN
        RETURN false;
    END IF;
    PERFORM pg_advisory_xact_lock(1212501069, 3);
    -- Not by to_regclass: waiting for this lock does not invalidate the session's cache, although the table may exist now.
    IF EXISTS (SELECT FROM log_partitions WHERE leaf = made) THEN
        RETURN false;
    END IF;
    -- Made apart and attached, so that those who read and write the others need not wait.
    EXECUTE format('CREATE TABLE %I (LIKE log_entries INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', made);
    -- No search is planned by what messages hold; estimating that from samples takes longer than looking it up.
    EXECUTE format('ALTER TABLE %I ALTER message SET STATISTICS 0, ALTER context SET STATISTICS 0', made);
    EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', parent, made,
                   asked::timestamp AT TIME ZONE 'UTC', (asked + 1)::timestamp AT TIME ZONE 'UTC');
    EXECUTE format('CREATE TRIGGER log_entries_are_final BEFORE UPDATE OR DELETE OR TRUNCATE ON %I'
                   ' FOR EACH STATEMENT EXECUTE FUNCTION log_entries_are_final()', made);
    -- Readers name a day's partition itself, so what was granted on the whole holds for it.
    FOR granted IN SELECT grantee::regrole AS reader, privilege_type AS right_to FROM pg_class, aclexplode(relacl)
                   WHERE pg_class.oid = 'log_entries'::regclass AND grantee NOT IN (0, relowner)
                     AND privilege_type IN ('SELECT', 'INSERT') LOOP
        EXECUTE format('GRANT %s ON %I TO %s', granted.right_to, made, granted.reader);
    END LOOP;
    INSERT INTO log_partitions (leaf, retention, day, begun)
        VALUES (made, class, asked, (SELECT last_value FROM log_entry_ids));
    RETURN true;
END
$$;

ALTER TABLE ingest_requests ADD COLUMN received_up bigint NOT NULL DEFAULT upkeep_seconds();
COMMENT ON COLUMN ingest_requests.received_up IS 'upkeep_seconds() when the batch came';
DROP INDEX ingest_requests_received;
CREATE INDEX ingest_requests_received_up ON ingest_requests (received_up);

-- Metrics by UTC day: a day is dropped whole, which leaves no dead rows behind. What was there is taken over by upkeep.
ALTER TABLE service_metrics RENAME TO service_metrics_flat;
ALTER INDEX service_metrics_service_time RENAME TO service_metrics_flat_service_time;
CREATE SEQUENCE service_metric_ids;
SELECT setval('service_metric_ids', greatest((SELECT max(id) FROM service_metrics_flat), 1));
CREATE TABLE service_metrics (
    id           bigint NOT NULL DEFAULT nextval('service_metric_ids'),
    service_name text NOT NULL,
    timestamp    timestamptz NOT NULL,
    metric_name  text NOT NULL,
    metric_value double precision NOT NULL,
    tags         jsonb
) PARTITION BY RANGE (timestamp);
CREATE INDEX service_metrics_service_time ON service_metrics (service_name, metric_name, timestamp DESC);
CREATE TABLE metric_partitions (
    leaf       text PRIMARY KEY,
    day        date NOT NULL,
    begun      bigint NOT NULL,
    expired_at bigint
);

-- Makes a day's partition; false when it is there. Writers call it, who have no right to make tables otherwise.
CREATE FUNCTION make_metric_partition(asked date) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    made text := format('service_metrics_%s', to_char(asked, 'YYYYMMDD'));
BEGIN
    IF NOT asked BETWEEN '1970-01-01' AND '9999-12-30' THEN
        RAISE EXCEPTION 'there is no day %', asked;
    END IF;
    IF EXISTS (SELECT FROM metric_partitions WHERE leaf = made) THEN
        RETURN false;
    END IF;
    PERFORM pg_advisory_xact_lock(1212501069, 5);
    IF EXISTS (SELECT FROM metric_partitions WHERE leaf = made) THEN
        RETURN false;
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE service_metrics INCLUDING DEFAULTS)', made);
    EXECUTE format('ALTER TABLE service_metrics ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', made,
                   asked::timestamp AT TIME ZONE 'UTC', (asked + 1)::timestamp AT TIME ZONE 'UTC');
    INSERT INTO metric_partitions (leaf, day, begun) VALUES (made, asked, (SELECT last_value FROM service_metric_ids));
    RETURN true;
END
$$;

-- Tables from before that upkeep takes over in batches, and how far it is.
CREATE TABLE store_takeovers (
    source   text PRIMARY KEY,
    last_id  bigint,
    taken    bigint NOT NULL DEFAULT 0,
    finished boolean NOT NULL DEFAULT false
);
COMMENT ON COLUMN store_takeovers.last_id IS 'rows up to this id have been taken over';
INSERT INTO store_takeovers (source)
    SELECT name FROM unnest(ARRAY['service_metrics_flat', 'older_log_entries', 'older_service_status', 'older_service_metrics'])
    AS sources (name) WHERE to_regclass(name) IS NOT NULL;
-- Rows that are taken over keep their ids, so what is new has to be above them.
DO $$
DECLARE
    highest bigint;
BEGIN
    IF to_regclass('older_log_entries') IS NOT NULL THEN
        EXECUTE 'SELECT max(id) FROM older_log_entries' INTO highest;
        PERFORM setval('log_entry_ids', greatest(highest, (SELECT last_value FROM log_entry_ids)));
    END IF;
END
$$;

REVOKE ALL ON FUNCTION make_metric_partition(date), upkeep_seconds() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION make_metric_partition(date), upkeep_seconds() TO :"helm_role";
GRANT SELECT, INSERT ON service_metrics TO :"helm_role";
GRANT USAGE ON SEQUENCE service_metric_ids TO :"helm_role";
GRANT SELECT ON metric_partitions, store_upkeep, store_takeovers TO :"helm_role";
