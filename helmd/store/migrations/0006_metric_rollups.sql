-- Roll-ups of metrics by minute and by five minutes, with minimum, maximum, sum and count. A trigger makes them of the very
-- rows that a statement stores, in its transaction: whatever comes late, twice as fast or in no order is in them, once.

-- A metric of a service, with its tags.
CREATE TABLE metric_series (
    id           integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    service_name text COLLATE "C" NOT NULL,
    metric_name  text COLLATE "C" NOT NULL,
    tags         jsonb NOT NULL,
    last_day     date NOT NULL
);
COMMENT ON COLUMN metric_series.last_day IS 'the day, by the clock, on which it was stored last';
-- Tags can be too long for an index.
CREATE UNIQUE INDEX metric_series_name ON metric_series (service_name, metric_name, hashtextextended(tags::text, 0));

CREATE TABLE metric_minutes (
    id      bigint NOT NULL DEFAULT nextval('service_metric_ids'),
    begins  timestamptz NOT NULL,
    total   double precision NOT NULL,
    minimum double precision NOT NULL,
    maximum double precision NOT NULL,
    series  integer NOT NULL,
    samples integer NOT NULL,
    PRIMARY KEY (series, begins)
) PARTITION BY RANGE (begins);
CREATE TABLE metric_five_minutes (LIKE metric_minutes INCLUDING ALL) PARTITION BY RANGE (begins);
COMMENT ON COLUMN metric_minutes.id IS 'when it was written last, in the order of service_metrics.id';
COMMENT ON COLUMN metric_five_minutes.id IS 'when it was written last, in the order of service_metrics.id';

-- Which entries came last, whatever their dates. Partitions that are there get it from upkeep, which lets others write meanwhile.
CREATE INDEX service_metrics_id ON ONLY service_metrics (id);
-- What is stored until the trigger is there is not rolled up by it.
LOCK TABLE service_metrics IN SHARE ROW EXCLUSIVE MODE;

ALTER TABLE metric_partitions ADD COLUMN retention smallint NOT NULL DEFAULT 14;
ALTER TABLE metric_partitions ALTER COLUMN retention DROP DEFAULT;
COMMENT ON COLUMN metric_partitions.day IS 'the first day of the partition';
COMMENT ON COLUMN metric_partitions.retention IS 'days from the first day until it expires';

-- Makes one partition of PARENT, from the day ASKED on; false when it is there.
CREATE FUNCTION make_metric_partition_of(parent text, asked date, days integer, kept smallint) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    made text := format('%s_%s', parent, to_char(asked, 'YYYYMMDD'));
    options text := CASE parent WHEN 'service_metrics' THEN '' ELSE 'WITH (fillfactor = 70)' END;
BEGIN
    IF NOT asked BETWEEN '1969-12-29' AND '9999-12-20' THEN
        RAISE EXCEPTION 'there is no day %', asked;
    END IF;
    IF EXISTS (SELECT FROM metric_partitions WHERE leaf = made) THEN
        RETURN false;
    END IF;
    PERFORM pg_advisory_xact_lock(1212501069, 5);
    IF EXISTS (SELECT FROM metric_partitions WHERE leaf = made) THEN
        RETURN false;
    END IF;
    -- Made apart and attached, so that those who read and write the others need not wait.
    EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING DEFAULTS) %s', made, parent, options);
    EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', parent, made,
                   asked::timestamp AT TIME ZONE 'UTC', (asked + days)::timestamp AT TIME ZONE 'UTC');
    INSERT INTO metric_partitions (leaf, day, retention, begun)
        VALUES (made, asked, kept, (SELECT last_value FROM service_metric_ids));
    RETURN true;
END
$$;

-- Makes the partitions for a day: its measurements are kept for 14 days, its minutes for 90, its week's five minutes for 13
-- months (397 days) after the week's last day.
CREATE OR REPLACE FUNCTION make_metric_partition(asked date) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM make_metric_partition_of('metric_five_minutes', date_trunc('week', asked::timestamp)::date, 7, 403::smallint);
    PERFORM make_metric_partition_of('metric_minutes', asked, 1, 90::smallint);
    RETURN make_metric_partition_of('service_metrics', asked, 1, 14::smallint);
END
$$;

-- Whether measurements of SERVICE with these NAMES and TAGS, which are as many, may be stored: with them it has at most MOST series
-- of the last 14 days, and all services together MOST_OF_ALL. Nobody else stores any until the transaction ends.
CREATE FUNCTION admit_metric_series(service text, names text[], tagged text[], most integer, most_of_all integer)
    RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    fresh   bigint;
    its_own bigint;
    of_all  bigint;
