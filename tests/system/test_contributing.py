"""What CONTRIBUTING.md says works as written: a clone, an ordinary user, a virtual environment."""

import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.booted import TOP

ACCOUNT = 65534
"""Of nobody(5): no home, no shell, no rights."""


def commands() -> list[str]:
    """The commands of the first block."""
    found = re.search(r"^```sh\n(.*?)^```", (TOP / "CONTRIBUTING.md").read_text(), re.MULTILINE | re.DOTALL)
    assert found
    return found.group(1).splitlines()


@pytest.fixture
def clone() -> Iterator[Path]:
    """A clone of this repository in an otherwise empty directory, with what is not committed yet, owned by ACCOUNT."""
    directory = Path(tempfile.mkdtemp(prefix="helm-clone-", dir="/var/tmp"))
    place = directory / "helm"
    try:
        subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", TOP, place], check=True)
        listed = ["git", "ls-files", "-z", "--modified", "--others", "--deleted", "--exclude-standard"]
        for name in subprocess.run(listed, cwd=TOP, capture_output=True, text=True, check=True).stdout.split("\0"):
            if not name:
                continue
            (place / name).unlink(missing_ok=True)
            if (TOP / name).exists():
                (place / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(TOP / name, place / name, follow_symlinks=False)
        subprocess.run(["chown", "-R", f"{ACCOUNT}:{ACCOUNT}", directory], check=True)
        yield place
    finally:
        shutil.rmtree(directory)


def test_unit_tests_as_an_ordinary_user(clone: Path) -> None:
    install, *others = commands()
    packages = subprocess.run(
        [TOP / "scripts/test", "--packages", "unit"], capture_output=True, text=True, check=True
    ).stdout.split()
    assert install == "sudo apt-get install $(scripts/test --packages unit)" and packages
    assert [line.split()[-1] for line in others] == [".venv", ".[dev]", "tests/unit"]
    # Without what scripts/test has put there for itself. What pip needs to reach its index stays.
    environment = {**os.environ, "PATH": "/usr/bin:/bin", "HOME": str(clone.parent), "XDG_CACHE_HOME": ""}
    for name in ("HIVEMATRIX_TEST_SANDBOX", "PYTEST_CURRENT_TEST", "PYTEST_XDIST_WORKER"):
        environment.pop(name, None)
    as_account = ["setpriv", f"--reuid={ACCOUNT}", f"--regid={ACCOUNT}", "--clear-groups", "--no-new-privs"]
    for line in others:
        words = shlex.split(line)
        if "pytest" in words:
            words = [*words, "-n", "2", "-p", "no:cacheprovider"]
        done = subprocess.run(
            [*as_account, *words], cwd=clone, env=environment, capture_output=True, text=True, timeout=600, check=False
        )
        assert done.returncode == 0, f"{line}: exit code {done.returncode}\n{done.stdout[-8000:]}{done.stderr[-4000:]}"
    passed = re.search(r"^=+ (\d+) passed", done.stdout.splitlines()[-1])
    assert passed and int(passed.group(1)) > 1000, done.stdout[-500:]
