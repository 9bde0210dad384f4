"""Rows of the log store: levels, ids, filters, and rules for their indexes."""
