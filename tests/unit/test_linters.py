"""The linters, run as tests: ruff, mypy, and which room may import which."""

import ast
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]

ROOMS = {
    "model": set(),
    "files": {"model"},
    "health": {"model"},
    "journal": {"model"},
    "keycloak": {"model", "files"},
    "postgres": {"model", "files"},
    "store": {"model"},
    "systemd": {"model", "files", "health", "keycloak"},
    "operations": {"model", "files", "health", "journal", "keycloak", "postgres", "store", "systemd"},
    "web": {"model", "operations", "systemd"},
    "cli": {"model", "files", "health", "journal", "operations", "postgres", "systemd"},
}
"""Which rooms a room may import besides itself; helmd.daemon may import all (DESIGN, "Rooms")."""

PURE = {
    "asyncio",
    "subprocess",
    "socket",
    "psycopg",
    "aiohttp",
    "pystemd",
    "systemd",
    "psutil",
    "click",
    "os",
    "pathlib",
}
"""What the model may not import: it has no words for the outside world. (pathlib only as a word for paths.)"""

PATH_WORDS = {"layout.py"}


def modules() -> Iterator[Path]:
    yield from sorted((TOP / "helmd").rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize(
    "command", [("ruff", "check", "."), ("ruff", "format", "--check", "."), ("mypy",)], ids=" ".join
)
def test_linter(command: tuple[str, ...]) -> None:
    done = subprocess.run(command, cwd=TOP, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_rooms_import_only_what_they_may() -> None:
    wrong = []
    for path in modules():
        parts = path.relative_to(TOP / "helmd").parts
        if len(parts) == 1:
            continue
        room = parts[0]
        for name in imported(path):
            words = name.split(".")
            inside = words[0] == "helmd" and len(words) > 1 and words[1] in ROOMS
            if inside and words[1] not in ROOMS[room] | {room}:
                wrong.append(f"{path.relative_to(TOP)} imports {name}")
    assert not wrong, "\n".join(sorted(set(wrong)))


def test_model_has_no_outside_words() -> None:
    wrong = [
        f"{path.relative_to(TOP)} imports {name}"
        for path in (TOP / "helmd/model").glob("*.py")
        for name in imported(path)
        if name.split(".")[0] in PURE and not (name.startswith("pathlib") and path.name in PATH_WORDS)
    ]
    assert not wrong, "\n".join(wrong)


def test_no_module_outgrows_its_room() -> None:
    large = {str(path.relative_to(TOP)): n for path in modules() if (n := path.read_text().count("\n")) > 450}
    assert not large


def test_no_import_cycles() -> None:
    graph = {}
    for path in modules():
        name = ".".join(path.relative_to(TOP).with_suffix("").parts).removesuffix(".__init__")
        top_level = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)]
        graph[name] = {
            target
            for node in top_level
            if isinstance(node, ast.ImportFrom) and node.module
            for target in (node.module, *(f"{node.module}.{alias.name}" for alias in node.names))
        }
    from helmd.model.plan import find_cycle

    assert find_cycle({name: [target for target in needs if target in graph] for name, needs in graph.items()}) == ()
