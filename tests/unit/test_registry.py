"""The registry: the meaning of its files, and errors with file and line."""

import json
import os
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helmd.model.config.settings import Settings
from helmd.model.config.toml_lines import key_lines, line_of
from helmd.model.config.toml_tables import ConfigSource
from helmd.model.errors import ConfigurationError, Fault
from helmd.model.layout import Layout, layout
from helmd.model.suite.composition import whole_suite
from helmd.model.suite.names import KEYCLOAK_START_SECONDS
from helmd.model.suite.registry import read_registry
from helmd.model.suite.service import Registry
from helmd.operations.configuration.load import load_settings, load_suite, path_faults
from tests.catalogue import CATALOGUE
from tests.unit.hostile.cases import CASES, Case

TOP = Path(__file__).resolve().parents[2]


def registry(*texts: str, catalogue: bool = True) -> Registry:
    """Read these files after the package's catalogue."""
    sources = [ConfigSource(f"file{number}", text) for number, text in enumerate(texts, 1)]
    return read_registry([CATALOGUE, *sources] if catalogue else sources, {5004: "helmd"})


def faults_of(*texts: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        registry(*texts)
    return [str(fault) for fault in caught.value.faults]


@pytest.fixture
def account(tmp_path: Path) -> Layout:
    """Return an account with the demo's registry."""
    made = layout({}, tmp_path, os.getuid(), TOP)
    made.registry_directory.mkdir(parents=True)
    made.registry_file.write_text((TOP / "tests/suite/services.toml").read_text())
    return made


def loaded_faults(account: Layout) -> Sequence[Fault]:
    with pytest.raises(ConfigurationError) as caught:
        load_suite(account, Settings())
    return caught.value.faults


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_hostile_file(case: Case, account: Layout) -> None:
    evil = account.registry_directory / "evil.toml"
    evil.write_bytes(case.content)
    faults = loaded_faults(account)
    assert [(fault.file, fault.line) for fault in faults] == [(str(evil), line) for line, _ in case.expected]
    for fault, (_, words) in zip(faults, case.expected, strict=True):
        notified = f"{fault.where}: {fault.sentence}" if fault.where else fault.sentence
        assert notified.startswith(words)
        assert str(fault).isascii() and str(fault).isprintable(), ascii(str(fault))
        assert len(str(fault)) < 500
        assert "hunter2" not in str(fault)


def test_there_are_enough_hostile_files() -> None:
    assert len(CASES) >= 20
    assert all(case.expected for case in CASES)


def test_invalid_files(account: Layout, tmp_path: Path) -> None:
    directory = account.registry_directory
    os.mkfifo(directory / "a.toml")
    (directory / "b.toml").mkdir()
    (directory / "c.toml").symlink_to("c.toml")
    (directory / "d.toml").symlink_to("/dev/zero")
    (directory / "e\x1b[2J.toml").write_text("[services.e]\nport = 0\n")
    (directory / "f.toml").symlink_to(tmp_path / "nowhere")
    notified = [str(fault) for fault in loaded_faults(account)]
    assert [line.removeprefix(f"{directory}/").removeprefix(f"'{directory}/") for line in notified] == [
        "a.toml: is not a regular file",
        "b.toml: could not be read: Is a directory",
        "c.toml: could not be read: Too many levels of symbolic links",
        "d.toml: is not a regular file",
        "f.toml: is a symbolic link to a file that does not exist",
        "e\\x1b[2J.toml:2: services.e.port: must be from 1 to 65,535, not 0",
    ]


def test_an_unreadable_directory_is_an_error(account: Layout) -> None:
    (account.registry_directory / ".#note.toml").symlink_to("what an editor leaves beside its file")
    assert "core" in load_suite(account, Settings())
    (account.registry_directory / ".#note.toml").unlink()
    account.registry_directory.rmdir()
    account.registry_directory.write_text("")
    assert [str(fault) for fault in loaded_faults(account)] == [
        f"{account.registry_directory}: could not be read: Not a directory"
    ]


def test_unreadable_settings(account: Layout) -> None:
    account.settings_file.mkdir()
    with pytest.raises(ConfigurationError) as caught:
        load_settings(account)
    assert [str(fault) for fault in caught.value.faults] == [
        f"{account.settings_file}: could not be read: Is a directory"
    ]


def test_the_demo_registry_is_valid(account: Layout) -> None:
    suite = load_suite(account, load_settings(account))
    assert suite.names == (
        "postgres", "keycloak", "core", "nexus", "codex", "ledger", "knowledgetree", "ticker"
    )  # fmt: skip
    assert suite["nexus"].port == 8443 and suite["nexus"].url == "https://localhost:8443"
    assert suite["core"].health.start_path == "/.well-known/jwks.json"
    assert suite["keycloak"].depends_on == ("postgres",)
    assert suite["codex"].depends_on == ("postgres", "core")


def test_a_catalogue_service_joins_when_a_file_names_it() -> None:
    assert registry("").names == ()
    suite = registry("[services.keycloak]\n[services.core]\n")
    assert suite.names == ("keycloak", "core")
    core = suite["core"]
    assert (core.port, core.url, core.path, core.depends_on) == (
        5000, "http://localhost:5000", "hivematrix-core", ("keycloak",)
    )  # fmt: skip
    assert (core.file, core.line) == ("file1", 2)


def test_later_files_override_setting_by_setting() -> None:
    first = '[services.core]\ndepends_on = []\nport = 6000\nenvironment = { A = "1", B = "1" }\n'
    second = '[services.core]\nport = 7000\nenvironment = { B = "2", C = "2" }\nlimits.tasks = 5\n'
    core = registry(first, second)["core"]
    assert core.port == 7000 and core.url == "http://localhost:7000"
    assert core.environment == {"A": "1", "B": "2", "C": "2"}
    assert core.limits.tasks == 5
    assert core.health.start_path == "/.well-known/jwks.json", "what nobody overrides stays the catalogue's"


def test_a_url_follows_the_port_that_a_later_file_gives() -> None:
    nexus = registry("[services.nexus]\nport = 8443\ndepends_on = []\n")["nexus"]
    assert nexus.url == "https://localhost:8443"
    given = registry('[services.nexus]\nport = 8443\nurl = "https://desk.example"\ndepends_on = []\n')["nexus"]
    assert given.url == "https://desk.example"


def test_defaults_follow_the_kind() -> None:
    suite = registry(
        '[services.keycloak]\n[services.job]\ntype = "command"\nstart_command = "bin/run --all"\n'
        '[services.mail]\ntype = "external"\nurl = "https://mail.example:8025"\nhealth.check = "port"\n'
    )
    assert suite["keycloak"].health.check == "realm" and suite["keycloak"].success_exit_status == (143,)
    assert suite["keycloak"].health.start_timeout == KEYCLOAK_START_SECONDS
    assert suite["job"].health.check == "process" and suite["job"].start_command == ("bin/run", "--all")
    assert suite["job"].url == "" and suite["job"].port is None
    assert suite["mail"].external and suite["mail"].health.check == "port"


def test_the_start_path_defaults_to_the_health_path() -> None:
    given = '[services.core]\ndepends_on = []\nhealth = { path = "/up", start_path = "/ready" }\n'
    only_path = '[services.codex]\ndepends_on = []\nhealth.path = "/up"\n'
    suite = registry(given + only_path)
    assert (suite["core"].health.path, suite["core"].health.start_path) == ("/up", "/ready")
    assert (suite["codex"].health.path, suite["codex"].health.start_path) == ("/up", "/up")


def test_errors_of_several_files_are_reported_together() -> None:
    notified = faults_of(
        "[services.core]\nport = 'x'\nspelt = 1\n", "[services.", '[services.evil]\nport = 1\ndepends_on = ["gone"]\n'
    )
    assert [line.split(": ")[0] for line in notified] == ["catalogue:24", "file1:2", "file1:3", "file2:1", "file3:3"]
    assert "'keycloak' is not part of the suite; add a table [services.keycloak]" in notified[0]


def test_a_fault_names_the_line_that_gave_the_value() -> None:
    notified = faults_of('[services.core]\ndepends_on = ["codex"]\n', '[services.codex]\n\n\ndepends_on = ["core"]\n')
    assert notified == ["file1:2: services.core.depends_on: is a cycle: core -> codex -> core"]


def test_two_services_on_one_port() -> None:
    one = '[services.one]\ntype = "command"\nstart_command = "run"\nport = 6000\n'
    notified = faults_of(one, one.replace("one", "two"))
    assert notified == ["file2:4: services.two.port: 6000 is also the port of one"]
    external = '[services.two]\ntype = "external"\nurl = "http://elsewhere.example:6000"\nport = 6000\n'
    assert registry(one, external).names == ("one", "two")


def test_ports_of_helm_itself_are_taken() -> None:
    settings = Settings(port=6000, suite_database_port=6001)
    text = '[services.{0}]\ntype = "command"\nstart_command = "run"\nport = {1}\n'
    source = ConfigSource("mine", text.format("one", 6000) + text.format("two", 6001))
    with pytest.raises(ConfigurationError) as caught:
        read_registry([source], settings.taken_ports())
    assert [fault.sentence for fault in caught.value.faults] == [
        "6000 is also the port of helmd", "6001 is also the port of the suite's PostgreSQL"
    ]  # fmt: skip
    assert read_registry([source], Settings(port=1, suite_database="postgresql://db.example/x").taken_ports())


def test_the_suite_has_a_postgresql_only_if_it_is_used() -> None:
    plain = registry("[services.core]\ndepends_on = []\n")
    assert whole_suite(plain, Settings()) == plain
    with_database = registry("[services.core]\ndepends_on = []\n[services.codex]\n")
    suite = whole_suite(with_database, Settings(suite_database_port=6001))
    assert suite.names == ("postgres", "core", "codex")
    assert (suite["postgres"].port, suite["postgres"].health.check) == (6001, "port")
    assert suite["codex"].depends_on == ("postgres", "core") and suite["core"].depends_on == ()
    assert whole_suite(with_database, Settings(suite_database="postgresql://db.example/x")) == with_database


def test_what_directories_lack(account: Layout) -> None:
    account.registry_file.write_text(
        "[services.core]\ndepends_on = []\n"
        '[services.job]\ntype = "command"\npath = "~/job"\nstart_command = "bin/run"\n'
        '[services.shell]\ntype = "command"\npath = "~/job"\nstart_command = "sh -c true"\n'
        '[services.mail]\ntype = "external"\nurl = "http://mail.example"\n'
    )
    suite = load_suite(account, Settings())
    (account.home / "job/bin").mkdir(parents=True)
    (account.home / "job/bin/run").write_text("#!/bin/sh\n")
    notified = [str(fault) for fault in path_faults(suite, account)]
    assert notified == [
        f"{account.registry_file}:1: services.core.path: directory {account.data / 'hivematrix-core'} does not exist;"
        " install it from https://github.com/skelhammer/hivematrix-core: helmctl modules install core",
        f"{account.registry_file}:3: services.job.start_command: "
        f"program {account.home}/job/bin/run is not executable; if it is to run: chmod +x {account.home}/job/bin/run",
    ]
    (account.home / "job/bin/run").chmod(0o755)
    core = account.data / "hivematrix-core"
    core.mkdir(parents=True)
    interpreter, script = path_faults(suite, account)
    assert (interpreter.where, script.where) == ("services.core.python_bin", "services.core.run_script")
    assert interpreter.sentence.endswith(f"or is not executable; make it with: python3 -m venv {core}/pyenv")
    (core / "requirements.txt").write_text("flask\n")
    (interpreter, _) = path_faults(suite, account)
    assert interpreter.sentence.endswith(f"{core}/pyenv && {core}/pyenv/bin/pip install -r {core}/requirements.txt")
    (core / "pyenv").mkdir()
    (interpreter, _) = path_faults(suite, account)
    assert interpreter.sentence.endswith("or is not executable"), "it is there, and somebody's to look after"


KEYS = st.text("ab.[]\"'\\ #=é", min_size=1, max_size=6)
VALUES = st.sampled_from(
    [
        "1",
        '"plain"',
        r'"a \" quote # no comment ["',
        r"'C:\'",
        "[1, 2] # \"a comment's quote",
        '["a", # ]\n"b", "[services.c]",\n["k = 1"],\n]',
        '"""\n[services.inside]\nkey = 1\n"""',
        '"""a \\""" b\n[x]"""',
        '"""ends with quotes"""""',
        "'''\n[x]\n'' '\nkey = '''",
        "''''quoted'''''",
        '{ a = 1, "b" = [1, "}"] }',
        '"""one\\\n  line"""',
        "[\"\"\"\n]\"\"\", ['''\n[''']]",
    ]
)


@given(st.dictionaries(KEYS, st.dictionaries(KEYS, VALUES, max_size=4), max_size=4), st.sampled_from(["\n", "\r\n"]))
def test_every_key_has_its_line(tables: dict[str, dict[str, str]], newline: str) -> None:
    lines: list[str] = []
    expected: dict[tuple[str, ...], int] = {}
    for name, keys in tables.items():
        lines += ["", f"[ top . {_quoted(name)} ] # '''"]
        expected["top", name] = len(lines)
        for key, value in keys.items():
            lines += [f"  {_quoted(key)} = {value}"]
            expected["top", name, key] = len(lines)
            lines[-1:] = lines[-1].split("\n")
    text = newline.join(lines)
    tomllib.loads(text)
    found = key_lines(text)
    assert {key: line for key, line in found.items() if len(key) > 1} == expected


def _quoted(key: str) -> str:
    """Return KEY as TOML has it, each kind of quoting where it may stand."""
    if re.fullmatch("[A-Za-z0-9_-]+", key):
        return key
    return json.dumps(key) if "'" in key or len(key) % 2 else f"'{key}'"


def test_dotted_keys_have_the_line_that_first_speaks_of_them() -> None:
    lines = key_lines('[a.b.c]\n[a.b]\nd.e = 1\n\nd.f = 2\n"x\\u0041" = 3\n')
    assert lines["a",] == 1 and lines["a", "b"] == 2 and lines["a", "b", "c"] == 1
    assert lines["a", "b", "d"] == 3 and lines["a", "b", "d", "f"] == 5 and lines["a", "b", "xA"] == 6
    assert line_of(lines, ("a", "b", "d", "f", "inside")) == 5
    assert line_of(lines, ("elsewhere",)) == 0


def test_a_second_keycloak_is_refused() -> None:
    text = '[services.keycloak]\n[services.sso]\ntype = "keycloak"\nport = 8090\n'
    with pytest.raises(ConfigurationError) as refused:
        registry(text)
    assert [str(fault) for fault in refused.value.faults if "already" in str(fault)] == [
        "file1:3: services.sso.type: keycloak is already of type keycloak; a second one must be external"
    ]


def test_services_of_the_catalogue_are_not_restarted_without_end() -> None:
    suite = registry("[services.keycloak]\n[services.core]\n[services.nexus]\n[services.codex]\n[services.ledger]\n")
    for service in suite.services.values():
        assert service.gives_up(service.slowest_start), service.name
