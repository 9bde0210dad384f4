"""Converting the older services.json to services.toml, or reporting an error without writing a file."""

import json
import os
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helmd.model.config.settings import Settings
from helmd.model.config.toml_text import toml_text
from helmd.model.errors import ConfigurationError, UsageError
from helmd.model.layout import Layout, layout
from helmd.model.suite.services_json import Document, Legacy, read_legacy
from helmd.operations.configuration.import_json import plan_import, write_import
from helmd.operations.configuration.load import load_suite

SHARE = Path(__file__).resolve().parents[2]

OLDER: dict[str, dict[str, Any]] = {
    "codex": {
        "path": "../hivematrix-codex",
        "port": 5010,
        "python_bin": "pyenv/bin/python",
        "run_script": "run.py",
        "url": "http://localhost:5010",
        "visible": True,
    },
    "core": {"path": "../hivematrix-core", "port": 5000, "url": "http://localhost:5000", "visible": False},
    "helm": {"admin_only": True, "path": ".", "port": 5004, "url": "http://localhost:5004"},
    "keycloak": {
        "path": "../keycloak-26.4.0",
        "port": 8080,
        "start_command": "bin/kc.sh start-dev",
        "type": "keycloak",
        "url": "http://localhost:8080",
        "visible": False,
    },
    "nexus": {"path": "../hivematrix-nexus", "port": 443, "url": "https://localhost:443", "python_bin": "../py/python"},
    "ticker": {"path": "/opt/ticker", "start_command": "bin/ticker --every 5", "colour": "red", "port": None},
}

texts = st.text(st.characters(blacklist_categories=("Cs",)))
values = st.recursive(
    texts | st.integers() | st.booleans(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(texts, values, max_size=6))
def test_written_toml_round_trips(table: dict[str, Any]) -> None:
    assert tomllib.loads(toml_text(table)) == table


@pytest.mark.parametrize("value", ["\ud800", "a\udfff", 1.5, None, [None], {"a": 2.0}])
def test_values_that_toml_does_not_support_are_refused(value: object) -> None:
    with pytest.raises(ValueError, match="cannot be written as TOML"):
        toml_text({"key": value})


def read(content: object, name: str = "services.json") -> Legacy:
    return read_legacy([Document(name, json.dumps(content), "/srv/old/hivematrix-helm")])


def faults_of(*texts: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        read_legacy([Document(f"{number}.json", text, "/srv") for number, text in enumerate(texts)])
    return [str(fault) for fault in caught.value.faults]


def test_entries_mean_the_same_and_paths_are_absolute() -> None:
    legacy = read(OLDER)
    assert set(legacy.services) == {"codex", "core", "keycloak", "nexus", "ticker"}
    assert legacy.services["codex"] == OLDER["codex"] | {"path": "/srv/old/hivematrix-codex"}
    assert legacy.services["ticker"] == {
        "type": "command",
        "path": "/opt/ticker",
        "start_command": "bin/ticker --every 5",
    }
    assert legacy.services["nexus"]["python_bin"] == "/srv/old/py/python"
    assert legacy.services["keycloak"] == {
        "type": "keycloak",
        "port": 8080,
        "url": "http://localhost:8080",
        "visible": False,
    }
    notified = "\n".join(legacy.remarks)
    assert "helm: ignored" in notified
    assert "ticker: unknown field colour" in notified
    assert "keycloak: path and start_command ignored" in notified


def test_files_are_merged_and_must_not_conflict() -> None:
    master = {"core": {"url": "http://localhost:5000", "port": 5000, "description": "Tokens"}}
    documents = [Document("a", json.dumps(OLDER), "/srv"), Document("b", json.dumps(master), "/srv")]
    assert read_legacy(documents).services["core"]["description"] == "Tokens"
    assert faults_of('{"core": {"port": 1}}', '{"core": {"port": 2}}') == [
        "1.json: core.port: differs from the value in 0.json"
    ]


@pytest.mark.parametrize(
    ("text", "notified"),
    [
        ("", "not valid JSON"),
        ("[]", "must be an object"),
        ("null", "must be an object"),
        ("{}", "names no service"),
        ('{"helm": {}}', "names no service"),
        ('{"core": 5}', "core: must be an object"),
        ('{"core": {}, "core": {}}', "duplicate key core"),
        ('{"Core": {}}', "lower-case letter"),
        ('{"postgres": {}}', "reserved"),
        ('{"job-1": {}}', "reserved"),
        ('{"..": {}}', "lower-case letter"),
        ('{"a\\nb": {}}', r"'a\nb'"),
        ('{"b\u00fccher": {}}', "lower-case letter"),
        ('{"\\u0000": {}}', r"'\x00'"),
        ('{"core": {"port": 5000.5}}', "core.port: can't be 5000.5"),
        ('{"core": {"url": {"a": 1}}}', "core.url: can't be"),
        ('{"core": {"description": "\\ud800"}}', "unpaired surrogate"),
        ('{"core": {"depends_on": [1]}}', "list of service names"),
        ('{"core": {"port": ' + "9" * 5000 + "}}", "can't be read"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
        ('{"core": {"description": "' + "x" * (1 << 20) + '"}}', "larger than 1 MiB"),
        ('{"core": {"port": NaN}}', "can't be nan"),
    ],
)
def test_hostile_documents_are_clear_errors(text: str, notified: str) -> None:
    found = faults_of(text)
    assert any(notified in fault for fault in found), found
    assert all(fault.isprintable() for fault in found)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner, max_size=5)
            | st.dictionaries(
                st.sampled_from(["core", "port", "path", "helm", "type", "x"]) | st.text(max_size=9), inner, max_size=5
            )
        ),
        max_leaves=12,
    )
)
def test_any_json_is_read_or_refused(content: object) -> None:
    try:
        legacy = read(content)
    except ConfigurationError as error:
        assert error.faults
    else:
        assert tomllib.loads(toml_text({"services": legacy.services})) == {"services": legacy.services}


