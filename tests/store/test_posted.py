"""What is posted over real HTTP, in a real PostgreSQL: odd bodies, repeats, the store away and back."""

import asyncio
import json
import struct
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from helmd.journal.reader import JournalReader
from helmd.model.errors import StoreError
from helmd.model.ingest.journal_codec import all_posted
from helmd.model.ingest.own_entries import PostedRow
from helmd.model.ingest.token_bucket import Rates
from helmd.model.logs.entry import HTTP, MESSAGE_LIMIT, LogRow
from helmd.model.logs.parsing.journal_fields import Value
from helmd.operations.logs.posted import PostedLogs
from helmd.store.ingest import requests
from helmd.store.ingest.logs import Appender
from helmd.store.ingest.requests import PostedStore, admit, drop_old_requests
from helmd.store.maintenance.migrate import migrate
from helmd.store.session import connect
from helmd.web.api import ingest
from tests.fixtures import posted_batches
from tests.signing import OWN, posted_fields, read_own
from tests.store.conftest import Cluster, Database
from tests.store.ingest_bodies import NOW, REFUSED, STORED, Refused, Stored
from tests.store.ingest_server import LOGS, METRICS, Journal, Served, serving, user_token
from tests.store.journals import BOOT_A, START, UID, append
from tests.store.proxy import Proxy
from tests.waiting import WITHIN, eventually


@pytest.fixture(scope="module")
def filled(cluster: Cluster) -> Iterator[Database]:
    """Yield one database for all odd bodies: making one takes longer than posting."""
    cluster.execute("CREATE DATABASE helm_posted OWNER helm_owner")
    database = Database(cluster, "helm_posted")
    # asyncio.run() would leave this thread without an event loop, which newer versions of pytest-asyncio ask for.
    with closing(asyncio.new_event_loop()) as loop:
        loop.run_until_complete(migrate(database.owner, "helm"))
    try:
        yield database
    finally:
        cluster.execute("DROP DATABASE helm_posted WITH (FORCE)")


@pytest.fixture
async def bodies(filled: Database, tmp_path: Path) -> AsyncIterator[tuple[Served, Database, int]]:
    """With the newest id there is."""
    newest = filled.query("SELECT coalesce(max(id), 0) FROM log_entries")[0][0]
    assert isinstance(newest, int)
    async with serving(filled.store, tmp_path) as served:
        yield served, filled, newest


def rows_after(database: Database, newest: int, *columns: str) -> list[dict[str, Any]]:
    if not columns:
        count = database.query("SELECT count(*) FROM log_entries WHERE id > %s", newest)[0][0]
        return [{}] * int(str(count))
    found = database.query(f"SELECT {', '.join(columns)} FROM log_entries WHERE id > %s ORDER BY id", newest)
    return [dict(zip(columns, row, strict=True)) for row in found]


@pytest.mark.parametrize("case", STORED, ids=str)
async def test_what_has_a_sensible_reading_is_stored(bodies: tuple[Served, Database, int], case: Stored) -> None:
    served, database, newest = bodies
    before = datetime.now(UTC)
    status, answer, _ = await served.post(case.sent, raw=True)
    count = len(case.rows)
    assert (status, answer) == (
        200,
        {"success": True, "ingested": count, "message": f"Successfully ingested {count} log entries"},
    )
    expected = [dict(row) for row in case.rows]
    found = rows_after(database, newest, *(case.rows[0] if case.rows else ()))
    for row, wanted in zip(found, expected, strict=False):
        if wanted.get("timestamp") == NOW:
            wanted["timestamp"] = row["timestamp"]
            assert before <= row["timestamp"] <= datetime.now(UTC)
    assert found == expected


@pytest.mark.parametrize("case", REFUSED, ids=str)
async def test_what_has_none_is_refused_whole(bodies: tuple[Served, Database, int], case: Refused) -> None:
    served, database, newest = bodies
    status, answer, headers = await served.post(case.sent, raw=True, **case.headers)
    assert (status, headers["Content-Type"]) == (case.status, "application/problem+json")
    assert case.words in answer["error"]
    assert answer["error"] == answer["detail"]
    assert rows_after(database, newest) == []


