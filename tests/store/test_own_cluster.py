"""The tests' own cluster."""

import subprocess
import sys
from pathlib import Path

from tests.waiting import until_none

START = """
from tests.store.conftest import running_cluster
with running_cluster() as cluster:
    print(cluster.directory, flush=True)
    input()
"""


def test_it_ends_with_the_tests_that_are_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", START], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        directory = Path(process.stdout.readline().decode().strip())
        server = Path("/proc", (directory / "data/postmaster.pid").read_text().split()[0])
        assert server.exists()
        process.kill()
    until_none(lambda: [path for path in (server, directory) if path.exists()])
