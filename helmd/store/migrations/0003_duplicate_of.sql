-- The column is named for what it holds: the id of the entry that this one repeats.
ALTER TABLE log_entries RENAME COLUMN same_as TO duplicate_of;
ALTER INDEX log_entries_same RENAME TO log_entries_duplicate_of;
COMMENT ON COLUMN log_entries.duplicate_of IS 'the earlier entry of the same line, which was both printed and posted';