@pytest.fixture
def place(tmp_path: Path) -> Layout:
    return layout({}, tmp_path / "home", 1000, SHARE)


def older_file(tmp_path: Path, content: object = OLDER) -> Path:
    directory = tmp_path / "hivematrix-helm"
    directory.mkdir(exist_ok=True)
    file = directory / "services.json"
    file.write_text(json.dumps(content))
    return file


def test_an_import_joins_the_suite(place: Layout, tmp_path: Path) -> None:
    planned = plan_import([older_file(tmp_path)], None, place, Settings())
    write_import(planned, force=False)
    assert planned.target.stat().st_mode & 0o777 == 0o644
    suite = load_suite(place, Settings())
    assert suite["codex"].path == str(tmp_path / "hivematrix-codex")
    assert suite["core"].depends_on == ("keycloak",)
    assert suite["ticker"].start_command == ("bin/ticker", "--every", "5")
    missing = f"codex.path: directory {tmp_path}/hivematrix-codex does not exist; get it with: git clone "
    assert any(remark.startswith(missing) for remark in planned.remarks)
    with pytest.raises(UsageError, match="already exists"):
        write_import(planned, force=False)
    write_import(plan_import([older_file(tmp_path)], None, place, Settings()), force=True)
    assert load_suite(place, Settings()) == suite


def test_missing_dependencies_are_reported(place: Layout, tmp_path: Path) -> None:
    planned = plan_import([older_file(tmp_path, {"core": OLDER["core"]})], None, place, Settings())
    write_import(planned, force=False)
    assert load_suite(place, Settings())["core"].depends_on == ()
    assert "core: depends_on without keycloak, which is not part of the suite" in planned.remarks


def test_base_directory(place: Layout, tmp_path: Path) -> None:
    planned = plan_import([older_file(tmp_path)], tmp_path / "other" / "place", place, Settings())
    written = tomllib.loads(planned.text)["services"]
    assert written["core"]["path"] == str(tmp_path / "other" / "hivematrix-core")


def test_faults_name_the_older_file_and_nothing_is_written(place: Layout, tmp_path: Path) -> None:
    bad = {
        "core": {"path": "../x", "port": "5000"},
        "codex": {"path": "../y$(id)", "port": 5004},
        "nexus": {"path": "../z", "port": 5010, "url": "ftp://x"},
        "ledger": {"path": "../l", "port": 5010, "type": "docker"},
    }
    file = older_file(tmp_path, bad)
    with pytest.raises(ConfigurationError) as caught:
        plan_import([file], None, place, Settings())
    notified = [str(fault) for fault in caught.value.faults]
    for part in ("core.port: must be", "codex.path: must not", "nexus.url: must be", "ledger.type: must be one of"):
        assert any(fault.startswith(f"{file}: {part}") for fault in notified), (part, notified)
    assert not place.config.exists()


def test_invalid_files(place: Layout, tmp_path: Path) -> None:
    conf = tmp_path / "helm.conf"
    conf.write_text("[database]\nconnection_string = postgresql://a:b@c/d\n")
    with pytest.raises(UsageError, match=r"not a services\.json") as refused:
        plan_import([conf], None, place, Settings())
    assert "a:b" not in str(refused.value)
    binary, pipe, large = tmp_path / "binary", tmp_path / "pipe", tmp_path / "large"
    binary.write_bytes(b'{"core": "\xff"}')
    large.write_bytes(b"\xff" * (3 << 20))
    os.mkfifo(pipe)
    with pytest.raises(ConfigurationError) as caught:
        plan_import([tmp_path, binary, pipe, large, tmp_path / "missing"], None, place, Settings())
    notified = [fault.sentence for fault in caught.value.faults]
    assert notified == [
        "is not a regular file",
        "is not UTF-8 text",
        "is not a regular file",
        "is larger than 1 MiB",
        "can't be read (No such file or directory)",
    ]
