"""What set-up is given: taken over, or refused with a reason, and never passed over in silence."""

import os
from pathlib import Path

import pytest

from helmd.journal.keys import JournalKeys
from helmd.model.errors import ConfigurationError, UsageError
from helmd.model.layout import Layout, layout
from helmd.operations.configuration.load import load_settings
from helmd.operations.setup.setup import SetupOptions, prepare_files

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
