"""What the package promises and what the code says, held against each other."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from helmd import __version__
from helmd.model.config.settings import Settings, read_settings_files
from helmd.model.config.toml_tables import ConfigSource
from helmd.model.layout import INSTALLED_LIBEXEC
from helmd.model.suite.registry import read_registry

ROOT = Path(__file__).resolve().parents[2]
DEBIAN = ROOT / "debian"
UNITS = sorted((ROOT / "packaging/systemd/user").iterdir())
SYSTEM_UNITS = sorted((ROOT / "packaging/systemd/system").iterdir())

PACKAGE_OF = {
    "aiohttp": "python3-aiohttp",
    "aiohttp_session": "python3-aiohttp-session",
    "markupsafe": "python3-markupsafe",
    "argon2": "python3-argon2",
    "oauthlib": "python3-oauthlib",
    "click": "python3-click",
    "cryptography": "python3-cryptography",
    "jinja2": "python3-jinja2",
    "jsonschema": "python3-jsonschema",
    "tomlkit": "python3-tomlkit",
    "jwt": "python3-jwt",
    "prometheus_client": "python3-prometheus-client",
    "psutil": "python3-psutil",
    "psycopg": "python3-psycopg",
    "psycopg_pool": "python3-psycopg-pool",
    "pystemd": "python3-pystemd",
    "systemd": "python3-systemd",
    "multidict": "python3-aiohttp",
    "yarl": "python3-aiohttp",
}
"""The Debian package of each module that Helm may import."""


def imported() -> set[str]:
    found = set()
    for file in [ROOT / "helmctl.py", *(ROOT / "helmd").rglob("*.py")]:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module)
    return {name.partition(".")[0] for name in found}


def packages(field: str) -> set[str]:
    """Return the packages that FIELD of debian/control names, one a line."""
    found = re.search(rf"^{field}:\n((?: .*\n)+)", (DEBIAN / "control").read_text(), re.MULTILINE)
    assert found
    return set(re.findall(r"^ ([a-z0-9.+-]+)", found.group(1), re.MULTILINE))


def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_versions_agree() -> None:
    first = (DEBIAN / "changelog").read_text().splitlines()[0]
    project = pyproject()["project"]
    assert first.startswith(f"hivematrix-helm ({__version__}) ")
    assert "version" in project["dynamic"]


@pytest.mark.parametrize("field", ["Depends", "Build-Depends"])
def test_every_module_imported_is_of_a_package_depended_on(field: str) -> None:
    """The build needs them as well: the manual page of helmctl is made from its commands."""
    outside = imported() - sys.stdlib_module_names - {"helmd"}
    assert outside
    assert {PACKAGE_OF[name] for name in outside} - packages(field) == set()


def test_every_version_is_in_the_changelog() -> None:
    released = re.findall(r"^hivematrix-helm \(([^)]+)\)", (DEBIAN / "changelog").read_text(), re.MULTILINE)
    described = re.findall(r"^## (\d\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert described == released


def test_what_pip_installs_is_what_the_package_depends_on() -> None:
    of_the_package = {name for name in packages("Depends") if name.startswith("python3-")}
    names = [re.split("[<>=]", requirement)[0] for requirement in pyproject()["project"]["dependencies"]]
    renamed = {"argon2-cffi": "python3-argon2", "pyjwt": "python3-jwt", "systemd-python": "python3-systemd"}
    assert {renamed.get(name, f"python3-{name}") for name in names} == of_the_package


@pytest.mark.parametrize("script", ["postinst", "prerm", "postrm"])
def test_maintainer_scripts_are_shell(script: str) -> None:
    text = (DEBIAN / f"hivematrix-helm.{script}").read_text()
    assert text.count("\n#ACCOUNTS#\n") == text.count("\n#DEBHELPER#\n") == 1
    whole = text.replace("#ACCOUNTS#", (DEBIAN / "accounts.sh").read_text())
    checked = subprocess.run(["sh", "-n"], input=whole, capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")


@pytest.mark.parametrize(("manager", "units"), [("--user", UNITS), ("--system", SYSTEM_UNITS)])
def test_units_are_accepted_by_systemd(tmp_path: Path, manager: str, units: list[Path]) -> None:
    for unit in units:
        # systemd-analyze looks for the programs, which are not installed here.
        text = unit.read_text().replace(str(INSTALLED_LIBEXEC), str(ROOT / "packaging/libexec"))
        (tmp_path / unit.name).write_text(text)
    checked = subprocess.run(
        ["systemd-analyze", manager, "verify", "--man=no", *(str(tmp_path / unit.name) for unit in units)],
        capture_output=True, text=True, check=False,
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path), "HOME": str(tmp_path)},
    )  # fmt: skip
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


def test_units_name_manual_pages_that_exist() -> None:
    ours = {source.stem for source in (ROOT / "packaging/man").glob("*.scd")}
    for unit in [*UNITS, *SYSTEM_UNITS, *(ROOT / "units").iterdir()]:
        named = {f"{page}.{section}" for page, section in re.findall(r"man:(\S+)\((\d)\)", unit.read_text())}
        assert named <= ours, unit


def test_the_example_of_a_suite_is_one() -> None:
    catalogue, example = ROOT / "services.toml", ROOT / "packaging/examples/services.toml"
    sources = [
        ConfigSource(str(catalogue), catalogue.read_text(), catalogue=True),
        ConfigSource(str(example), example.read_text()),
    ]
    suite = read_registry(sources, Settings().taken_ports())
    assert suite["tickets"].depends_on == ("core", "codex")
    assert suite["ledger"].limits.memory_max == 1 << 30


def test_examples_of_suites_have_the_gateway_where_core_asks_it() -> None:
    """At https://localhost (README.md)."""
    page = (ROOT / "packaging/man/services.toml.5.scd").read_text().partition("# EXAMPLE\n")[2]
    examples = [(ROOT / "packaging/examples/services.toml").read_text(), page.split("```")[1]]
    gateways = [tomllib.loads(text)["services"]["nexus"] for text in examples]
    assert gateways == [{"url": "https://helm.example.org"}] * 2


def test_the_example_of_settings_is_one() -> None:
    example = ROOT / "packaging/examples/helm.toml"
    commented_out = example.read_text().replace("# [store]", "[store]").replace("# database =", "database =")
    settings = read_settings_files([ConfigSource(str(example), commented_out)])
    assert settings.mode == "production"
    assert settings.store.startswith("postgresql://helm@")