async def test_what_older_clients_send_is_taken(bodies: tuple[Served, Database, int]) -> None:
    served, database, newest = bodies
    sent = posted_batches()
    now = datetime.now(UTC).replace(tzinfo=None)
    for body in sent:
        for number, log in enumerate(body["logs"]):
            log["timestamp"] = (now - timedelta(seconds=100 - number)).isoformat()
        token = user_token("technician")
        status, answer, _ = await served.post(body, token=token)
        assert (status, answer["ingested"]) == (200, len(body["logs"]))
    found = rows_after(database, newest, "service_name", "message", "level", "source")
    assert len(found) == sum(len(body["logs"]) for body in sent)
    assert not any("\x1b" in row["message"] for row in found)
    assert {
        "service_name": "core",
        "message": '"POST /service-token HTTP/1.1" 400',
        "level": "WARNING",
        "source": "http",
    } in found


async def test_who_may_post(bodies: tuple[Served, Database, int]) -> None:
    served, database, newest = bodies
    body = {"service_name": "core", "logs": [{"message": "x"}]}
    assert (await served.post(body, token=None))[0] == 401
    assert (await served.post(body, token="codex"))[0] == 403
    for level in ("client", "billing"):
        for path, content in ((LOGS, body), (METRICS, {"service_name": "core", "name": "x", "value": 1})):
            status, answer, _ = await served.post(content, path=path, token=user_token(level))
            assert (status, answer["code"]) == (403, "denied")
    assert rows_after(database, newest) == []
    assert database.query("SELECT count(*) FROM service_metrics") == [(0,)]
    assert (await served.post(body, token="core"))[0] == 200
    assert (await served.post(body, token=user_token("technician")))[0] == 200
    assert (await served.post(body, token=user_token("admin")))[0] == 200
    assert (await served.post(body, path="/helm" + LOGS, token="core"))[0] == 200
    assert len(rows_after(database, newest)) == 4


async def test_programs_of_this_machine_need_no_token_where_the_settings_say_so(
    filled: Database, tmp_path: Path
) -> None:
    async with serving(filled.store, tmp_path, settings='ingest.anonymous = "loopback"') as served:
        assert (await served.post({"service_name": "odd", "message": "x"}, token=None))[0] == 200
        assert (await served.post({"service_name": "odd", "message": "x"}, token=None, X_Forwarded_For="1.2.3.4"))[
            0
        ] == 401


@pytest.fixture
async def migrated(database: Database) -> Database:
    await migrate(database.owner, "helm")
    return database


def messages(database: Database) -> list[str]:
    return [str(message) for (message,) in database.query("SELECT message FROM log_entries ORDER BY id")]


def batch(*texts: str) -> dict[str, Any]:
    return {"service_name": "codex", "logs": [{"message": text} for text in texts]}


