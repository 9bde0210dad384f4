"""Searches for a text: how many entries are scanned, and when an index is used instead."""

from datetime import timedelta
from typing import Any

import psycopg
import pytest

from helmd.model.logs.entry import LogRow
from helmd.model.logs.filter import LogFilter
from helmd.store.logs import scan_estimate, search
from helmd.store.session import Connection
from tests.store.stored import BASE, append, find
from tests.waiting import WITHIN

DAY = timedelta(days=1)


async def test_a_common_text_is_found_by_scanning_at_the_beginning_of_a_day(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The index of the previous day would read all matches for one page."""
    monkeypatch.setattr(scan_estimate, "MIN_CHUNK", 100)
    await append(connection, [LogRow(BASE + timedelta(seconds=n), "codex", "INFO", "an error") for n in range(1_000)])
    await append(connection, [LogRow(BASE + DAY, "codex", "INFO", "just begun")])

    async def by_index(*_: object) -> None:
        pytest.fail("an index was used")

    monkeypatch.setattr(search._Search, "_query", by_index)
    page = await find(connection, LogFilter(text="error"), 50)
    assert len(page.entries) == 50
    assert page.common


async def test_a_page_of_a_common_text_scans_little_more_than_it_needs(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan_estimate, "MIN_CHUNK", 100)
    monkeypatch.setattr(scan_estimate, "MAX_CHUNK", 1_000)
    texts = ("an error", "started", "ended", "reloaded")
    rows = [LogRow(BASE + timedelta(seconds=n), "codex", "INFO", texts[n % 4]) for n in range(2_000)]
    await append(connection, rows)
    counts: list[int] = []
    scan = search._Search._scan_chunk

    async def noted(*given: Any) -> int:
        counts.append(await scan(*given))
        return counts[-1]

    monkeypatch.setattr(search._Search, "_scan_chunk", noted)
    page = await find(connection, LogFilter(text="error"), 50)
    assert [entry.row.timestamp for entry in page.entries] == [row.timestamp for row in rows[-4 : -4 * 51 : -4]]
    assert counts[0] == 100 and 204 <= sum(counts) < 300


async def test_matches_that_come_in_a_burst_do_not_make_a_text_common(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nearly a page of them at the end of the day, and no more for a long time: the index finds the rest at once."""
    monkeypatch.setattr(scan_estimate, "MIN_CHUNK", 100)
    monkeypatch.setattr(scan_estimate, "MAX_CHUNK", 200)
    texts = ["an error"] * 10 + ["started"] * 4_900 + ["an error"] * 90
    rows = [LogRow(BASE + timedelta(seconds=n), "codex", "INFO", text) for n, text in enumerate(texts)]
    await append(connection, rows)
    scans = 0
    scan = search._Search._scan_chunk

    async def noted(*given: Any) -> int:
        nonlocal scans
        scans += 1
        return await scan(*given)

    monkeypatch.setattr(search._Search, "_scan_chunk", noted)
    page = await find(connection, LogFilter(text="error"), 98)
    errors = [row.timestamp for row in reversed(rows) if row.message == "an error"]
    assert [entry.row.timestamp for entry in page.entries] == errors[:98]
    assert scans <= 3 and not page.common


async def test_a_text_is_scanned_for_if_the_index_takes_too_long(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan_estimate, "MIN_CHUNK", 50)
    monkeypatch.setattr(scan_estimate, "MAX_CHUNK", 200)
    monkeypatch.setattr(search, "_INDEX_SHARE", 0.001 / WITHIN)  # a millisecond
    rows = [LogRow(BASE + timedelta(seconds=n), "codex", "INFO", f"{'long ' * 4_000}{n:04d}.") for n in range(2_000)]
    await append(connection, [LogRow(BASE - DAY, "codex", "INFO", "0042. of the day before"), *rows])
    ended: list[object] = []
    walk = search._Search._query

    async def noted(*given: Any) -> None:
        try:
            await walk(*given)
        except (psycopg.errors.QueryCanceled, search._OutOfTimeError) as error:
            ended.append(error)
            raise

    monkeypatch.setattr(search._Search, "_query", noted)
    page = await find(connection, LogFilter(text="0042."), 10, seconds=WITHIN)
    assert len(ended) == 1
    assert page.searched_to is None
    assert [entry.row.message[-24:] for entry in page.entries] == [rows[42].message[-24:], "0042. of the day before"]
