"""The fixtures of tests/conftest.py that find what a test leaves behind, tried on tests that leave something."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]

PROCESS = """
import atexit
import subprocess

def test_it():
    left = subprocess.Popen(["sleep", "600"])
    atexit.register(left.kill)
"""
TASK = """
import asyncio

tasks = []

async def test_it():
    tasks.append(asyncio.ensure_future(asyncio.sleep(3600)))
"""
NOTHING = """
import asyncio
import subprocess

def test_process():
    subprocess.run(["true"], check=True)

async def test_task():
    await asyncio.ensure_future(asyncio.sleep(0))
"""


@pytest.mark.parametrize(
    ("text", "found"),
    [(PROCESS, "left running: ['"), (TASK, "tasks left on the event loop: {"), (NOTHING, "")],
    ids=["process", "task", "nothing"],
)
def test_what_is_left_behind_fails_the_test(tmp_path: Path, text: str, found: str) -> None:
    (tmp_path / "conftest.py").write_text((TOP / "tests/conftest.py").read_text())
    (tmp_path / "test_left.py").write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--asyncio-mode=auto", str(tmp_path)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(TOP), "PYTEST_ADDOPTS": "", "HIVEMATRIX_TEST_RERUNS": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode != 0) is bool(found), done.stdout
    assert found in done.stdout
