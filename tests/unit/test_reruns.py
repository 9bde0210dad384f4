"""The further tries of tests (tests/reruns.py), in runs of their own."""

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]

CONFTEST = """
import pytest
from tests.reruns import pytest_report_teststatus, pytest_runtest_protocol, pytest_terminal_summary

@pytest.fixture(scope="session")
def machine():
    print("machine up")
    yield
    print("machine down")
"""
TESTS = """
import pytest

pytestmark = pytest.mark.xdist_group("it")
tries = []

def fails(times, name):
    tries.append(name)
    assert tries.count(name) > times, f"{name} was late"

@pytest.fixture(scope="module")
def page(machine):
    print("page up")
    yield
    print("page down")

@pytest.fixture(scope="module")
def fresh():
    return []

@pytest.fixture(scope="module")
def late(machine):
    fails(1, "fixture")

@pytest.fixture(scope="module")
def broken():
    print("broken up")
    fails(9, "broken")

@pytest.fixture
def untidy():
    yield
    fails(1, "teardown")

def test_well(page): pass
def test_once(): fails(1, "once")
def test_twice(): fails(2, "twice")
def test_thrice(): fails(3, "thrice")
def test_stale(page, fresh):
    fresh.append(1)
    assert len(fresh) == 1 and tries.count("stale") > 1 or tries.append("stale"), "stale"
def test_teardown(untidy): print("called")
def test_late(late): pass
def test_late_too(late): pass
@pytest.mark.parametrize("number", range(3))
def test_broken(broken, number): pass
def test_last(): fails(1, "last")
"""


def ran(place: Path, *options: str, **environment: str) -> tuple[int, str]:
    (place / "conftest.py").write_text(CONFTEST)
    (place / "test_it.py").write_text(TESTS)
    words = [sys.executable, "-m", "pytest", "-s", "-p", "no:cacheprovider", "-p", "no:rerunfailures", *options]
    done = subprocess.run(
        [*words, str(place)],
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(TOP), "PYTEST_ADDOPTS": "", "PYTEST_PLUGINS": "", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize("options", [(), ("-n", "2", "--dist", "loadgroup")], ids=["alone", "xdist"])
def test_a_test_that_fails_twice_passes_and_is_named(tmp_path: Path, options: tuple[str, ...]) -> None:
    code, said = ran(tmp_path, *options)
    assert code == 1 and "1 failed, 8 passed, 3 errors" in said, said
    rerun = re.findall(r"^RERUN test_it\.py::([^\s@]+)(?:@it)? \((\w+)\)$", said, re.MULTILINE)
    assert sorted(rerun)[:2] == [("test_broken[0]", "setup"), ("test_last", "call")], said
    names = Counter(name for name, _ in rerun)
    assert {name for name, _ in rerun} >= {"test_once", "test_teardown", "test_late", "test_last"}
    assert names["test_twice"] == names["test_thrice"] == names["test_stale"] == 2, said
    assert "test_well" not in dict(rerun) and "test_late_too" not in dict(rerun)
    assert re.search(r"^    E +AssertionError: once was late", said, re.MULTILINE), "why is there"
    assert re.search(r"^FAILED test_it\.py::test_thrice", said, re.MULTILINE)


def test_fixtures_of_modules_and_of_the_session_end_as_ever(tmp_path: Path) -> None:
    """Whatever failed in between; one that can't be set up is tried twice, not once for each test. Before a third try
    those of the module are set up again, here for test_twice and test_stale.
    """
    _, said = ran(tmp_path)
    printed = Counter(re.findall(r"(?:machine|page|broken) (?:up|down)$|called$", said, re.MULTILINE))
    assert printed == {
        "machine up": 1, "machine down": 1, "page up": 3, "page down": 3, "broken up": 2, "called": 2
    }, said  # fmt: skip


def test_without_another_try(tmp_path: Path) -> None:
    code, said = ran(tmp_path, HIVEMATRIX_TEST_RERUNS="0")
    assert code == 1 and "RERUN" not in said and "5 failed, 2 passed, 6 errors" in said, said
