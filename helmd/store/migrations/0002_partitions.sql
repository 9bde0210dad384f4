-- log_entries by retention class and UTC day. A day is dropped whole; nothing else ever leaves the table.

-- Trusted since PostgreSQL 13: who owns the database may make it. Without it text is searched without an index.
DO $$
BEGIN
    CREATE EXTENSION IF NOT EXISTS pg_trgm;
EXCEPTION WHEN insufficient_privilege OR undefined_file OR feature_not_supported THEN
    RAISE NOTICE 'pg_trgm can''t be had; text is searched without an index';
END
$$;

ALTER TABLE log_entries RENAME TO log_entries_flat;
ALTER TABLE log_entries_flat RENAME CONSTRAINT log_entries_level_check TO log_entries_flat_level_check;
ALTER INDEX log_entries_service_time RENAME TO log_entries_flat_service_time;
ALTER INDEX log_entries_time RENAME TO log_entries_flat_time;
DROP TRIGGER log_entries_are_final ON log_entries_flat;

CREATE SEQUENCE log_entry_ids;

-- COLLATE "C": names and ids are compared as bytes, which an index does a quarter faster than by a locale's rules.
CREATE TABLE log_entries (
    id           bigint NOT NULL DEFAULT nextval('log_entry_ids'),
    timestamp    timestamptz NOT NULL,
    same_as      bigint,
    process_id   integer,
    retention    smallint NOT NULL DEFAULT 90,
    service_name text COLLATE "C" NOT NULL,
    level        text COLLATE "C" NOT NULL
                 CONSTRAINT log_entries_level_check CHECK (level IN ('DEBUG', 'INFO', 'WARNING', 'ERROR', 'CRITICAL')),
    message      text NOT NULL,
    context      jsonb,
    trace_id     text COLLATE "C",
    user_id      text COLLATE "C",
    hostname     text COLLATE "C",
    source       text COLLATE "C" NOT NULL,
    unit         text COLLATE "C",
    stream       text COLLATE "C",
    boot_id      text COLLATE "C"
) PARTITION BY LIST (retention);

COMMENT ON COLUMN log_entries.retention IS 'days for which the entry is kept: its partition''s class';
COMMENT ON COLUMN log_entries.same_as IS 'the earlier entry that is this very line, printed and posted';

CREATE INDEX log_entries_id ON log_entries (id);
CREATE INDEX log_entries_time ON log_entries (timestamp, id);
CREATE INDEX log_entries_service_time ON log_entries (service_name, timestamp, id);
-- The common level has no index of its own: a walk by time finds it at once.
CREATE INDEX log_entries_level_time ON log_entries (level, timestamp, id)
    WHERE level IN ('WARNING', 'ERROR', 'CRITICAL');
CREATE INDEX log_entries_service_level_time ON log_entries (service_name, level, timestamp, id) WHERE level <> 'INFO';
CREATE INDEX log_entries_user_time ON log_entries (user_id, timestamp, id) WHERE user_id IS NOT NULL;
-- Trace ids come in no order, which costs a B-tree dear while rows arrive; this costs next to nothing. Upkeep has it
-- take in what is new, and gives days that are over a B-tree (helmd/store/sealing.py).
CREATE INDEX log_entries_trace ON log_entries USING brin (trace_id text_bloom_ops)
    WITH (pages_per_range = 32);
-- To tell lines that a service printed from the same ones posted.
CREATE INDEX log_entries_posted ON log_entries (timestamp) WHERE source = 'http';
CREATE INDEX log_entries_same ON log_entries (same_as) WHERE same_as IS NOT NULL;

CREATE TABLE log_entries_7   PARTITION OF log_entries FOR VALUES IN (7)   PARTITION BY RANGE (timestamp);
CREATE TABLE log_entries_30  PARTITION OF log_entries FOR VALUES IN (30)  PARTITION BY RANGE (timestamp);
CREATE TABLE log_entries_90  PARTITION OF log_entries FOR VALUES IN (90)  PARTITION BY RANGE (timestamp);
CREATE TABLE log_entries_365 PARTITION OF log_entries FOR VALUES IN (365) PARTITION BY RANGE (timestamp);

GRANT SELECT, INSERT ON log_entries TO :"helm_role";

-- What there is, for those who read day by day: planning a query over hundreds of partitions takes longer than the query.
CREATE TABLE log_partitions (
    leaf        text PRIMARY KEY,
    retention   smallint NOT NULL,
    day         date NOT NULL,
    -- While it is not sealed: ids from one of these to before the next have a text index of their own, from the last one
    -- on there is none yet.
    text_bounds bigint[] NOT NULL DEFAULT '{0}',
    -- It is over and has indexes over all of its entries.
    sealed      boolean NOT NULL DEFAULT false
);

