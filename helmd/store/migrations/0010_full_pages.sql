-- Counts of minutes that are over leave no free space. The updates of a minute that goes on need none reserved: each reuses
-- the space of the one before.

ALTER TABLE log_counts_minute RESET (fillfactor);
