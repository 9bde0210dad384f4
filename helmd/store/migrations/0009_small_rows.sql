-- Rows without what follows from other values.

-- Boots of the machine. Entries have the short id, which takes 2 bytes in place of 33; older ones have the long one itself.
CREATE SEQUENCE log_boot_ids;
CREATE TABLE log_boots (
    short_id text COLLATE "C" PRIMARY KEY DEFAULT nextval('log_boot_ids')::text,
    long_id  text COLLATE "C" NOT NULL UNIQUE
);
COMMENT ON COLUMN log_entries.boot_id IS 'log_boots.short_id, in older entries log_boots.long_id';
COMMENT ON COLUMN log_entries.unit IS 'the unit; empty for that of the service, hivematrix-NAME.service';

-- Who reads entries looks boots up.
DO $$
DECLARE
    granted record;
BEGIN
    FOR granted IN SELECT grantee::regrole AS reader FROM pg_class, aclexplode(relacl)
                   WHERE pg_class.oid = 'log_entries'::regclass AND grantee NOT IN (0, relowner)
                     AND privilege_type = 'SELECT' LOOP
        EXECUTE format('GRANT SELECT ON log_boots TO %s', granted.reader);
    END LOOP;
END
$$;

GRANT SELECT, INSERT ON log_boots TO :"helm_role";
GRANT USAGE ON SEQUENCE log_boot_ids TO :"helm_role";
