"""The file of the keys with which Helm signs what it writes to the journal."""

import multiprocessing
import os
import stat
from pathlib import Path
from typing import cast

import pytest

from helmd.journal.keys import JournalKeys
from helmd.model.errors import DeniedError
from helmd.model.ingest.signature import SigningKey, is_authentic
from helmd.model.layout import layout
from helmd.model.logs.parsing.journal_fields import Value
from helmd.model.suite.names import HMAC_FIELD
from tests.waiting import WITHIN


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "secrets" / "journal.keys"


def fields_from(lines: list[bytes]) -> dict[str, Value]:
    return {name.decode(): value for name, _, value in (line.partition(b"=") for line in lines)}


def believed(keys: JournalKeys, lines: list[bytes]) -> bool:
    fields = fields_from(lines)
    return is_authentic(fields, int(cast(bytes, fields["HIVEMATRIX_WRITTEN"])), keys.keys())


def test_it_is_among_the_secrets_and_only_the_account_can_read_it(path: Path) -> None:
    keys = JournalKeys(path)
    assert keys.keys() == () and not path.exists(), "reading creates nothing"
    (key,) = keys.ensure()
    assert len(key.secret) == 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert keys.ensure() == JournalKeys(path).keys() == (key,)
    places = layout({}, Path("/home/hive"), 1000, Path("/usr"))
    assert places.journal_keys.parent == places.secrets
    path.chmod(0o644)
    assert JournalKeys(path).keys() == (key,)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600, "others may not read it any more"


def _create(path: Path, barrier: "multiprocessing.synchronize.Barrier", queue: "multiprocessing.Queue[bytes]") -> None:
    keys = JournalKeys(path)
    barrier.wait()
    queue.put(keys.ensure()[-1].secret)


def test_of_several_creators_one_creates_it(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("fork")
    for attempt in range(10):
        path = tmp_path / str(attempt) / "journal.keys"
        barrier, queue = spawn.Barrier(4), spawn.Queue()
        creators = [spawn.Process(target=_create, args=(path, barrier, queue)) for _ in range(4)]
        for creator in creators:
            creator.start()
        secrets = {queue.get(timeout=WITHIN) for _ in creators}
        for creator in creators:
            creator.join()
        assert secrets == {JournalKeys(path).keys()[0].secret}
        assert [file.name for file in path.parent.iterdir()] == ["journal.keys"]


def test_a_link_is_not_followed(path: Path, tmp_path: Path) -> None:
    JournalKeys(tmp_path / "elsewhere").ensure()
    path.parent.mkdir()
    path.symlink_to(tmp_path / "elsewhere")
    keys = JournalKeys(path)
    assert keys.keys() == () and keys.trouble
    with pytest.raises(DeniedError, match="cannot be read"):
        keys.ensure()
    path.unlink()
    path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(DeniedError):
        JournalKeys(path).ensure()
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("kind", ["directory", "fifo"])
def test_what_is_not_a_regular_file_is_not_read(path: Path, kind: str) -> None:
    path.parent.mkdir()
    if kind == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()
    keys = JournalKeys(path)
    assert keys.keys() == () and keys.trouble
    assert HMAC_FIELD.encode() not in b"".join(keys.sign({"MESSAGE": "m"}))


def test_a_key_is_added_and_the_old_one_verifies_what_it_signed(path: Path) -> None:
    keys = JournalKeys(path)
    first = keys.sign({"MESSAGE": "first"})
    assert believed(keys, first)
    (old,) = keys.keys()
    with path.open("a") as file:
        file.write(f"{old.since / 1_000_000 + 3600:.6f} {'ab' * 32}\n")
    assert keys.keys() == (old, SigningKey(old.since + 3_600_000_000, bytes.fromhex("ab" * 32)))
    second = keys.sign({"MESSAGE": "second"})
    assert believed(keys, first) and believed(keys, second)
    reader = JournalKeys(path)
    assert believed(reader, first) and believed(reader, second)


def test_faulty_lines_are_reported_and_the_others_used(path: Path) -> None:
    keys = JournalKeys(path)
    (key,) = keys.ensure()
    path.write_text(f"{'ab' * 32}\n{path.read_text()}12 beef\n\n")
    assert keys.keys() == (key,)
    assert "invalid line 1, 3" in keys.trouble and "ab" * 10 not in keys.trouble
    path.write_text("nothing\n")
    with pytest.raises(DeniedError):
        keys.ensure()
    assert keys.sign({"MESSAGE": "m", "HIVEMATRIX_DETAIL": ""}) == [b"MESSAGE=m"], "it is written all the same"
    path.unlink()
    assert keys.keys() == () and keys.trouble == ""


def test_text_that_is_not_utf_8_is_signed_all_the_same(path: Path) -> None:
    """An argument of helmctl's can be any bytes, which Python gives as lone surrogates."""
    keys = JournalKeys(path)
    lines = keys.sign({"MESSAGE": "restart core: done: \udcff", "HIVEMATRIX_REASON": "\udcff"})
    assert b"HIVEMATRIX_REASON=?" in lines
    assert believed(keys, lines)
    path.write_text("")
    assert b"HIVEMATRIX_REASON=?" in keys.sign({"HIVEMATRIX_REASON": "\udcff"}), "without a key it is not signed"


def test_creating_never_raises(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    JournalKeys(path).create()
    assert len(JournalKeys(path).keys()) == 1
    blocked = JournalKeys(path / "below a file" / "journal.keys")
    blocked.create()
    assert blocked.trouble
    assert blocked.trouble in caplog.text
