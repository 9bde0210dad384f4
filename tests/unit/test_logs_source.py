"""``helmctl logs`` as a command: reading from helmd, from the journal if that is unavailable, and exit codes."""

import json
import os
import pwd
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiohttp import web

from helmd.cli import exits
from helmd.cli.logs import source as log_source
from helmd.cli.logs.source import opened, store_has
from helmd.cli.logs.store import StoreLines
from helmd.journal.query import JournalQuery, Wanted
from helmd.model.layout import Layout, layout
from tests.store.journals import UID, append, line
from tests.unit.helmd_stand_in import LIMITS, StandIn, row, stand_in
from tests.waiting import WITHIN

TOP = Path(__file__).resolve().parents[2]
HELMCTL = TOP / "helmctl.py"
HELMCTL_WITH_LONG_LIMITS = f"""
import runpy, sys
sys.argv[0] = {str(HELMCTL)!r}
sys.path.insert(0, {str(TOP)!r})
from helmd.cli.logs import store
for limit in {LIMITS!r}:
    setattr(store, limit, {WITHIN})
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""helmctl with the time for helmd's answers that `stand_in` gives this process."""


@pytest.fixture
def helmd(tmp_path: Path) -> Iterator[StandIn]:
    (tmp_path / ".config/hivematrix").mkdir(parents=True)
    with stand_in(tmp_path / "run" / "hivematrix") as made:
        yield made


def environment(helmd: StandIn) -> dict[str, str]:
    home = helmd.socket.parents[2]
    return {"HOME": str(home), "XDG_RUNTIME_DIR": str(home / "run"), "PATH": os.environ["PATH"], "TZ": "UTC"}


def command(*words: str) -> list[str]:
    # Root's own suite; for anybody else the option names who runs it anyway.
    account = pwd.getpwuid(os.getuid()).pw_name
    return [sys.executable, "-c", HELMCTL_WITH_LONG_LIMITS, "--account", account, "logs", *words]


def helmctl(helmd: StandIn, *words: str) -> tuple[int, str, str]:
    done = subprocess.run(command(*words), env=environment(helmd), capture_output=True, text=True, timeout=WITHIN)
    return done.returncode, done.stdout, done.stderr


def test_output_is_only_the_lines(helmd: StandIn) -> None:
    helmd.add(*(row(n, level="ERROR" if n == 3 else "INFO") for n in range(1, 5)))
    code, out, err = helmctl(helmd, "-n", "2")
    assert (code, err) == (0, "")
    assert out == "Nov 24 12:00:03 core[77] ERROR: line 3\nNov 24 12:00:04 core[77]: line 4\n"
    code, out, err = helmctl(helmd, "--json", "-r", "-p", "error", "core")
    assert (code, err) == (0, "")
    assert [json.loads(text)["id"] for text in out.splitlines()] == [3]
    assert helmctl(helmd, "-g", "nothing like it") == (1, "", "no lines\n")


def test_a_service_known_only_by_posted_lines_is_accepted(helmd: StandIn) -> None:
    helmd.add(row(1, service="guest", source="http"))
    assert helmctl(helmd, "-o", "cat", "guest") == (0, "line 1\n", "")
    for name in ("ghost", "GUEST"):
        code, out, err = helmctl(helmd, name)
        assert (code, out) == (4, "") and f"there is no service '{name}'" in err


def test_without_helmd_the_journal_is_read_with_one_notice(helmd: StandIn) -> None:
    helmd.stop()
    code, out, err = helmctl(helmd, "-n", "5", "--since", "@1", "--until", "@2")
    assert (code, out) == (0, "")
    assert err.startswith("helmd can't be reached; reading the journal instead\nno lines\n")
    code, out, err = helmctl(helmd, "--journal", "-n", "5", "--until", "@2")
    assert (code, out) == (0, "") and err.startswith("no lines\n")
    assert helmctl(helmd, "ghost")[0] == 4
    # A query may be for the lines of one that is gone.
    code, out, err = helmctl(helmd, "--journal", "service:ghost")
    assert (code, out) == (1, "") and "there is no service 'ghost'" in err


def test_an_unavailable_database_is_named(helmd: StandIn) -> None:
    helmd.failure = lambda: web.json_response({"code": "store", "detail": "gone"}, status=503)
    code, _, err = helmctl(helmd, "--until", "@2")
    assert code == 0
    assert err.startswith("helmd's database can't be reached; reading the journal instead\n")


