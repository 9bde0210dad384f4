"""What entries of a service's timeline are about, and pages of two searches that are one."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from helmd.model.api.details import TimelineEvent
from helmd.model.logs.entry import HELM, SYSTEMD, LogRow
from helmd.model.logs.filter import LogFilter, PageCursor
from helmd.model.units.timeline import EventKind, health_of_line, kind_of_change, kind_of_systemd
from helmd.operations.logs.reader import LogReader
from helmd.operations.monitoring.timeline import timeline
from helmd.store.logs.entries import StoredEntry
from helmd.web.pages.timeline_rows import event_rows, event_text

NOW = datetime(2026, 11, 28, 15, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("Started hivematrix-core.service - HiveMatrix core.", "started"),
        ("Starting hivematrix-core.service - HiveMatrix core...", "starting"),
        ("Stopping hivematrix-core.service - HiveMatrix core...", "stopping"),
        ("Stopped hivematrix-core.service - HiveMatrix core.", "stopped"),
        ("hivematrix-core.service: Deactivated successfully.", "stopped"),
        ("hivematrix-core.service: Main process exited, code=exited, status=1/FAILURE", "crash"),
        ("hivematrix-core.service: Main process exited, code=killed, status=9/KILL", "crash"),
        ("hivematrix-core.service: Main process exited, code=exited, status=0/SUCCESS", "other"),
        ("hivematrix-core.service: Failed with result 'exit-code'.", "failed"),
        ("hivematrix-core.service: Failed with result 'oom-kill'.", "oom"),
        ("hivematrix-core.service: Start request repeated too quickly.", "failed"),
        ("hivematrix-core.service: A process of this unit has been killed by the OOM killer.", "oom"),
        ("hivematrix-core.service: Scheduled restart job, restart counter is at 3.", "restart"),
        ("Reloaded hivematrix-core.service - HiveMatrix core.", "reload"),
        ("hivematrix-core.service: Consumed 1.2s CPU time.", "other"),
    ],
)
def test_lines_of_systemd(message: str, kind: EventKind) -> None:
    assert kind_of_systemd(message) == kind


@pytest.mark.parametrize(
    ("action", "result", "kind"),
    [
        ("restart", "done", "restart"),
        ("POST /api/services/{name}/stop", "done", "stopping"),
        ("PUT /api/services/{name}/config", "done", "configuration"),
        ("PUT /api/services/{name}/config", "refused", "refused"),
        ("apply", "done", "configuration"),
        ("modules update", "done", "update"),
        ("setup", "checked", "other"),
        ("", "", "other"),
    ],
)
def test_records_of_helm(action: str, result: str, kind: EventKind) -> None:
    assert kind_of_change(action, result) == kind


def test_a_change_of_health_is_one_of_the_service_that_it_names() -> None:
    assert health_of_line("core is unhealthy: no answer") == "core"
    assert health_of_line("core is degraded: ") == "core"
    assert health_of_line("helm is healthy: 200") is None and health_of_line("the core is healthy: x") is None


class Store:
    """Searches ROWS as a log store does, two at a time at most; the text is searched anywhere in messages."""

    def __init__(self, rows: Sequence[LogRow]) -> None:
        self._rows = [StoredEntry(number + 1, row) for number, row in enumerate(rows)]

    async def page(
        self, wanted: LogFilter, limit: int, before: PageCursor | None, offset: int, *, counted: bool
    ) -> Any:
        found = [
            entry
            for entry in sorted(self._rows, key=lambda each: (each.row.timestamp, each.id), reverse=True)
            if entry.row.service_name in (wanted.services or ())
            and entry.row.source in (wanted.sources or ())
            and (wanted.text or "") in entry.row.message
            and (before is None or PageCursor(entry.row.timestamp, entry.id) < before)
        ]
        kept = found[: min(limit, 2)]
        more = len(found) > len(kept)
        following = PageCursor(kept[-1].row.timestamp, kept[-1].id) if more else None
        return SimpleNamespace(page=SimpleNamespace(entries=kept, next=following))


async def test_pages_of_two_searches_are_in_order_and_whole() -> None:
    rows = []
    for number in range(9):
        at = NOW + timedelta(seconds=number)
        if number % 3 == 0:
            rows.append(LogRow(at, "helm", "WARNING", "core is unhealthy: no answer", source="journal"))
        elif number % 3 == 1:
            rows.append(LogRow(at, "helm", "INFO", "hard-core is healthy: not this one", source="journal"))
        else:
            said = {"action": "restart", "result": "done", "actor": "ada", "reason": "slow"}
            rows.append(LogRow(at, "core", "INFO", "restart core: done, for ada: slow", said, source="helm"))
    reader = cast(LogReader, Store(rows))
    cursor, seen = None, []
    for _ in range(20):
        page = await timeline(reader, "core", 3, cursor)
        seen += [(event.timestamp, event.kind, event.who, event.reason) for event in page.events]
        cursor = page.next
        if cursor is None:
            break
    said_by = {"health": (None, None), "restart": ("ada", "slow")}
    kinds = {8: "restart", 6: "health", 5: "restart", 3: "health", 2: "restart", 0: "health"}
    assert seen == [(NOW + timedelta(seconds=n), kind, *said_by[kind]) for n, kind in kinds.items()]


def shown(*messages: str, service: str = "core") -> list[str]:
    """Return what the page shows of MESSAGES of systemd's, the newest first."""
    events = [
        TimelineEvent(number, NOW, SYSTEMD, "INFO", message, kind_of_systemd(message), None, None)
        for number, message in enumerate(messages)
    ]
    return [row.text for row in event_rows(events, service, {})]