async def through_the_journal(database: Database, entries: list[dict[str, Value]], chunk: int = 3) -> None:
    """As helmd-journal does it, some entries at a time."""
    posted: list[PostedRow] = []
    for fields in entries:
        row = read_own(fields, time.time_ns() // 1000)
        assert row is not None
        posted.append(row)
    connection = await connect(database.store, "test-journal")
    appender = Appender(lambda _: 90)
    for begin in range(0, len(posted), chunk):
        async with connection.transaction():
            await appender.append(connection, await admit(connection, posted[begin : begin + chunk]))
    await connection.close()


async def test_a_repeat_stores_nothing_and_gets_the_first_answer(migrated: Database, tmp_path: Path) -> None:
    async with serving(migrated.store, tmp_path) as served:
        first = await served.post(batch("a", "b"), Idempotency_Key="k 1")
        again = await asyncio.gather(*(served.post(batch("c"), Idempotency_Key="k 1") for _ in range(20)))
        assert {(status, answer["ingested"]) for status, answer, _ in [first, *again]} == {(200, 2)}
        together = await asyncio.gather(*(served.post(batch("d", "e"), Idempotency_Key="k 2") for _ in range(20)))
        assert {(status, answer["ingested"]) for status, answer, _ in together} == {(200, 2)}
        other = await served.post({**batch("f"), "service_name": "core"}, token="core", Idempotency_Key="k 1")
        assert other[1]["ingested"] == 1, "another service's key"
    async with serving(migrated.store, tmp_path) as served:
        assert (await served.post(batch("g"), Idempotency_Key="k 2"))[1]["ingested"] == 2, "after a restart too"
    assert sorted(messages(migrated)) == ["a", "b", "d", "e", "f"]


async def test_many_at_once_are_each_stored_once(migrated: Database, tmp_path: Path) -> None:
    async def client(served: Served, name: int) -> None:
        for n in range(10):
            assert (await served.post(batch(*(f"{name} {n} {m}" for m in range(5)))))[0] == 200

    async with serving(migrated.store, tmp_path) as served:
        await asyncio.gather(*(client(served, name) for name in range(16)))
        assert served.journal.entries == []
    assert sorted(messages(migrated)) == sorted(f"{a} {n} {m}" for a in range(16) for n in range(10) for m in range(5))


async def test_the_store_away_the_journal_takes_it(migrated: Database, tmp_path: Path) -> None:
    async with serving(migrated.store, tmp_path) as served:
        await served.post(batch("before"))
        migrated.cluster.stop()
        try:
            begun = time.monotonic()
            full = {**batch("gone"), "logs": [{"message": "gone", "level": "LOUD", "user_id": "u", "process_id": 3}]}
            assert (await served.post(full))[0] == 200
            assert (await served.post(batch("a", "b", "c", "d"), Idempotency_Key="k"))[1]["ingested"] == 4
            assert (await served.post(batch("a"), Idempotency_Key="k"))[1]["ingested"] == 4
            assert time.monotonic() - begun < WITHIN / 2
            assert len(served.journal.entries) == 5
        finally:
            migrated.cluster.start()

        async def back() -> bool:
            assert (await served.post(batch("back")))[0] == 200
            return "back" in messages(migrated)

        await eventually(back, pause=0.1)
        # The journal's entries have not been stored yet, and the key is known all the same.
        assert (await served.post(batch("a"), Idempotency_Key="k"))[1]["ingested"] == 4
        await through_the_journal(migrated, served.journal.entries)
        assert (await served.post(batch("a"), Idempotency_Key="k"))[1]["ingested"] == 4
    async with serving(migrated.store, tmp_path) as served:
        assert (await served.post(batch("a"), Idempotency_Key="k"))[1]["ingested"] == 4
    stored = messages(migrated)
    assert [stored.count(text) for text in ("before", "gone", "a", "b", "c", "d")] == [1] * 6
    kept = migrated.query("SELECT level, user_id, process_id, source, context FROM log_entries WHERE message = 'gone'")
    assert kept == [("INFO", "u", 3, HTTP, {"_changed": {"level": "LOUD"}})]


async def test_the_journal_gives_back_what_was_written_down(tmp_path: Path) -> None:
    row = LogRow(
        datetime(2023, 11, 14, 22, 13, 20, 678901, UTC),
        "codex",
        "CRITICAL",
        "ü" * (MESSAGE_LIMIT // 2),
        {"a": "ü\n\u2028" * 200_000, "n": [1, None, 1.5]},
        "t" * 2048,
        "ü\n=",
        "h",
        7,
        HTTP,
    )
    small = LogRow(row.timestamp, "core", "INFO", "", source=HTTP)
    written = [
        *all_posted([row, row], "ffffffff-0000-4000-8000-00000000000f", 'k "1"='),
        *all_posted([small], "ffffffff-0000-4000-8000-0000000000ff", None),
    ]

    def exported(posted: PostedRow, number: int, unit: bytes) -> bytes:
        fields = cast(dict[str, bytes], posted_fields(posted, START + number))
        fields |= {"_SYSTEMD_USER_UNIT": unit, "_UID": str(UID).encode(), "_TRANSPORT": b"journal"}
        named = [(name.encode(), value) for name, value in fields.items()]
        head = f"__REALTIME_TIMESTAMP={START + number}\n__MONOTONIC_TIMESTAMP={number}\n_BOOT_ID={BOOT_A}\n".encode()
        return head + b"".join(n + b"\n" + struct.pack("<Q", len(v)) + v + b"\n" for n, v in named) + b"\n"

    copied = exported(written[0], 9, b"hivematrix-codex.service")
    entries = [exported(each, n, b"helmd.service") for n, each in enumerate(written, 1)]
    append(tmp_path / "a.journal", [*entries, copied])
    reader = JournalReader(UID, BOOT_A, tmp_path)
    reader.seek({})
    read = reader.read(100, 1 << 30).entries
    reader.close()
    assert [OWN.read(entry) for entry in read] == [*written, None]


@pytest.mark.parametrize("order", ["journal first", "repeat first", "repeat in between"])
async def test_a_batch_that_was_half_written_down_is_completed_by_its_repeat(
    migrated: Database, tmp_path: Path, order: str
) -> None:
    """helmd was killed while it put a batch into the journal; its client sends it again with the same key."""
    journal = Journal()
    async with serving(f"host={tmp_path} user=helm dbname=helm", tmp_path, journal=journal) as served:
        assert (await served.post(batch(*"abcdefgh"), Idempotency_Key="k"))[0] == 200
    half = journal.entries[:5]
    first = {"journal first": half, "repeat first": [], "repeat in between": half[:2]}[order]
    await through_the_journal(migrated, first, chunk=2)
    async with serving(migrated.store, tmp_path) as served:
        code, body, *_ = await served.post(batch(*"abcdefgh"), Idempotency_Key="k")
        assert (code, body["ingested"]) == (200, 8)
    await through_the_journal(migrated, half[len(first) :], chunk=2)
    async with serving(migrated.store, tmp_path) as served:
        assert (await served.post(batch(*"abcdefgh"), Idempotency_Key="k"))[0] == 200
    assert sorted(messages(migrated)) == list("abcdefgh")


async def test_a_batch_written_down_twice_is_stored_once(migrated: Database, tmp_path: Path) -> None:
    """Killed in the middle, and the store is away still when it comes again."""
    journals = [Journal(), Journal()]
    for journal in journals:
        async with serving(f"host={tmp_path} user=helm dbname=helm", tmp_path, journal=journal) as served:
            assert (await served.post(batch(*"abcdefgh"), Idempotency_Key="k"))[0] == 200
    await through_the_journal(migrated, journals[0].entries[:3], chunk=2)
    await through_the_journal(migrated, journals[1].entries, chunk=3)
    assert messages(migrated) == list("abcdefgh")


async def test_a_key_that_was_stored_first_keeps_the_journals_batch_out(migrated: Database, tmp_path: Path) -> None:
    journal = Journal()
    async with serving(f"host={tmp_path} user=helm dbname=helm", tmp_path, journal=journal) as served:
        assert (await served.post(batch(*"abcde"), Idempotency_Key="k"))[0] == 200
    async with serving(migrated.store, tmp_path) as served:
        assert (await served.post(batch(*"abcde"), Idempotency_Key="k"))[0] == 200
    await through_the_journal(migrated, journal.entries, chunk=2)
    assert messages(migrated) == list("abcde")


@pytest.mark.parametrize("chunk", [4, 48])
async def test_of_two_batches_of_one_key_in_the_journal_the_first_counts(
    migrated: Database, tmp_path: Path, chunk: int
) -> None:
    journal = Journal()
    for texts in ("abc", "xyz"):
        # helmd was started again in between, so it knows of none.
        async with serving(f"host={tmp_path} user=helm dbname=helm", tmp_path, journal=journal) as served:
            for key in range(8):
                assert (await served.post(batch(*texts), Idempotency_Key=str(key)))[1]["ingested"] == 3
    assert len(journal.entries) == 48
    await through_the_journal(migrated, journal.entries, chunk=chunk)
    assert messages(migrated) == list("abc" * 8)


@pytest.mark.parametrize("key", [{}, {"Idempotency_Key": "k"}], ids=["no key", "key"])
async def test_a_commit_in_doubt_stores_nothing_twice(migrated: Database, tmp_path: Path, key: dict[str, Any]) -> None:
    async with Proxy(tmp_path, migrated.cluster.directory) as proxy:
        conninfo = migrated.cluster.conninfo("helm", migrated.name, tmp_path)
        async with serving(conninfo, tmp_path) as served:
            # On its first connection there is no second attempt, so the journal takes what has been committed.
            proxy.lose_answers_to_commit = 1
            assert (await served.post(batch("a", "b"), **key))[1]["ingested"] == 2
            assert (proxy.lost, len(served.journal.entries)) == (1, 2)
            await through_the_journal(migrated, served.journal.entries)
            assert messages(migrated) == ["a", "b"]
            await asyncio.sleep(0.6)
            assert (await served.post(batch("c")))[0] == 200
            # On one that has been there a while it is tried again.
            another: dict[str, Any] = dict.fromkeys(key, "l")
            proxy.lose_answers_to_commit = 1
            assert (await served.post(batch("d", "e"), **another))[1]["ingested"] == 2
            assert (proxy.lost, len(served.journal.entries)) == (2, 2)
    assert messages(migrated) == list("abcde")


async def test_a_store_that_hangs_holds_nobody_up(
    migrated: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(migrated.store, tmp_path) as served:
        await served.post(batch("first"))
        blocker = await connect(migrated.owner, "blocker")
        async with blocker.transaction():
            await blocker.execute("LOCK TABLE log_entries IN SHARE MODE")
            monkeypatch.setattr(requests, "_ANSWER_SECONDS", 1.0)
            begun = time.monotonic()
            answers = await asyncio.gather(*(served.post(batch(f"n{n}")) for n in range(20)))
            assert {status for status, *_ in answers} == {200}
            assert time.monotonic() - begun < WITHIN / 2
            assert len(served.journal.entries) == 20
        await blocker.close()
        await through_the_journal(migrated, served.journal.entries)
    assert sorted(messages(migrated)) == sorted(["first", *(f"n{n}" for n in range(20))])


async def test_what_postgresql_refuses_takes_no_other_batch_with_it(migrated: Database) -> None:
    journal = Journal()
    posted = PostedLogs(lambda: PostedStore.open(migrated.store, lambda _: 90), journal.write)
    good = [LogRow(datetime.now(UTC), "codex", "INFO", text, source=HTTP) for text in "abc"]
    bad = good[0]._replace(level="LOUD")
    together = [asyncio.create_task(posted.post("codex", [row], None, 1)) for row in (good[0], bad, *good[1:])]
    await asyncio.sleep(0)
    running = asyncio.create_task(posted.run())
    answers = await asyncio.gather(*together, return_exceptions=True)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert [answers[0], *answers[2:]] == [1, 1, 1]
    assert isinstance(answers[1], StoreError)
    assert "log_entries_level_check" in answers[1].sentence
    assert (messages(migrated), journal.entries) == (list("abc"), [])


async def test_neither_store_nor_journal(tmp_path: Path) -> None:
    async with serving(f"host={tmp_path} user=helm dbname=helm", tmp_path) as served:
        served.journal.away = True
        status, answer, _ = await served.post(batch("a"))
        assert (status, answer["code"]) == (503, "journal")
        served.journal.away = False
        assert (await served.post(batch("a")))[0] == 200


async def test_with_the_disk_nearly_full_the_journal_takes_it(migrated: Database, tmp_path: Path) -> None:
    low = True
    async with serving(migrated.store, tmp_path, paused=lambda: low) as served:
        assert (await served.post(batch("a")))[0] == 200
        assert (messages(migrated), len(served.journal.entries)) == ([], 1)
        low = False
        assert (await served.post(batch("b")))[0] == 200
        assert (messages(migrated), len(served.journal.entries)) == (["b"], 1)


async def test_what_waits_when_helmd_ends_goes_to_the_journal(migrated: Database, tmp_path: Path) -> None:
    blocker = await connect(migrated.owner, "blocker")
    journal = Journal()
    async with blocker.transaction():
        await blocker.execute("LOCK TABLE log_entries IN SHARE MODE")
        async with serving(migrated.store, tmp_path, journal=journal) as served:
            waiting = [asyncio.create_task(served.post(batch(f"n{n}"))) for n in range(5)]
            await eventually(lambda: migrated.query("SELECT 1 FROM pg_locks WHERE NOT granted"))
        answers = await asyncio.gather(*waiting, return_exceptions=True)
    await blocker.close()
    assert [answer[0] for answer in answers if not isinstance(answer, BaseException)] == [200] * 5
    await through_the_journal(migrated, journal.entries)
    assert sorted(messages(migrated)) == [f"n{n}" for n in range(5)]


class Clock:
    """In the place of the module `time`."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """That by which rates are measured; it stands still."""
    clock = Clock()
    monkeypatch.setattr(ingest, "time", clock)
    return clock


async def test_who_posts_too_much_is_slowed_or_asked_to_come_again(
    filled: Database, tmp_path: Path, clock: Clock
) -> None:
    async with serving(filled.store, tmp_path, rates=Rates(rate=10, burst=5)) as served:
        begun = time.monotonic()
        assert (await served.post(batch(*"abcdefghij")))[0] == 200
        status, answer, headers = await served.post(batch("x"), Idempotency_Key="rate")
        assert (status, answer["code"], headers["Retry-After"]) == (429, "rate_limited", "1")
        assert (await served.post(batch("x")))[0] == 200
        assert time.monotonic() - begun > 0.5, "five more than the burst, at ten a second"
        status, answer, _ = await served.post(batch(*"abcdefghij"), Idempotency_Key="other")
        other = await served.post({**batch("x"), "service_name": "core"}, token="core", Idempotency_Key="core")
        assert (status, other[0]) == (429, 200), "another service has a rate of its own"
        clock.now += 0.7
        assert (await served.post(batch("x"), Idempotency_Key="later"))[0] == 200


@pytest.mark.usefixtures("clock")
async def test_the_rate_is_the_callers_whatever_name_it_posts_under(filled: Database, tmp_path: Path) -> None:
    admin = user_token("admin")
    async with serving(filled.store, tmp_path, rates=Rates(rate=10, burst=5)) as served:
        assert (await served.post({**batch(*"abcdefghij"), "service_name": "one"}, token=admin))[0] == 200
        status, answer, _ = await served.post({**batch("x"), "service_name": "two"}, token=admin, Idempotency_Key="k")
        assert (status, answer["code"]) == (429, "rate_limited")
        other = await served.post({**batch("x"), "service_name": "core"}, token="core", Idempotency_Key="core")
        assert other[0] == 200, "nor does it use up that of the service which it names"


async def test_large_bodies_leave_memory_for_others(filled: Database, tmp_path: Path) -> None:
    """Between a small request and its answer this process does little else. By its processor time, since it may wait
    for a processor at any time.
    """
    entry = {"message": "m" * 1500, "context": {"numbers": list(range(10))}}
    body = json.dumps({"service_name": "codex", "logs": [entry] * 9_000}).encode()
    async with serving(filled.store, tmp_path) as served:
        large = asyncio.create_task(served.post(body, raw=True))
        slowest = 0.0
        while not large.done():
            begun = time.process_time()
            assert (await served.post(batch("small"), token=None))[0] == 401
            slowest = max(slowest, time.process_time() - begun)
        assert (await large)[1]["ingested"] == 9_000
        assert slowest < 0.4


async def test_posted_and_printed_are_one_line(migrated: Database, tmp_path: Path) -> None:
    connection = await connect(migrated.store, "test-journal")
    async with connection.transaction():
        printed = LogRow(datetime.now(UTC), "codex", "INFO", '"GET /x HTTP/1.1" 200', source="journal")
        await Appender(lambda _: 90).append(connection, [printed])
    await connection.close()
    async with serving(migrated.store, tmp_path) as served:
        # Two seconds later it would be another line.
        posted = {
            "message": '127.0.0.1 - - [23/Nov/2026 06:12:46] "GET /x HTTP/1.1" 200 -',
            "timestamp": printed.timestamp.isoformat(),
        }
        await served.post({"service_name": "codex", "logs": [posted]})
    first, second = migrated.query("SELECT id, duplicate_of FROM log_entries ORDER BY id")
    assert second[1] == first[0]


async def test_posted_access_lines_of_helms_own_checks_are_no_errors(migrated: Database, tmp_path: Path) -> None:
    """A service that hands its web server's log to `helm_logger`."""
    lines = (
        '127.0.0.1 - - [28/Nov/2026 06:12:46] "\x1b[35m\x1b[1mGET /up HTTP/1.0\x1b[0m" 503 -',
        '127.0.0.1 - - [28/Nov/2026 06:12:47] "GET /ready HTTP/1.0" 200 -',
        '127.0.0.1 - - [28/Nov/2026 06:12:48] "GET /up HTTP/1.1" 200 -',
        '127.0.0.1 - - [28/Nov/2026 06:12:49] "GET /other HTTP/1.0" 503 -',
    )
    async with serving(migrated.store, tmp_path) as served:
        await served.post(batch(*lines))
    levels = [level for (level,) in migrated.query("SELECT level FROM log_entries ORDER BY id")]
    assert levels == ["DEBUG", "DEBUG", "INFO", "ERROR"]


async def test_old_batches_are_forgotten(migrated: Database) -> None:
    for key, hours in (("old", 120), ("new", 25)):
        migrated.query(
            "INSERT INTO ingest_requests (request, service_name, key, entries, stored, received_up)"
            " VALUES (gen_random_uuid(), 'a', %s, 1, 1, upkeep_seconds() - %s) RETURNING 1",
            key,
            hours * 3600,
        )
    connection = await connect(migrated.owner, "test-owner")
    await drop_old_requests(connection)
    await connection.close()
    assert migrated.query("SELECT key FROM ingest_requests") == [("new",)]
