"""Brings the database of a sample module to the state that its version needs, as that of a real one does."""

from __future__ import annotations

import os

import psycopg

_VERSIONS = "CREATE TABLE IF NOT EXISTS schema_version (number integer PRIMARY KEY)"
_ADD = "INSERT INTO schema_version VALUES (%s) ON CONFLICT DO NOTHING"


def migrate(number: int) -> None:
    """Record that the schema has this version."""
    with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
        connection.execute(_VERSIONS)
        connection.execute(_ADD, (number,))
    print(f"schema version {number}")
