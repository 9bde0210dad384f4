"""What is read about modules from outside: sources, revisions, records, and what a repository declares of itself."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from helmd.model.config.toml_tables import ConfigSource
from helmd.model.errors import HelmError, UsageError
from helmd.model.layout import Layout, layout
from helmd.model.modules.record import (
    HistoryEntry,
    ModuleRecord,
    RecordError,
    Version,
    is_version_id,
    record_of,
    record_text,
    version_id,
)
from helmd.model.modules.settings import entry_text, read_declared
from helmd.model.modules.source import git_source_of, module_name, ref_of
from helmd.model.suite.registry import read_registry
from helmd.modules.records import installed_names, places_of, read_record, write_record

HOSTILE_SOURCES = [
    "ext::sh -c touch% /tmp/owned",
    "fd::17",
    "transport::https://example.org/x",
    "--upload-pack=touch /tmp/owned",
    "-oProxyCommand=touch /tmp/owned",
    "ssh://-oProxyCommand=touch/x",
    "ssh://git@-oProxyCommand=x/y",
    "git@-oProxyCommand=x:y",
    "git@example.org:-oProxyCommand",
    "git@example.org:--upload-pack=x",
    "https://-x.example.org/a",
    "https://example.org/--upload-pack",
    "https://user:password@example.org/a.git",
    "https://user@example.org/a.git",
    "http://example.org/a.git",
    "git://example.org/a.git",
    "ftp://example.org/a.git",
    "https://example.org/a/../../b",
    "https://example.org/a.git?x=1",
    "https://example.org/a.git#b",
    "https://example.org/$(id)",
    "https://example.org/a b",
    "https://example.org/a\nb",
    "https://example.org/\x1b[2Ja",
    "https://example.org",
    "/srv/git/../../etc",
    "/srv/git/a b",
    "/srv/git/$(id)",
    "../a.git",
    "file:///srv/../etc",
    "file://host/srv",
    "",
    "a" * 10_000,
]
HOSTILE_REFS = [
    "--upload-pack=x",
    "-f",
    "a..b",
    "@{-1}",
    "refs/heads/../../x",
    "main^{commit}",
    "main~1",
    "a b",
    "a\nb",
    "main:path",
    "+main",
    "*",
    "a//b",
    "a/.b",
    "a.lock",
    "a/",
    "x" * 300,
]
HOSTILE_NAMES = ["..", "../core", "Core", "all", "helm", "postgres", "job-1", "a/b", "-x", "", "x" * 60, "a\n", "ä"]


@pytest.fixture
def account(tmp_path: Path) -> Layout:
    return layout({}, tmp_path, 1000, Path("/usr/share/hivematrix-helm"))


@pytest.mark.parametrize("text", HOSTILE_SOURCES, ids=lambda text: repr(text[:40]))
def test_what_git_could_take_for_something_else_is_no_source(text: str) -> None:
    with pytest.raises(UsageError):
        git_source_of(text, files=True)


@pytest.mark.parametrize("text", HOSTILE_REFS, ids=lambda text: repr(text[:40]))
def test_what_git_could_take_for_something_else_is_no_revision(text: str) -> None:
    with pytest.raises(UsageError):
        ref_of(text)


@pytest.mark.parametrize(
    ("text", "kind", "host", "name"),
    [
        ("https://github.com/skelhammer/hivematrix-core", "https", "github.com", "core"),
        ("https://github.com/skelhammer/hivematrix-knowledgetree.git", "https", "github.com", "knowledgetree"),
        ("https://example.org:8443/a/Desk.git/", "https", "example.org", "desk"),
        ("ssh://git@example.org:2222/modules/desk.git", "ssh", "example.org", "desk"),
        ("git@example.org:modules/desk.git", "ssh", "example.org", "desk"),
        ("/srv/git/hivematrix-desk.git", "file", "", "desk"),
        ("file:///srv/git/desk", "file", "", "desk"),
    ],
)
def test_a_source_says_what_the_module_is_called(text: str, kind: str, host: str, name: str) -> None:
    source = git_source_of(text, files=True)
    assert (source.kind, source.host, module_name(source)) == (kind, host, name)


def test_repositories_of_this_machine_must_be_allowed() -> None:
    with pytest.raises(UsageError) as refused:
        git_source_of("/srv/git/desk.git")
    assert "--allow-file" in refused.value.hint


@pytest.mark.parametrize("name", HOSTILE_NAMES, ids=repr)
def test_a_name_that_is_no_services_is_refused(name: str, account: Layout) -> None:
    if name:
        with pytest.raises(UsageError):
            module_name(git_source_of("https://example.org/desk"), name)
    with pytest.raises(UsageError):
        places_of(account, name)


def test_a_repository_whose_name_is_none_needs_one() -> None:
    with pytest.raises(UsageError) as refused:
        module_name(git_source_of("https://example.org/hivematrix-helm"))
    assert "--name" in refused.value.hint


@pytest.mark.parametrize("ref", ["main", "v1.2.3", "feature/x", "0123456789abcdef0123456789abcdef01234567", ""])
def test_revisions(ref: str) -> None:
    assert ref_of(ref) == ref


COMMIT = "0123456789abcdef0123456789abcdef01234567"


def version(number: int, state: str = "kept", served: float = 0.0) -> Version:
    made = 1_700_000_000.0 + number
    return Version(version_id(made, COMMIT), COMMIT, state, made, served_at=served)  # type: ignore[arg-type]


def record(*versions: Version, active: str = "") -> ModuleRecord:
    return ModuleRecord("desk", "https://example.org/desk", "main", COMMIT, active, versions=versions)


def test_a_record_is_read_back_as_it_was_written(account: Layout) -> None:
    places = places_of(account, "desk")
    active = version(2, "active", 1_700_000_010.0)
    wanted = record(version(1, "failed"), active, active=active.id).noted(HistoryEntry(1.5, "install", "it did"))
    assert read_record(places) is None
    write_record(places, wanted)
    assert read_record(places) == wanted
    assert places.record.stat().st_mode & 0o777 == 0o600
    assert installed_names(account) == ["desk"]


@pytest.mark.parametrize(
    "changed",
    [
        {"name": "core"},
        {"source": "ext::sh"},
        {"source": None},
        {"ref": "--x"},
        {"commit": "HEAD"},
        {"active": "../../../core/versions/x"},
        {"held": "no"},
        {"versions": {}},
        {"versions": [3]},
        {"versions": [{"id": "../../x", "commit": COMMIT, "state": "active", "made_at": 1}]},
        {"versions": [{"id": "20261128T221502Z-0123456789ab", "commit": COMMIT, "state": "best", "made_at": 1}]},
        {"versions": [{"id": "20261128T221502Z-0123456789ab", "commit": "x", "state": "kept", "made_at": 1}]},
        {"versions": [{"id": "20261128T221502Z-0123456789ab", "commit": COMMIT, "state": "kept", "made_at": "now"}]},
        {"versions": [{"id": "20261128T221502Z-0123456789ab", "commit": COMMIT}]},
        {"history": [{"at": 1, "action": ["x"], "sentence": "y"}]},
        {"history": "none"},
    ],
    ids=lambda changed: json.dumps(changed)[:60],
)
def test_a_record_that_says_what_can_not_be_is_refused(changed: dict[str, object]) -> None:
    with pytest.raises(RecordError):
        record_of(json.dumps({**asdict(record(version(1))), **changed}), "desk")


@pytest.mark.parametrize("text", ["", "[]", "null", "{", "[" * 100_000, '"' + "a" * 100], ids=lambda text: text[:10])
def test_a_record_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(RecordError):
        record_of(text, "desk")


def test_a_record_that_is_a_link_is_refused(account: Layout, tmp_path: Path) -> None:
    places = places_of(account, "desk")
    places.root.mkdir(parents=True)
    (tmp_path / "elsewhere").write_text(record_text(record(version(1))))
    places.record.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RecordError):
        read_record(places)


def test_three_good_versions_are_kept_and_failed_ones_until_the_next_success() -> None:
    kept = [version(number, "kept", number) for number in (1, 2, 3)]
    failed, later = version(4, "failed"), version(6, "failed")
    active = version(5, "active", 1_700_000_005.5)
    found = record(*kept, failed, active, later, active=active.id)
    assert [each.id for each in found.superfluous] == [kept[0].id, failed.id]
    assert found.previous == kept[2]
    switched = found.activated(kept[2].id, 1_700_000_100.0)
    assert (switched.active, switched.previous) == (kept[2].id, replace(active, state="kept"))


def test_ids_of_versions() -> None:
    assert is_version_id(version_id(1_700_000_000, COMMIT))
    assert not is_version_id(version_id(1_700_000_000, COMMIT) + "/..")


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ('path = "~/elsewhere"', "path"),
        ('url = "http://169.254.169.254/"', "url"),
        ('install.source = "https://example.org/other"', "install.source"),
        ('readable_paths = ["~/.ssh"]', "readable_paths"),
        ('writable_paths = ["/srv"]', "writable_paths"),
        ('type = "keycloak"', "type"),
        ('python_bin = "/usr/bin/python3"', "python_bin"),
        ('run_script = "/tmp/x.py"', "run_script"),
        ('flaskenv = { X = "{keycloak.client_secret}" }', "flaskenv"),
        ('environment = { API_TOKEN = "x" }', "environment"),
        ("colour = 3", "colour"),
        ('shared_paths = ["../core/keys"]', "shared_paths"),
        ('install.constraints = ["--index-url=https://example.org"]', "install.constraints"),
        ('install.constraints = ["x @ file:///etc"]', "install.constraints"),
        ('install.requirements = "/etc/passwd"', "install.requirements"),
        ('install.interpreter = "/bin/sh"', "install.interpreter"),
        # It is run outside the sandbox, and may be a file that the version that serves has made.
        (
            'install.interpreter = "/home/hive/.local/share/hivematrix/modules/desk/shared/python3"',
            "install.interpreter",
        ),
        ('install.interpreter = "/usr/bin/python3"', "install.interpreter"),
        # What is named is bound into the unit where it is hidden otherwise.
        ('start_command = ["~/.ssh/id"]', "start_command"),
        ('start_command = ["/home/hive/letters"]', "start_command"),
        ('start_command = ["/usr/../home/hive/letters"]', "start_command"),
        ('production.start_command = ["/srv/run"]', "production.start_command"),
        ('pre_start = ["/home/hive/letters"]', "pre_start"),
        ('reload_command = ["../../../core/shared/keys/key"]', "reload_command"),
        ('environment = { PATH = "/usr/bin:/home/hive/letters" }', "environment"),
        ('development.environment = { PATH = "/home/hive" }', "development.environment"),
    ],
)
def test_a_repository_can_not_declare_what_is_the_admins(line: str, key: str) -> None:
    declared, faults = read_declared("desk", f"[service]\nport = 5099\n{line}\n")
    assert not declared.text
    assert [fault.where for fault in faults] == [f"service.{key}"]


@pytest.mark.parametrize(
    "line",
    [
        'install.interpreter = "python3.12"',
        'start_command = ["/usr/bin/env", "x"]',
        'start_command = ["bin/run", "/home/x"]',
        'pre_start = "python prepare.py"',
        'environment = { PATH = "/opt/x/bin:/usr/bin:", HOME = "/srv" }',
    ],
)
def test_a_repository_declares_programs_of_its_own_and_of_the_system(line: str) -> None:
    assert read_declared("desk", f"[service]\nport = 5099\n{line}\n")[1] == []


def test_a_repository_declares_no_other_service() -> None:
    _, faults = read_declared("desk", "[services.core]\nport = 1\n")
    assert [fault.where for fault in faults] == ["services"]


def test_the_admins_file_wins_over_what_a_module_declares(account: Layout) -> None:
    declared, faults = read_declared(
        "desk",
        '[service]\nport = 5099\ndescription = "Desk"\nhealth.timeout = 2.5\ninstall.migrate = ["bin/migrate"]\n',
    )
    assert not faults
    entry = entry_text("desk", "modules/desk/versions/x", "https://example.org/desk", "main")
    sources = [
        ConfigSource("declared.toml", declared.text, catalogue=True),
        ConfigSource("services.toml", '[services.desk]\ndescription = "Ours"\n'),
        ConfigSource("services.d/desk.toml", entry),
    ]
    service = read_registry(sources, {})["desk"]
    assert (service.port, service.description, service.path) == (5099, "Ours", "modules/desk/versions/x")
    assert (service.install.migrate, service.health.timeout) == (("bin/migrate",), 2.5)


def test_a_profile_that_guards_nothing_is_noticed() -> None:
    assert read_declared("desk", '[service]\nhardening = "off"\n')[0].unguarded
    assert not read_declared("desk", '[service]\nhardening = "strict"\n')[0].unguarded


def test_state_of_a_module_is_beside_its_versions(account: Layout) -> None:
    places = account.module("desk")
    directory = places.version("20261128T221502Z-0123456789ab")
    shared = (".flaskenv", "instance")
    assert account.module_of(directory) == places
    assert account.state_directory(directory, "instance/desk.conf", shared) == places.shared
    assert account.state_directory(directory, "instances", shared) == directory
    assert account.state_directory(account.data / "hivematrix-desk", ".flaskenv", shared) != places.shared
    assert account.module_of(account.data / "hivematrix-desk") is None


def test_errors_have_codes() -> None:
    assert issubclass(RecordError, HelmError) and RecordError.code == "module_record"
