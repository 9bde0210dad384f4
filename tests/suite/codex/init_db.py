"""``init_db.py --migrate-only``: the real Codex migrates its database by this command."""

import sys

from hivesuite.schema import migrate

SCHEMA = 1

if __name__ == "__main__":
    if sys.argv[1:] != ["--migrate-only"]:
        sys.exit("usage: init_db.py --migrate-only")
    migrate(SCHEMA)