-- One for each table that a statement may name: such triggers see nothing of what is addressed to another level.
CREATE TRIGGER log_entries_are_final BEFORE UPDATE OR DELETE OR TRUNCATE ON log_entries
    FOR EACH STATEMENT EXECUTE FUNCTION log_entries_are_final();
CREATE TRIGGER log_entries_are_final BEFORE UPDATE OR DELETE OR TRUNCATE ON log_entries_7
    FOR EACH STATEMENT EXECUTE FUNCTION log_entries_are_final();
CREATE TRIGGER log_entries_are_final BEFORE UPDATE OR DELETE OR TRUNCATE ON log_entries_30
    FOR EACH STATEMENT EXECUTE FUNCTION log_entries_are_final();
CREATE TRIGGER log_entries_are_final BEFORE UPDATE OR DELETE OR TRUNCATE ON log_entries_90
    FOR EACH STATEMENT EXECUTE FUNCTION log_entries_are_final();
CREATE TRIGGER log_entries_are_final BEFORE UPDATE OR DELETE OR TRUNCATE ON log_entries_365
    FOR EACH STATEMENT EXECUTE FUNCTION log_entries_are_final();

-- Makes a day's partition; false when it is there. Writers call it, who have no right to make tables otherwise.
CREATE FUNCTION make_log_partition(class smallint, asked date) RETURNS boolean
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
    -- Not by to_regclass: waiting for this lock does not tell the session's cache that the table came about meanwhile.
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
    INSERT INTO log_partitions (leaf, retention, day) VALUES (made, class, asked);
    RETURN true;
END
$$;

-- Reserves COUNT ids that follow one another; the last one is returned. Its caller holds the writers' lock.
CREATE FUNCTION reserve_log_ids(count bigint) RETURNS bigint
    LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT setval('log_entry_ids', nextval('log_entry_ids') + greatest(count, 1) - 1)
$$;

-- How many entries there are a minute and an hour, kept as they arrive, so that nobody has to count them.
CREATE TABLE log_counts_minute (
    slot         timestamptz NOT NULL,
    retention    smallint NOT NULL,
    service_name text COLLATE "C" NOT NULL,
    level        text COLLATE "C" NOT NULL,
    entries      bigint NOT NULL,
    PRIMARY KEY (slot, service_name, level, retention)
) WITH (fillfactor = 70);
CREATE TABLE log_counts_hour (LIKE log_counts_minute INCLUDING ALL) WITH (fillfactor = 70);

-- Batches that were posted: what a repeat of one is answered, and that none is stored twice, whichever way it came.
CREATE TABLE ingest_requests (
    request      uuid PRIMARY KEY,
    service_name text NOT NULL,
    key          text,
    entries      integer NOT NULL,
    stored       integer NOT NULL,
    received_at  timestamptz NOT NULL DEFAULT now()
);
COMMENT ON COLUMN ingest_requests.stored IS 'how many of its entries, from the first on, are in the store';
CREATE UNIQUE INDEX ingest_requests_key ON ingest_requests (service_name, key) WHERE key IS NOT NULL;
CREATE INDEX ingest_requests_received ON ingest_requests (received_at);

-- Entries still being joined (a traceback), kept with the position behind them.
ALTER TABLE journal_cursor ADD COLUMN pending jsonb;
COMMENT ON COLUMN journal_cursor.pending IS 'entries that were begun before the cursor and may go on behind it';

-- What was stored before there were partitions.
SELECT count(make_log_partition(90::smallint, day)) FROM (
    SELECT DISTINCT (timestamp AT TIME ZONE 'UTC')::date AS day FROM log_entries_flat
) AS days;
INSERT INTO log_entries (id, timestamp, service_name, level, message, context, trace_id, user_id, hostname, process_id,
                         source, unit, stream, boot_id)
    SELECT id, timestamp, service_name, level, message, context, trace_id, user_id, hostname, process_id, source, unit,
           stream, boot_id
    FROM log_entries_flat ORDER BY id;
INSERT INTO log_counts_minute
    SELECT date_trunc('minute', timestamp), 90, service_name, level, count(*) FROM log_entries GROUP BY 1, 3, 4;
INSERT INTO log_counts_hour
    SELECT date_trunc('hour', slot), retention, service_name, level, sum(entries) FROM log_counts_minute
    GROUP BY 1, 2, 3, 4;
SELECT setval('log_entry_ids', greatest((SELECT max(id) FROM log_entries), 1));
DROP TABLE log_entries_flat;

REVOKE ALL ON FUNCTION make_log_partition(smallint, date), reserve_log_ids(bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION make_log_partition(smallint, date), reserve_log_ids(bigint) TO :"helm_role";
GRANT SELECT ON log_partitions TO :"helm_role";
GRANT SELECT, INSERT, UPDATE ON log_counts_minute, log_counts_hour TO :"helm_role";
GRANT SELECT, INSERT, UPDATE (stored) ON ingest_requests TO :"helm_role";
