"""Released migrations never change: a store remembers what it has applied by its digest."""

from helmd.store.maintenance.migrate import migrations

RELEASED = {
    "0001_log_store": "2ef77e0823543eb781c77849d198be36fdcc7df5232eac5576f148abe570a0e4",
    "0002_partitions": "9b708d55f57205eac6d4bda1a92234fe3fdc833ecc6b6300c2e8ab8db39b5c38",
}
"""Digests of the migrations in released packages. A released migration is added here, and changed by a new one."""


def test_released_migrations_are_as_they_were_released() -> None:
    known = {str(step): step.sha256 for step in migrations()}
    assert {name: known.get(name) for name in RELEASED} == RELEASED
