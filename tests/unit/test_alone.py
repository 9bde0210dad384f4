"""The marker `alone` (tests/conftest.py), in a run of its own with three processes."""

import os
import subprocess
import sys
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]

TESTS = """
import time
from pathlib import Path

import pytest

NOTED = Path(__file__).parent / "noted"

def noted(name, seconds):
    begun = time.monotonic()
    time.sleep(seconds)
    with NOTED.open("a") as file:
        file.write(f"{name} {begun} {time.monotonic()}\\n")

def enough():
    # Whether several have run after those that measure.
    names = [line.split()[0] for line in NOTED.read_text().splitlines()] if NOTED.exists() else []
    return names.count("alone") == 2 and names[::-1].index("alone") > 6

@pytest.mark.parametrize("number", range(100))
@pytest.mark.xdist_group("others")
def test_others(number):
    enough() or noted("other", 0.3)

@pytest.mark.parametrize("number", range(100))
@pytest.mark.xdist_group("more")
def test_more(number):
    enough() or noted("other", 0.2 if number else 0.35)

@pytest.mark.xdist_group("measuring")
def test_before():
    noted("before", 0.4)

@pytest.mark.alone
@pytest.mark.xdist_group("measuring")
@pytest.mark.parametrize("number", range(2))
def test_measuring(number):
    noted("alone", 0.2)
"""


def test_nothing_runs_beside_it_and_it_does_not_wait_for_all_others(tmp_path: Path) -> None:
    """Though of two other processes one always runs a test."""
    (tmp_path / "conftest.py").write_text((TOP / "tests/conftest.py").read_text())
    (tmp_path / "test_it.py").write_text(TESTS)
    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "3", "--dist", "loadgroup"]
    done = subprocess.run(
        [sys.executable, *words, str(tmp_path)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(TOP), "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    found = [line.split() for line in (tmp_path / "noted").read_text().splitlines()]
    spans = [(name, float(begun), float(ended)) for name, begun, ended in found]
    others = [(begun, ended) for name, begun, ended in spans if name == "other"]
    measured = [(begun, ended) for name, begun, ended in spans if name == "alone"]
    assert len(measured) == 2
    for begun, ended in measured:
        assert not [each for each in others if each[0] < ended and each[1] > begun]
    assert len([each for each in others if each[0] > measured[-1][1]]) > 3, spans