BEGIN
    PERFORM pg_advisory_xact_lock(1212501069, 6);
    SELECT count(*) INTO fresh
    FROM (SELECT DISTINCT name, tags::jsonb AS tags FROM unnest(names, tagged) AS each (name, tags)) AS given
    WHERE NOT EXISTS (
        SELECT FROM metric_series AS known
        WHERE (known.service_name, known.metric_name) = (service, given.name)
          AND hashtextextended(known.tags::text, 0) = hashtextextended(given.tags::text, 0)
          AND known.last_day BETWEEN current_date - 14 AND current_date + 1
    );
    IF fresh = 0 THEN
        RETURN true;
    END IF;
    SELECT count(*) FILTER (WHERE service_name = service), count(*) INTO its_own, of_all FROM metric_series
    WHERE last_day BETWEEN current_date - 14 AND current_date + 1;
    RETURN its_own + fresh <= most AND of_all + fresh <= most_of_all;
END
$$;

CREATE FUNCTION roll_up_metrics() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    -- Two that write the same series and minutes in another order would wait for one another.
    PERFORM pg_advisory_xact_lock(1212501069, 6);
    INSERT INTO metric_series (service_name, metric_name, tags, last_day)
        SELECT service_name, metric_name, tags, current_date
        FROM (SELECT DISTINCT service_name, metric_name, coalesce(tags, '{}') AS tags FROM stored) AS given
        WHERE NOT EXISTS (
            SELECT FROM metric_series AS known
            WHERE (known.service_name, known.metric_name) = (given.service_name, given.metric_name)
              AND hashtextextended(known.tags::text, 0) = hashtextextended(given.tags::text, 0)
        );
    WITH given AS MATERIALIZED (
        SELECT series.id AS series, date_trunc('minute', stored.timestamp) AS begins, metric_value AS value
        FROM stored JOIN metric_series AS series
            ON (series.service_name, series.metric_name) = (stored.service_name, stored.metric_name)
            AND hashtextextended(series.tags::text, 0) = hashtextextended(coalesce(stored.tags, '{}')::text, 0)
        -- Without what is not a number, or so large that a sum could not be one.
        WHERE metric_value BETWEEN -1e300 AND 1e300
    ), seen AS (
        UPDATE metric_series SET last_day = current_date
        WHERE id IN (SELECT series FROM given) AND last_day <> current_date
    ), minutes AS (
        INSERT INTO metric_minutes AS known (series, begins, samples, total, minimum, maximum)
            SELECT series, begins, count(*), sum(value), min(value), max(value) FROM given GROUP BY 1, 2
        ON CONFLICT (series, begins) DO UPDATE SET
            id = excluded.id, samples = known.samples + excluded.samples, total = known.total + excluded.total,
            minimum = least(known.minimum, excluded.minimum), maximum = greatest(known.maximum, excluded.maximum)
    )
    INSERT INTO metric_five_minutes AS known (series, begins, samples, total, minimum, maximum)
        SELECT series, to_timestamp(floor(extract(epoch FROM begins) / 300) * 300), count(*), sum(value), min(value), max(value)
        FROM given GROUP BY 1, 2
    ON CONFLICT (series, begins) DO UPDATE SET
        id = excluded.id, samples = known.samples + excluded.samples, total = known.total + excluded.total,
        minimum = least(known.minimum, excluded.minimum), maximum = greatest(known.maximum, excluded.maximum);
    RETURN NULL;
END
$$;

-- What is stored already.
SELECT count(make_metric_partition(day)) FROM metric_partitions;
UPDATE metric_partitions AS rollup SET begun = raw.begun, begun_up = raw.begun_up
FROM (
    SELECT first, min(begun) AS begun, min(begun_up) AS begun_up FROM metric_partitions,
        LATERAL (VALUES (day, 90), (date_trunc('week', day::timestamp)::date, 403)) AS rolled (first, kept)
    WHERE retention = 14 GROUP BY first
) AS raw
WHERE rollup.retention <> 14 AND rollup.day = raw.first;
-- Rolling that up takes a minute for five million rows, so upkeep does it in batches, from the newest on.
INSERT INTO store_takeovers (source, last_id)
    SELECT 'service_metrics', last_value FROM service_metric_ids WHERE EXISTS (SELECT FROM service_metrics);
COMMENT ON COLUMN store_takeovers.last_id IS 'rows up to this id have been taken over; of service_metrics, those above it';

CREATE TRIGGER roll_up_metrics AFTER INSERT ON service_metrics REFERENCING NEW TABLE AS stored
    FOR EACH STATEMENT EXECUTE FUNCTION roll_up_metrics();

REVOKE ALL ON FUNCTION make_metric_partition_of(text, date, integer, smallint),
    admit_metric_series(text, text[], text[], integer, integer), roll_up_metrics() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION admit_metric_series(text, text[], text[], integer, integer) TO :"helm_role";
GRANT SELECT ON metric_series, metric_minutes, metric_five_minutes TO :"helm_role";
