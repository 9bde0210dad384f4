"""helmd-journal killed while it reads a damaged file: what can be read is stored once, and the rest is reported."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.store.conftest import Database
from tests.store.journals import append, lines
from tests.store.test_ingest_loop import texts
from tests.store.test_journal_damage import skipped, unfiltered
from tests.store.test_journal_reader import names

TIMES = (1, 2, 5)
LAST = names(3001, 3020)


def run(journal: Path, database: Database, point: str, times: int) -> bool:
    """helmd-journal until it is killed at a point, or has stored the last line; whether it was killed there."""
    words = (str(journal), database.store, database.owner, point, str(times))
    process = subprocess.Popen([sys.executable, "-m", "tests.store.killed_ingest", *words])
    deadline, seconds = time.monotonic() + 60, 0.1
    try:
        while process.poll() is None and time.monotonic() < deadline:
            if LAST[-1] in texts(database):
                deadline, seconds = time.monotonic() + 0.5, 0.5
            time.sleep(seconds)
        return process.poll() is not None
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("broken", [False, True])
@pytest.mark.parametrize("point", ["append", "committed", "_recover", "_walk_again"])
def test_every_line_once_whenever_it_is_killed(tmp_path: Path, database: Database, point: str, broken: bool) -> None:
    skipped(tmp_path, broken=broken)
    readable = {text for text in unfiltered(tmp_path / "a.journal") if text.startswith("1-")}
    append(tmp_path / "b.journal", lines(3001, 3020))
    assert run(tmp_path, database, "committed", 15)  # behind the first lines that are passed by
    assert sum(run(tmp_path, database, point, times) for times in TIMES) > 0
    assert not run(tmp_path, database, "never", 0)
    found = texts(database)
    assert len(set(found)) == len(found)
    assert set(found) >= {*readable, *LAST}
    missing = 3020 - len(found)
    assert (missing > 0) == broken
    counts = database.query("SELECT (context->>'at_most')::int FROM log_entries WHERE context ? 'gap'")
    assert missing <= sum(int(str(count)) for (count,) in counts) <= missing + 2
