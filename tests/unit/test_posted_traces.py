"""The trace id of a posted entry: its own, or the one that a tracing library left in its context; zeros are none."""

import json
from datetime import UTC, datetime

import pytest

from helmd.model.ingest.body import read_body
from helmd.model.ingest.logs import log_rows
from helmd.model.logs.entry import LogRow
from helmd.model.logs.ids import CHANGED

NOW = datetime(2026, 11, 28, 8, tzinfo=UTC)
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"
ZEROS = "0" * 32


def row_of(**fields: object) -> LogRow:
    posted = {"service_name": "core", "logs": [{"level": "INFO", "message": "m", **fields}]}
    (row,) = log_rows(read_body(json.dumps(posted).encode(), "logs", "message"), NOW, 90)
    return row


@pytest.mark.parametrize("given", ["0", ZEROS, "0" * 16, "00000000-0000-0000-0000-000000000000"])
def test_zeros_are_no_trace(given: str) -> None:
    row = row_of(trace_id=given)
    assert row.trace_id is None
    assert row.context == {CHANGED: {"trace_id": given}}


@pytest.mark.parametrize("given", ["a-1", "10", "0x1", TRACE, "00-not-a-parent"])
def test_other_ids_are_kept(given: str) -> None:
    row = row_of(trace_id=given)
    assert (row.trace_id, row.context) == (given, None)


def test_a_posted_traceparent_is_its_trace() -> None:
    row = row_of(trace_id=PARENT)
    assert (row.trace_id, row.context) == (TRACE, {CHANGED: {"trace_id": PARENT}})


@pytest.mark.parametrize(
    "context",
    [
        {"traceparent": PARENT},
        {"otelTraceID": TRACE},
        {"trace_id": ZEROS, "traceparent": PARENT},
        {"dd.trace_id": "0", "traceId": TRACE},
    ],
)
def test_the_trace_in_a_context(context: dict[str, str]) -> None:
    row = row_of(context=context)
    assert (row.trace_id, row.context) == (TRACE, context)


def test_the_entrys_own_trace_counts_first() -> None:
    assert row_of(trace_id="a-1", context={"traceparent": PARENT}).trace_id == "a-1"
    assert row_of(trace_id="0", context={"traceparent": PARENT}).trace_id == TRACE


@pytest.mark.parametrize(
    "context",
    [{"traceparent": f"00-{ZEROS}-b7ad6b7169203331-00"}, {"trace_id": "0"}, {"traceparent": 7}, {}, None, "text"],
)
def test_a_context_without_a_trace(context: object) -> None:
    assert row_of(context=context).trace_id is None
