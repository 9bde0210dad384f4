-- Views of the log page that users saved.

CREATE TABLE log_views (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    owner      text COLLATE "C" NOT NULL,
    name       text NOT NULL,
    shared     boolean NOT NULL,
    query      text NOT NULL,
    columns    text[] NOT NULL,
    last       text NOT NULL,
    start_time timestamptz,
    end_time   timestamptz,
    changed_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (owner, name)
);
COMMENT ON COLUMN log_views.last IS 'the time span up to now that it shows, such as 1h; empty for the one from start_time to end_time';

GRANT SELECT, INSERT, UPDATE, DELETE ON log_views TO :"helm_role";
