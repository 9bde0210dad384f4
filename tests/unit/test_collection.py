"""The order in which the system tests are collected."""

import subprocess
import sys
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]


def test_those_that_reboot_the_sandbox_come_last() -> None:
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", "tests/system"]
    done = subprocess.run(command, cwd=TOP, capture_output=True, text=True, check=True)
    files = [line.partition("::")[0] for line in done.stdout.splitlines() if "::" in line]
    rebooting = {"tests/system/test_powercut.py", "tests/system/test_reboot.py"}
    first = next(index for index, name in enumerate(files) if name in rebooting)
    assert set(files[first:]) == rebooting
    assert first > 100
