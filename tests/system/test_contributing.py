"""What CONTRIBUTING.md says works as written: a clone, an ordinary user, a virtual environment."""

import ast
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


ASKS = re.compile(r"geteuid|getuid\(\) ==|setpriv|chown|chmod|PermissionError|shellcheck|scdoc|esbuild|bash-completion")
"""What depends on who runs it, or on programs of the packages."""


def selected() -> list[str]:
    """Unit tests that have such a thing in them, or in what they use of their file. The others have run as root."""
    found = []
    for file in sorted((TOP / "tests/unit").glob("test_*.py")):
        parts = sources(file.read_text())
        asking = {name for name, source in parts.items() if ASKS.search(source)}
        while asking:
            names = re.compile(rf"\b(?:{'|'.join(asking)})\b")
            more = {name for name, source in parts.items() if names.search(source)} - asking
            if not more:
                break
            asking |= more
        found += [f"{file.relative_to(TOP)}::{name}" for name in parts if name.startswith("test_") and name in asking]
    return found


def sources(text: str) -> dict[str, str]:
    """The source of each function, class and constant of a module, with its decorators, by its name."""
    lines = text.splitlines()
    found = {}
    for part in ast.parse(text).body:
        if isinstance(part, ast.Assign):
            name = ast.unparse(part.targets[0])
        elif isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            name = part.name
        else:
            continue
        first = min([part.lineno, *(each.lineno for each in getattr(part, "decorator_list", []))])
        found[name] = "\n".join(lines[first - 1 : part.end_lineno])
    return found


def test_unit_tests_as_an_ordinary_user(clone: Path) -> None:
    """All are found there; those run that may differ from a run as root."""
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
    *make, test = map(shlex.split, others)
    only_ruff = ("tests/unit/test_linters.py", "-k", "ruff")
    every = [*test, "-p", "no:cacheprovider", "--collect-only", "-q"]
    some = [*test[:-1], "-p", "no:cacheprovider", "-n", "2", *selected()]
    linters = [*test[:-1], "-p", "no:cacheprovider", *only_ruff]
    mypy = [".venv/bin/mypy", "helmd/files"]
    said = {}
    for words in (*make, every, some, linters, mypy):
        done = subprocess.run(
            [*as_account, *words], cwd=clone, env=environment, capture_output=True, text=True, timeout=600, check=False
        )
        line = " ".join(words)
        assert done.returncode == 0, f"{line}: exit code {done.returncode}\n{done.stdout[-8000:]}{done.stderr[-4000:]}"
        said[words[-1]] = done.stdout
    collected = re.search(r"^(\d+) tests collected", said["-q"], re.MULTILINE)
    assert collected and int(collected[1]) > 3000, said["-q"][-500:]
    passed = re.search(r"^=+ (\d+) passed", said[some[-1]], re.MULTILINE)
    assert passed and int(passed[1]) > 200 and "2 passed" in said["ruff"], said[some[-1]][-500:]
