"""The linters, run as tests: ruff, mypy, and which package may import which."""

import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]

PACKAGES: dict[str, set[str]] = {
    "model": set(),
    "files": {"model"},
    "health": {"model"},
    "journal": {"model", "files"},
    "keycloak": {"model", "files"},
    "modules": {"model", "files", "systemd"},
    "postgres": {"model", "files"},
    "store": {"model"},
    "systemd": {"model", "files", "health", "keycloak"},
    "operations": {"model", "files", "health", "journal", "keycloak", "modules", "postgres", "store", "systemd"},
    "web": {"model", "operations"},
    "serving": {"model", "health", "journal", "modules", "operations", "store", "systemd", "web"},
    "cli": {"model", "files", "health", "journal", "operations", "postgres", "systemd"},
}
"""Which packages of helmd a package may import besides itself; the modules of helmd itself may import all."""

SUBPACKAGES: dict[str, set[str]] = {
    "model.api": {
        "model.modules.record",
        "model.jobs.record",
        "model.logs.filter",
        "model.logs.query_language.parse",
        "model.security.firewall",
        "model.suite",
        "model.units.status",
        "model.units.timeline",
    },
    "model.backup": {"model.units.diagnostics"},
    "model.config": {"model.suite.names"},
    "model.identity": {"model.api", "model.config", "model.logs.entry", "model.suite"},
    "model.ingest": {"model.api.ingest", "model.logs", "model.suite.names"},
    "model.jobs": {"model.api", "model.identity.origin", "model.suite", "model.units"},
    "model.logs": {"model.logs.query_language"},
    "model.metrics": {"model.logs.retention"},
    "model.modules": {"model.config", "model.suite", "model.units.hardening"},
    "model.logs.query_language": {"model.logs.entry", "model.logs.level"},
    "model.logs.parsing": {
        "model.config",
        "model.ingest.own_entries",
        "model.suite.names",
        "model.units.health_request",
    },
    "model.security": {"model.api", "model.config", "model.identity", "model.suite", "model.units"},
    "model.suite": {"model.config"},
    "model.units": {"model.suite"},
    "keycloak.admin": set(),
    "keycloak.distribution": set(),
    "store.ingest": {"store.metrics"},
    "store.logs": {"store.ingest", "store.maintenance"},
    "store.maintenance": set(),
    "store.metrics": set(),
    "operations.backup": {"operations.configuration", "operations.logs.view_file", "operations.setup"},
    "operations.configuration": set(),
    "operations.diagnostics": {"operations.backup.kept", "operations.configuration", "operations.monitoring"},
    "operations.identity": {"operations.configuration"},
    "operations.jobs": {"operations.lifecycle.steps"},
    "operations.lifecycle": set(),
    "operations.logs": set(),
    "operations.modules": {
        "operations.configuration",
        "operations.identity.gateway_login",
        "operations.identity.probe_account",
        "operations.identity.upgrade",
        "operations.jobs",
        "operations.monitoring.updates",
        "operations.lifecycle",
        "operations.setup",
    },
    "operations.monitoring": {"operations.logs"},
    "operations.security": {"operations.configuration", "operations.diagnostics", "operations.monitoring"},
    "operations.setup": {"operations.configuration"},
    "web.api": {"web.auth", "web.http"},
    "web.auth": set(),
    "web.http": {"web.auth"},
    "web.pages": {"web.api.sources", "web.auth", "web.http"},
    "cli.logs": set(),
}
"""Which of its package's other subpackages (or single modules of them) a subpackage may import.

A subpackage and the modules beside it in its package may import one another.
"""

THIRD_PARTY: dict[str, set[str]] = {
    "aiohttp": {"web"},
    "aiohttp_session": {"web.auth", "web.pages", "web.server"},
    "argon2": {"operations.security"},
    "click": {"cli"},
    "cryptography": {
        "files.key_pair",
        "operations.configuration",
        "operations.diagnostics",
        "operations.modules.deploy_key",
        "operations.security",
        "web.auth",
    },
    "jinja2": {"systemd", "web.pages"},
    "jsonschema": {"web.http"},
    "jwt": {"web.auth"},
    "markupsafe": {"web.pages"},
    "oauthlib": {"web.auth"},
    "prometheus_client": {"operations.monitoring.prometheus"},
    "psutil": {"operations.monitoring.details"},
    "psycopg": {"postgres", "store"},
    "psycopg_pool": {"store"},
    "pystemd": {"systemd"},
    "systemd._reader": {"journal"},
    "systemd": {"daemon", "journal", "operations.diagnostics"},
    "tomlkit": {"model.config.registry_edit"},
}
"""Which packages or modules of helmd may import a third-party module. The first entry that fits counts."""

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
"""What the model may not import: it knows nothing of the outside world. (pathlib only to name paths.)"""

PATH_MODULES = {"layout.py"}


def modules() -> Iterator[Path]:
    yield from sorted((TOP / "helmd").rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """Yield the modules that the module at PATH imports anywhere, and the names it takes from them."""
    return names_imported(ast.walk(ast.parse(path.read_text())), path)


def names_imported(nodes: Iterable[ast.AST], path: Path) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def lint(program: str, *words: str, **environment: str) -> None:
    """Run a linter of this Python's environment, or of PATH; fail with its findings."""
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        [shutil.which(program, path=places) or program, *words],
        cwd=TOP,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "command", [("ruff", "check", "."), ("ruff", "format", "--check", "."), ("mypy",)], ids=" ".join
)
def test_linter(command: tuple[str, ...]) -> None:
    lint(*command)


SUITE = TOP / "tests/suite"


