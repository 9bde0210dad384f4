"""The order in which the system tests are collected."""

import os
import subprocess
import sys
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
SECOND = {"tests/system/test_page_overview.py", "tests/system/test_users.py"}
"""Some of the tests in the second demo."""
REBOOTING = {"tests/system/test_powercut.py", "tests/system/test_reboot.py"}


def collected(*words: str, **environment: str) -> list[str]:
    """Return the file of each test, in order."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *words]
    others = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(command, cwd=TOP, env=others | environment, capture_output=True, text=True, check=True)
    return [line.partition("::")[0] for line in done.stdout.splitlines() if "::" in line]


def test_those_that_reboot_the_sandbox_come_last() -> None:
    files = collected("tests/system")
    first = next(index for index, name in enumerate(files) if name in REBOOTING)
    assert set(files[first:]) == REBOOTING
    assert first > 100


def test_those_with_sandboxes_of_their_own_come_after_unit_tests_where_processes_share_them() -> None:
    """Two processes take the tests in the demo at once, each half of them."""
    files = collected("tests/unit/test_clock.py", "tests/system", PYTEST_XDIST_WORKER="gw1", HIVEMATRIX_TEST_SANDBOX="")
    unit = files.index("tests/unit/test_clock.py")
    in_demo, after = files[:unit], [name for name in files[unit:] if name.startswith("tests/system/")]
    second = next(index for index, name in enumerate(in_demo) if name in SECOND)
    assert in_demo[0] == "tests/system/test_control.py" and in_demo[second - 1] == "tests/system/test_clock.py"
    assert in_demo[second] == "tests/system/test_users.py" and in_demo[-1] in REBOOTING
    assert SECOND.issubset(in_demo[second:]) and not set(in_demo[:second]) & set(in_demo[second:])
    assert set(after) >= {
        f"tests/system/test_{name}.py"
        for name in ("contributing", "machine_loss", "other_release", "package", "sandbox", "upgrade")
    }
    assert after[0] == "tests/system/test_machine_loss.py", "the longest first"
    assert not set(after) & set(in_demo)


def test_a_sandbox_that_is_given_has_all_tests_in_the_demo() -> None:
    """In one group those that measure time are the first of all files."""
    two = [f"tests/system/test_{name}.py" for name in ("accounts", "users")]
    assert collected(*two, PYTEST_XDIST_WORKER="gw1", HIVEMATRIX_TEST_SANDBOX="")[0] == two[0]
    assert collected(*two, PYTEST_XDIST_WORKER="gw1", HIVEMATRIX_TEST_SANDBOX="mine")[0] == two[1]
