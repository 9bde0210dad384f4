"""helmd owns no process: what it imports starts none, apart from the short queries named here."""

import ast
from collections.abc import Iterator

from tests.unit.test_linters import TOP, names_imported

EXCEPTIONS = {
    "helmd.keycloak.distribution.maven": "not by helmd: Keycloak is fetched by set-up and upgrades, which are jobs",
    "helmd.operations.modules.apps": "dpkg-query and needrestart, which have no API; 10 s and 30 s at most",
    "helmd.operations.monitoring.updates": "apt-get --simulate, which has no API, when its lists change; 60 s at most",
    "helmd.postgres.cluster": "not by helmd: pg_ctl, initdb and pg_controldata are for units and jobs",
    "helmd.postgres.sessions": "psql, as the health check of the suite's PostgreSQL; within its timeout",
    "helmd.systemd.calendar": "systemd-analyze calendar, for a schedule in a configuration that is read; 10 s at most",
    "helmd.systemd.host": "not by helmd: systemctl --version and a trial of user namespaces are for `apply`",
    "helmd.systemd.installed": "not by helmd: systemd-analyze verify is for `apply`",
    "helmd.systemd.user_manager": "not by helmd: systemctl show and systemd-analyze cat-config are for doctor",
    "helmd.systemd.watch": "busctl, since a call on helmd's own connection to a manager that hangs would stop helmd",
}
"""Modules that helmd imports and that start processes: which, and why."""

STARTS = {
    "subprocess": {"run", "Popen", "call", "check_call", "check_output", "getoutput", "getstatusoutput"},
    "asyncio": {"create_subprocess_exec", "create_subprocess_shell"},
    "os": {"system", "popen", "fork", "forkpty", "posix_spawn", "posix_spawnp"},
}
FORBIDDEN = {"multiprocessing", "pty", "concurrent.futures.ProcessPoolExecutor"}


def file_of(module: str) -> str | None:
    place = TOP / module.replace(".", "/")
    found = [path for path in (place.with_suffix(".py"), place / "__init__.py") if path.exists()]
    return found[0].read_text() if found else None


def executed(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes of a module but for what is under TYPE_CHECKING."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        yield node
        yield from executed(node)


def starts_processes(tree: ast.AST) -> bool:
    for node in executed(tree):
        match node:
            case ast.Attribute(value=ast.Name(id=module), attr=name) if name in STARTS.get(module, ()):
                return True
            case ast.Attribute(value=ast.Name(id="os"), attr=name) if name.startswith(("exec", "spawn")):
                return True
            case ast.ImportFrom(module=str(module), names=names):
                if any(each.name in STARTS.get(module, ()) for each in names):
                    return True
    return bool(FORBIDDEN & set(names_imported(executed(tree), TOP)))


def of_helmd() -> dict[str, ast.AST]:
    """Return every module that helmd imports, at its start or later, with its tree."""
    found: dict[str, ast.AST] = {}
    waiting = ["helmd.daemon", "helmd.serve"]
    while waiting:
        name = waiting.pop()
        if name in found or not name.startswith("helmd.") or (text := file_of(name)) is None:
            continue
        found[name] = ast.parse(text)
        waiting += names_imported(executed(found[name]), TOP)
    return found


def test_helmd_starts_no_process() -> None:
    modules = of_helmd()
    assert len(modules) > 300 and not any(name.startswith("helmd.cli") for name in modules)
    assert {name for name, tree in modules.items() if starts_processes(tree)} == EXCEPTIONS.keys()


def test_the_rule_sees_every_way() -> None:
    for text in (
        "import subprocess\ndef a():\n subprocess.run([])",
        "from subprocess import Popen",
        "import asyncio\nasync def a():\n await asyncio.create_subprocess_exec('a')",
        "import os\nos.execv('a', [])",
        "import multiprocessing",
        "from concurrent.futures import ProcessPoolExecutor",
    ):
        assert starts_processes(ast.parse(text)), text
    harmless = "import os, subprocess\nif TYPE_CHECKING:\n import multiprocessing\ntry: os.stat('a')\n"
    assert not starts_processes(ast.parse(harmless + "except subprocess.TimeoutExpired: pass"))
