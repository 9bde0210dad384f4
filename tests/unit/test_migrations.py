"""Released migrations never change: a store remembers what it has applied by its digest."""

import pytest

from helmd.model.errors import StoreError
from helmd.store.maintenance.migrate import migrations, next_step

RELEASED = {
    "0001_log_store": "2ef77e0823543eb781c77849d198be36fdcc7df5232eac5576f148abe570a0e4",
    "0002_partitions": "9b708d55f57205eac6d4bda1a92234fe3fdc833ecc6b6300c2e8ab8db39b5c38",
}
"""Digests of the migrations in released packages. A released migration is added here, and changed by a new one."""


def test_a_schema_of_before_a_release_is_brought_up_to_date() -> None:
    steps = migrations()
    done = [(step.number, step.name, step.sha256) for step in steps]
    earlier = "c0016561ecc600d6985927b6af2c079fa6b76a678e0a49844b0cda3d68dfa318"
    assert next_step(steps, [*done[:5], (6, done[5][1], earlier)]) == steps[6]
    with pytest.raises(StoreError, match="in another form"):
        next_step(steps, [*done[:5], (6, done[5][1], "0" * 64)])


def test_released_migrations_are_as_they_were_released() -> None:
    known = {str(step): step.sha256 for step in migrations()}
    assert {name: known.get(name) for name in RELEASED} == RELEASED
