"""What set-up is given: taken over, or refused with a reason, and never passed over in silence."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from helmd.journal.keys import JournalKeys
from helmd.model.config.settings import Settings
from helmd.model.errors import ConfigurationError, UsageError
from helmd.model.layout import Layout, layout
from helmd.operations.configuration.load import load_settings
from helmd.operations.setup.setup import SetupOptions, prepare_files, public_origin, set_public_url

TOP = Path(__file__).resolve().parents[2]
DSN = "postgresql://helm@db.example/helm"


@pytest.fixture
def account(tmp_path: Path) -> Layout:
    return layout({}, tmp_path, os.getuid(), TOP)


def test_a_database_is_kept(account: Layout) -> None:
    notified: list[str] = []
    for _ in range(2):
        prepare_files(account, SetupOptions(database=DSN), notified.append)
    assert load_settings(account).store == DSN
    assert account.settings_file.stat().st_mode & 0o777 == 0o600
    assert not any(DSN in line for line in notified)


def test_the_key_of_the_journal_is_created_once(account: Layout) -> None:
    prepare_files(account, SetupOptions(), print)
    (key,) = JournalKeys(account.journal_keys).keys()
    prepare_files(account, SetupOptions(), print)
    assert JournalKeys(account.journal_keys).keys() == (key,)


def test_a_database_that_comes_too_late_is_refused(account: Layout) -> None:
    prepare_files(account, SetupOptions(), print)
    before = account.settings_file.read_text()
    with pytest.raises(UsageError):
        prepare_files(account, SetupOptions(database=DSN), print)
    assert account.settings_file.read_text() == before


def test_a_registry_that_is_no_text(account: Layout, tmp_path: Path) -> None:
    given = tmp_path / "given.toml"
    given.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match="1 fault"):
        prepare_files(account, SetupOptions(registry_file=given), print)
    assert not account.registry_file.exists()


@pytest.mark.parametrize(
    ("given", "origin"),
    [
        ("https://desk.example", "https://desk.example"),
        ("https://desk.example:443/", "https://desk.example"),
        ("https://desk.example:8443", "https://desk.example:8443"),
        ("HTTPS://Desk.EXAMPLE/", "https://desk.example"),
        ("http://desk.example:80", "http://desk.example"),
        ("http://desk.example:443", "http://desk.example:443"),
        ("https://[2001:db8::1]:443", "https://[2001:db8::1]"),
    ],
)
def test_the_suite_is_reached_at_the_top_of_a_host(given: str, origin: str) -> None:
    assert public_origin(given) == origin


@pytest.mark.parametrize(
    "given",
    ["desk.example", "ftp://desk.example", "https://", "https://desk.example/desk", "https://a:b@desk.example",
     "https://desk.example?x=1", "https://desk.example:0", "https://desk.example#x", "https://désk.example"],
)  # fmt: skip
def test_what_is_no_url_of_a_host_is_refused(given: str) -> None:
    with pytest.raises(UsageError):
        public_origin(given)


def test_a_url_is_set_in_the_file_that_counts_and_nothing_else_changes(account: Layout) -> None:
    prepare_files(account, SetupOptions(), print)
    text = "# mine\n[services.keycloak]\n[services.core]\n[services.nexus] # the gateway\nport = 8443\n"
    account.registry_file.write_text(text)
    said: list[str] = []
    for _ in range(2):
        set_public_url(account, Settings(), "https://desk.example", said.append)
    assert account.registry_file.read_text() == text.replace("port", 'url = "https://desk.example"\nport')
    assert said == [f"set url of nexus to https://desk.example ({account.registry_file})"]
    set_public_url(account, Settings(), "https://other.example", said.append)
    assert account.registry_file.read_text() == text.replace("port", 'url = "https://other.example"\nport')

    (account.registry_directory / "own.toml").write_text('[services.nexus]\nurl = "https://third.example"\n')
    before = account.registry_file.read_text()
    with pytest.raises(UsageError, match="sets url of nexus"):
        set_public_url(account, Settings(), "https://desk.example", said.append)
    assert account.registry_file.read_text() == before
    account.registry_file.write_text("[services.keycloak]\n")
    (account.registry_directory / "own.toml").unlink()
    with pytest.raises(UsageError, match="has no gateway"):
        set_public_url(account, Settings(), "https://desk.example", said.append)


def test_what_helm_toml_shows_can_be_uncommented(account: Layout) -> None:
    """But for defaults that follow from other settings, which are words."""
    prepare_files(account, SetupOptions(), print)
    lines = account.settings_file.read_text().replace("http://localhost:PORT", "http://localhost:5004").splitlines()
    shown = [line.removeprefix("#") for line in lines if not line.startswith("# ") and "that of the" not in line]
    account.settings_file.write_text("\n".join(shown))
    assert replace(load_settings(account), backup_directory="") == Settings()
