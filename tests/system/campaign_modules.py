"""A complete suite installed from git repositories by one command.

Only run by ``scripts/campaign modules``, since it takes long.
"""

import re
from collections.abc import Iterator

import pytest

from tests.system.booted import RELEASE, TOP, Sandbox, run
from tests.system.keycloak_admin import log_in, person

SUITE = ("core", "nexus", "codex", "ledger", "knowledgetree")


@pytest.fixture(scope="module")
def suite() -> Iterator[Sandbox]:
    box = Sandbox("modules")
    demo = [str(TOP / "scripts/demo"), "--modules", "--name", box.name]
    try:
        done = run([*demo, *RELEASE], timeout=900)
        box.demo_seconds, box.demo_output = done.seconds, done.text
        done.check(demo)
        yield box
    finally:
        run([str(TOP / "scripts/sandbox"), "down", "--name", box.name], timeout=120)


def test_all_is_healthy_and_runs_from_its_version(suite: Sandbox) -> None:
    print(f"installed and started in {suite.demo_seconds:.0f} s")
    shown = suite.status()
    assert {name: shown[name]["state"] for name in SUITE} == dict.fromkeys(SUITE, "healthy")
    for name in SUITE:
        unit = f"hivematrix-{name}"
        directory = suite("systemctl", "--user", "show", "-P", "WorkingDirectory", unit).out.strip()
        assert re.search(rf"/modules/{name}/versions/[0-9TZ]+-[0-9a-f]{{12}}$", directory)


def test_a_login_works(suite: Sandbox) -> None:
    with person(suite, "admins") as ada:
        assert log_in(suite, ada).location == "/codex/api/notes"


def test_the_second_time_there_is_nothing_to_do(suite: Sandbox) -> None:
    before = suite.status()
    done = suite.helmctl("setup", "--suite", "--allow-file", "--yes")
    for name in SUITE:
        assert f"{name} is installed" in done.text
    after = suite.status()
    assert {name: after[name]["pid"] for name in SUITE} == {name: before[name]["pid"] for name in SUITE}