UNIT = "hivematrix-core.service"


def test_processes_that_are_killed_together_are_one_row() -> None:
    killed = [f"{UNIT}: Killing process {number} (build-{number}) with signal SIGKILL." for number in range(1, 30)]
    assert shown(f"{UNIT}: Failed with result 'timeout'.", *killed) == [
        "Failed with result 'timeout'.",
        "What had not ended of its processes was killed by signal KILL",
    ]


TITLE = f"{UNIT} - HiveMatrix core: tokens"


def test_the_page_says_in_few_words_what_happened() -> None:
    exited = f"{UNIT}: Main process exited, code=exited, status=3/NOTIMPLEMENTED"
    assert shown(
        f"Failed to start {TITLE}.",
        f"{UNIT}: Failed with result 'exit-code'.",
        f"{UNIT}: Start request repeated too quickly.",
        f"{UNIT}: Scheduled restart job, restart counter is at 5.",
        f"{UNIT}: Failed with result 'exit-code'.",
        exited,
        f"Started {TITLE}.",
        f"Starting {TITLE}...",
        f"{UNIT}: Scheduled restart job, restart counter is at 4.",
        f"{UNIT}: Failed with result 'signal'.",
        f"{UNIT}: Main process exited, code=killed, status=9/KILL",
    ) == [
        "Failed to start",
        "Failed with result 'exit-code'.",
        "Too many failed starts: systemd does not restart it any more",
        "Automatic restart 5",
        "Exited with code 3",
        "Started",
        "Automatic restart 4",
        "Killed by signal KILL",
    ]


def test_the_page_leaves_out_what_the_next_event_says() -> None:
    ended = f"{UNIT}: Main process exited, code=exited, status=143/n/a"
    stopped = (f"Stopped {TITLE}.", f"{UNIT}: Deactivated successfully.", ended, f"Stopping {TITLE}...")
    assert shown(*stopped) == ["Stopped"]
    assert shown(f"Starting {TITLE}...", *stopped) == ["Starting", "Stopped"], "it still starts"
    assert shown(f"{UNIT}: Main process exited, code=dumped, status=11/SEGV") == [
        "Killed by signal SEGV, with a core dump"
    ]
    assert shown(f"Stopped {TITLE}.", f"{UNIT}: Consumed 1min 2.5s CPU time, 41.2M memory peak.") == ["Stopped"]
    other = "Started hivematrix-nexus.service - HiveMatrix nexus."
    assert shown(other) == ["Started hivematrix-nexus"] and shown("Kernel panic.") == ["Kernel panic."]


def test_what_was_done_by_a_request_is_said_in_words() -> None:
    def said(message: str) -> str:
        event = TimelineEvent(1, NOW, HELM, "INFO", message, "other", "ada", None)
        return event_text(event, "core", {"POST /api/views": "Saves a view"})

    assert said("POST /api/views: done, for ada") == "Saves a view: done"
    assert said("restart core: done, for ada") == "Restart: done"
    assert said("setup: checked: a test line") == "Setup: checked: a test line"
