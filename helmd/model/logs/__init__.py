"""Log entries: levels, ids, filters, deduplication, and rules for partitions and indexes."""