@pytest.mark.parametrize("way", ["interrupt", "closed pipe"])
def test_following_ends_without_a_message(helmd: StandIn, way: str) -> None:
    helmd.add(row(1))
    running = subprocess.Popen(
        command("-f", "-o", "cat"),
        env=environment(helmd),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert running.stdout is not None and running.stderr is not None
    try:
        assert running.stdout.readline() == b"line 1\n"
        helmd.add(row(2))
        assert running.stdout.readline() == b"line 2\n"
        if way == "interrupt":
            running.send_signal(signal.SIGINT)
            assert running.wait(WITHIN) == -signal.SIGINT
        else:
            running.stdout.close()
            assert running.wait(WITHIN) == 0
        assert running.stderr.read() == b""
    finally:
        running.kill()
        running.wait()


@pytest.fixture
def printed_at() -> int:
    """Return when core printed the last line in the journal of `places`, in microseconds."""
    return time.time_ns() // 1000


@pytest.fixture
def places(helmd: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, printed_at: int) -> Layout:
    """Return a journal in which core printed a line a minute ago and another one just now."""
    now = printed_at
    files = tmp_path / "journal"
    files.mkdir()
    at = [("a minute ago", now - 60_000_000), ("now", now)]
    began = now - 100_000_000
    append(files / "test.journal", [line(text, when - began, realtime=when) for text, when in at])

    def query(uid: int, wanted: Wanted, keys_file: Path | None = None) -> JournalQuery:
        return JournalQuery(UID, wanted, files, keys_file)

    monkeypatch.setattr(log_source, "JournalQuery", query)
    return layout(environment(helmd), tmp_path, UID, TOP)


def answer(places: Layout, wanted: Wanted | None = None, *, from_journal: bool = False) -> tuple[list[str], list[str]]:
    """Return the messages and the notices."""
    notified: list[str] = []
    with opened(places, wanted or Wanted(), None, False, False, from_journal, notified.append) as (source, lines):
        assert from_journal or isinstance(source, StoreLines)
        return [found.row.message for found in lines], notified


def test_a_lagging_store_is_reported(
    helmd: StandIn, places: Layout, monkeypatch: pytest.MonkeyPatch, printed_at: int
) -> None:
    monkeypatch.setattr(log_source, "_LAG", timedelta(seconds=55))
    now = datetime.fromtimestamp(printed_at / 1e6, UTC)
    notified = "the log store is far behind the journal; use --journal for newer lines"
    assert answer(places) == ([], [notified])
    helmd.add(row(1, timestamp=now - timedelta(seconds=120), source="journal"))
    messages, said = answer(places)
    assert messages == ["line 1"]
    assert len(said) == 1
    assert re.fullmatch(r"the log store is (59s|1min.*) behind the journal; use --journal for newer lines", said[0])
    assert answer(places, Wanted(services=frozenset({"nexus"}))) == ([], [])
    assert answer(places, from_journal=True) == (["a minute ago", "now"], [])
    # What is newer than that need not be there yet.
    helmd.add(row(2, timestamp=now - timedelta(seconds=60), source="journal"))
    assert answer(places) == (["line 1", "line 2"], [])


def test_posted_lines_do_not_hide_the_lag(helmd: StandIn, places: Layout) -> None:
    helmd.add(row(1, timestamp=datetime.now(UTC), source="http"))
    assert answer(places)[1] == ["the log store is far behind the journal; use --journal for newer lines"]


def test_the_current_boot_begins_with_the_kernel(places: Layout) -> None:
    from helmd.journal.query import this_boot

    boot = log_source._boot(places, this_boot())
    up = float(Path("/proc/uptime").read_text().split()[0])
    assert abs((datetime.now(UTC) - boot.began).total_seconds() - up) < 60
    assert boot.lines_after < boot.began


def test_only_valid_service_names_are_requested(helmd: StandIn, places: Layout) -> None:
    assert not store_has(places, "a,b") and helmd.asked == []


def test_a_query_that_cannot_be_parsed_is_refused_with_its_place(helmd: StandIn) -> None:
    code, out, err = helmctl(helmd, "core", "sevice:x level>=error")
    assert (code, out) == (exits.USAGE, "")
    assert "query: there is no field 'sevice' (at character 1)" in err and "Fields: service, level" in err


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("helmctl logs level>=w", ["level>=warning"]),
        ("helmctl logs core str", ["stream:"]),
        # As bash takes it apart.
        ("helmctl logs source : ht", ["http"]),
    ],
)
def test_terms_of_a_query_are_completed(helmd: StandIn, words: str, found: list[str]) -> None:
    given = {"_HELMCTL_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    done = subprocess.run(
        [sys.executable, str(HELMCTL)], env=environment(helmd) | given, capture_output=True, text=True, timeout=WITHIN
    )
    assert [line.partition(",")[2] for line in done.stdout.splitlines()] == found, done.stderr
