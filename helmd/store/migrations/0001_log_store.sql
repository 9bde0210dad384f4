-- The log store. Column names of log_entries, service_status and service_metrics are part of the contract with other programs.
-- :"helm_role" stands for the role that Helm's daemons work as; this file is applied as the role that owns the tables.

CREATE TABLE log_entries (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    timestamp    timestamptz NOT NULL,
    service_name text NOT NULL,
    level        text NOT NULL CHECK (level IN ('DEBUG', 'INFO', 'WARNING', 'ERROR', 'CRITICAL')),
    message      text NOT NULL,
    context      jsonb,
    trace_id     text,
    user_id      text,
    hostname     text,
    process_id   integer,
    source       text NOT NULL,
    unit         text,
    stream       text,
    boot_id      text
);

CREATE INDEX log_entries_service_time ON log_entries (service_name, timestamp DESC, id DESC);
CREATE INDEX log_entries_time ON log_entries (timestamp DESC, id DESC);

CREATE FUNCTION log_entries_are_final() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'log entries are final: % refused', TG_OP USING ERRCODE = 'insufficient_privilege';
END
$$;

CREATE TRIGGER log_entries_are_final BEFORE UPDATE OR DELETE OR TRUNCATE ON log_entries
    FOR EACH STATEMENT EXECUTE FUNCTION log_entries_are_final();

CREATE TABLE service_status (
    service_name   text PRIMARY KEY,
    status         text NOT NULL,
    pid            integer,
    port           integer,
    started_at     timestamptz,
    last_checked   timestamptz NOT NULL,
    health_status  text CHECK (health_status IN ('healthy', 'unhealthy', 'degraded')),
    health_message text,
    cpu_percent    double precision,
    memory_mb      double precision
);

CREATE TABLE service_metrics (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    service_name text NOT NULL,
    timestamp    timestamptz NOT NULL,
    metric_name  text NOT NULL,
    metric_value double precision NOT NULL,
    tags         jsonb
);

CREATE INDEX service_metrics_service_time ON service_metrics (service_name, metric_name, timestamp DESC);

-- How far the journal of a machine's account was read: one row for each boot of it, since sequence numbers and wall clocks
-- of different boots can't be compared. The row changes in the transaction that inserts the entries before it.
CREATE TABLE journal_cursor (
    machine_id text NOT NULL,
    uid        bigint NOT NULL,
    boot_id    text NOT NULL,
    cursor     text NOT NULL,
    realtime   bigint NOT NULL,
    monotonic  bigint NOT NULL,
    ties       integer NOT NULL,
    finished   boolean NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (machine_id, uid, boot_id)
);

COMMENT ON COLUMN journal_cursor.realtime IS 'microseconds since 1970 of the last entry read';
COMMENT ON COLUMN journal_cursor.monotonic IS 'microseconds since the boot of the last entry read';
COMMENT ON COLUMN journal_cursor.ties IS 'entries read that have exactly this monotonic time';

GRANT USAGE ON SCHEMA public TO :"helm_role";
GRANT SELECT, INSERT ON log_entries TO :"helm_role";
GRANT SELECT, INSERT, UPDATE, DELETE ON service_status TO :"helm_role";
GRANT SELECT, INSERT ON service_metrics TO :"helm_role";
GRANT SELECT, INSERT, UPDATE ON journal_cursor TO :"helm_role";
GRANT SELECT ON schema_migrations TO :"helm_role";