def test_types_of_the_sample_services() -> None:
    """Each is checked as it runs: from its own directory, with `hivesuite` beside it. One by one, with one cache."""
    for directory in sorted(path.parent for path in SUITE.glob("*/run.py")):
        files = [str(path.relative_to(TOP)) for path in directory.glob("*.py")]
        lint("mypy", "--cache-dir=.mypy_cache/suite", *files, MYPYPATH=f"{SUITE / 'common'}:{directory}")


def subpackage_of(name: str) -> str:
    """Return the longest entry of SUBPACKAGES or PACKAGES that the module NAME (without "helmd.") lies in."""
    words = name.split(".")
    return next(
        (key for n in range(len(words), 0, -1) if (key := ".".join(words[:n])) in SUBPACKAGES or key in PACKAGES), ""
    )


def may_import(importer: str, imported: str) -> bool:
    """Return whether the subpackage IMPORTER may import the module IMPORTED; both without "helmd."."""
    package, other = importer.split(".")[0], imported.split(".")[0]
    if other not in PACKAGES or not package:
        return True
    if other != package:
        return other in PACKAGES[package]
    target = subpackage_of(imported)
    if importer == target or importer.startswith(f"{target}.") or target.startswith(f"{importer}."):
        return True
    return any(f"{imported}.".startswith(f"{allowed}.") for allowed in SUBPACKAGES.get(importer, ()))


def test_every_package_stands_in_a_table() -> None:
    found = {
        ".".join(path.parent.relative_to(TOP / "helmd").parts) for path in (TOP / "helmd").rglob("__init__.py")
    } - {""}
    assert found == set(PACKAGES) | set(SUBPACKAGES)


def test_packages_import_only_what_they_may() -> None:
    wrong = []
    for path in modules():
        importer = subpackage_of(".".join(path.relative_to(TOP / "helmd").with_suffix("").parts))
        wrong += [
            f"{path.relative_to(TOP)} imports {name}"
            for name in imported(path)
            if name.startswith("helmd.") and not may_import(importer, name.removeprefix("helmd."))
        ]
    assert not wrong, "\n".join(sorted(set(wrong)))


@pytest.mark.parametrize(
    ("importer", "name", "allowed"),
    [
        ("model", "operations.steps", False),
        ("cli", "model.errors", True),
        ("web", "store.session", False),
        ("operations.logs", "operations.monitoring.monitor", False),
        ("operations.monitoring", "operations.logs.disk", True),
        ("model.logs", "model.logs.parsing.formats", True),
        ("model.config", "model.suite.registry", False),
        ("model.config", "model.suite.names", True),
        ("", "cli.main", True),
    ],
)
def test_the_import_rule_refuses_what_it_should(importer: str, name: str, allowed: bool) -> None:
    assert may_import(importer, name) is allowed


def test_third_party_modules_are_imported_only_where_they_may_be() -> None:
    wrong = []
    for path in modules():
        importer = ".".join(path.relative_to(TOP / "helmd").with_suffix("").parts)
        for name in imported(path):
            if name.split(".")[0] in {"helmd", *sys.stdlib_module_names}:
                continue
            where = next((packages for key, packages in THIRD_PARTY.items() if f"{name}.".startswith(f"{key}.")), set())
            if not any(f"{importer}.".startswith(f"{package}.") for package in where):
                wrong.append(f"{path.relative_to(TOP)} imports {name}")
    assert not wrong, "\n".join(sorted(set(wrong)))


def test_helmd_journal_loads_neither_a_web_server_nor_templates() -> None:
    """It would never use them, and they would take some megabytes of its memory."""
    code = f"import sys; sys.path.insert(0, {str(TOP)!r}); import helmd.daemon; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "psycopg" in loaded
    assert not {"aiohttp", "jinja2", "click"} & set(loaded)


def test_model_has_no_outside_words() -> None:
    wrong = [
        f"{path.relative_to(TOP)} imports {name}"
        for path in (TOP / "helmd/model").rglob("*.py")
        for name in imported(path)
        if name.split(".")[0] in PURE and not (name.startswith("pathlib") and path.name in PATH_MODULES)
    ]
    assert not wrong, "\n".join(wrong)


def test_no_module_is_too_long() -> None:
    large = {str(path.relative_to(TOP)): n for path in modules() if (n := path.read_text().count("\n")) > 450}
    assert not large


def test_no_import_cycles() -> None:
    graph = {}
    for path in modules():
        name = ".".join(path.relative_to(TOP).with_suffix("").parts).removesuffix(".__init__")
        graph[name] = set(names_imported(ast.parse(path.read_text()).body, path))
    from helmd.model.suite.dependencies import find_cycle

    assert find_cycle({name: [target for target in needs if target in graph] for name, needs in graph.items()}) == ()


def test_a_public_name_has_one_meaning() -> None:
    """No two modules define a public class, function or constant of the same name, but entry points and commands."""
    places: dict[str, set[str]] = {}
    for path in modules():
        for node in ast.parse(path.read_text()).body:
            for name in defined_by(node):
                if not (name.startswith("_") or name == "main" or name.endswith("_command")):
                    places.setdefault(name, set()).add(str(path.relative_to(TOP)))
    assert {name: sorted(where) for name, where in places.items() if len(where) > 1} == {}


def defined_by(node: ast.stmt) -> Iterator[str]:
    """Yield the names that a statement at the top level of a module defines, without type variables."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.Assign | ast.AnnAssign):
        made = node.value.func if isinstance(node.value, ast.Call) else None
        if isinstance(made, ast.Name) and made.id == "TypeVar":
            return
        for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
            yield from (name.id for name in ast.walk(target) if isinstance(name, ast.Name))
