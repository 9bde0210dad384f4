"""Ingestion of the journal and of posted entries into the store; reading and following stored entries."""
