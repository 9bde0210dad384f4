"""The real Ledger migrates its database by a function of this module."""

from hivesuite.schema import migrate

SCHEMA = 1


def migrate_schema() -> None:
    """Bring the database to the state that this version needs."""
    migrate(SCHEMA)
