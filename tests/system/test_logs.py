"""``helmctl logs`` in the booted demo: from the store, with helmd or its database away, followed across a restart."""

import json
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from helmd.model.suite.names import HELMD_UNIT, SOCKET_UNITS
from tests.system import printed_lines
from tests.system.booted import TOP, Sandbox, until

AWAY = "helmd can't be reached; reading the journal instead\n"
DATABASE_AWAY = "helmd's database can't be reached; reading the journal instead\n"
HABIT_SECONDS = 0.15
"""What ``helmctl logs -n 20`` may take, by the clock of the machine, the best of some."""


@contextmanager
def stopped(box: Sandbox, unit: str) -> Iterator[None]:
    # Its sockets before helmd, which a connection would start again.
    box("systemctl", "--user", "stop", *(SOCKET_UNITS if unit == HELMD_UNIT else ()), unit)
    try:
        yield
    finally:
        box("systemctl", "--user", "start", unit)
        until(lambda: box.helmctl("logs", "-n", "1").err == "", 60)


def cat(box: Sandbox, *words: str) -> list[str]:
    return box.helmctl("logs", "-o", "cat", *words).out.splitlines()


@pytest.fixture(scope="module")
def printed(demo: Sandbox) -> Iterator[printed_lines.Printer]:
    """A service that has printed 3,000 lines, which are stored."""
    try:
        made = printed_lines.register(demo, 3000, rate=3000)
        demo.helmctl("start", made.name)
        until(lambda: made.count() >= 3000, 60)
        yield made
    finally:
        demo.unregister()


def test_store_and_journal_have_the_same_lines_in_the_same_order(demo: Sandbox, printed: printed_lines.Printer) -> None:
    every = [f"line {n}" for n in range(1, 3001)]

    def lines(*words: str) -> list[str]:
        return [text for text in cat(demo, *words, printed.name) if text.startswith("line ")]

    for where in ((), ("--journal",)):
        assert lines(*where) == every
        assert lines("-r", *where) == every[::-1]
        last = lines("-n", "1500", *where)
        # systemd says that the service is started while it prints.
        assert 1490 <= len(last) <= 1500 and last == every[-len(last) :]
        assert lines("-b", "-g", r"^line \d{3}$", "-n", "10", *where) == [f"line {n}" for n in range(990, 1000)]
        assert lines("--since", "1 hour ago", "--until", "now", "--stdout", *where) == every
        assert lines("--stderr", *where) == []
    assert lines("-g", "line 1$") == ["line 1"]
    # As journalctl does.
    none = demo.helmctl("logs", "-o", "cat", "-g", "LINE 1$", printed.name, check=False)
    assert (none.code, none.out) == (1, "")


def test_a_line_is_there_soon_after_it_was_printed(demo: Sandbox) -> None:
    """Its actions too: this one is Helm's own."""
    demo.helmctl("restart", "ticker", "--reason", "a test of the log")
    found = until(lambda: [text for text in cat(demo, "-n", "50", "ticker") if "a test of the log" in text], 30)
    assert len(found) == 1


@pytest.mark.alone
def test_habit_is_quick(demo: Sandbox) -> None:
    once = "s=$(date +%s%N); helmctl logs -n 20 >/dev/null; e=$(date +%s%N); echo $(((e-s)/1000))"
    loop = f"for i in 1 2 3 4 5 6 7 8 9; do {once}; done"
    taken = [int(word) / 1e6 for word in demo.shell(loop).out.split()]
    print(f"helmctl logs -n 20: {sorted(taken)[4] * 1000:.0f} ms, at best {min(taken) * 1000:.0f} ms")
    assert min(taken) < HABIT_SECONDS


def test_json_has_the_names_of_the_api(demo: Sandbox) -> None:
    answer = demo.shell(
        "curl -s --unix-socket $XDG_RUNTIME_DIR/hivematrix/helm.sock 'http://helm/api/logs?service=ticker&limit=1'"
    )
    there = json.loads(answer.out)["logs"][0]
    shown = json.loads(demo.helmctl("logs", "--json", "-n", "1", "ticker").out)
    assert shown.keys() == there.keys() - {"duplicate_of"}


@pytest.mark.parametrize(
    ("unit", "said"), [("helmd.service", AWAY), ("helmd-postgres.service", DATABASE_AWAY)], ids=["helmd", "database"]
)
def test_journal_when_it_is_away(demo: Sandbox, unit: str, said: str) -> None:
    """The README's commands among them."""
    with stopped(demo, unit):
        for words in (("-n", "20", "core", "nexus"), ("--since", "1 hour ago", "-g", "health", "-n", "5")):
            done = demo.helmctl("logs", *words)
            assert done.err == said, words
            assert done.out.strip() and done.seconds < 5
        assert demo.helmctl("logs", "--journal", "-n", "1").err == ""
        assert demo.helmctl("logs", "no-such-service", check=False).code == 4
        # ^C ends it; until then it is the journal's.
        followed = demo.shell("timeout -s INT 3 helmctl logs -f -n 1 -o cat ticker", check=False)
        assert len(followed.out.splitlines()) > 1 and said in followed.err


def test_a_store_that_lags_is_reported(demo: Sandbox) -> None:
    with stopped(demo, "helmd-journal.service"):
        said = until(lambda: demo.helmctl("logs", "-n", "5", "ticker").err, 30, pause=1)
        assert "behind the journal; use --journal for newer lines" in said


def test_followers_see_each_line_once_across_restarts_of_helmd(box: Sandbox) -> None:
    """Restarted, killed, and with its database away, while a line comes every five milliseconds."""
    count = 3000
    printer = printed_lines.register(box, count, rate=200)
    box.helmctl("start", printer.name)
    follow = f"echo $$ >&2; exec helmctl logs -f -n 0 -o cat --stdout --since '5 min ago' {printer.name}"
    running = subprocess.Popen(
        [str(TOP / "scripts/sandbox"), "exec", "--name", box.name, "--", "bash", "-c", follow],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert running.stderr is not None
    process = running.stderr.readline().strip()
    try:
        time.sleep(3)
        box("systemctl", "--user", "restart", "helmd.service")
        time.sleep(2)
        printed_lines.kill_main_process(box, "helmd.service")
        time.sleep(2)
        box("systemctl", "--user", "restart", "helmd-postgres.service")
        until(lambda: printer.count() >= count, 120, pause=0.5)
        time.sleep(3)
    finally:
        box("kill", "-INT", process, check=False)
        out, err = running.communicate(timeout=30)
    seen = [text for text in out.splitlines() if text.startswith("line ")]
    first = int(seen[0].split()[1])
    assert first < count // 2
    printed_lines.check_same_lines(Counter(seen), Counter(f"line {n}" for n in range(first, count + 1)))
    assert "skipped" not in err


def test_a_reader_who_has_seen_enough_ends_it(demo: Sandbox) -> None:
    # Tests before this one end the store's PostgreSQL.
    until(lambda: demo.helmctl("logs", "-n", "1").err == "", 60)
    done = demo.shell("helmctl logs -o cat | head -n 1; echo ${PIPESTATUS[0]}")
    assert len(done.out.splitlines()) == 2 and done.err == ""
    done = demo.shell("timeout 20 helmctl logs -f -n 5 -o cat ticker | head -n 3 | wc -l")
    assert (done.out.strip(), done.err) == ("3", "")
