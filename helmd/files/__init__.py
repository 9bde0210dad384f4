"""Atomic, durable and private file writes."""
