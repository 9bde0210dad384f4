"""The parts of `scripts/bench logs` that need no sandbox."""

import json
import sys
from collections import Counter
from pathlib import Path

import pytest

from helmd.model.logs.parsing.structured import json_object

sys.path.append(str(Path(__file__).resolve().parents[2] / "scripts/benchlib"))

import logs
import logs_figures as figures
import logs_lines as lines
import logs_post as posting
from logs_tools import SHORT, Sizes

TIMESTAMP = 1795565493.968463


def test_lines_resemble_those_of_the_suite() -> None:
    printed = [json.loads(text) for text in lines.batch("flood", 0, 10_000, TIMESTAMP).splitlines()]
    assert len(printed) == 10_000
    levels = Counter(line["level"] for line in printed)
    assert 7800 < levels["INFO"] < 8200 and min(levels[name] for name in ("DEBUG", "WARNING", "ERROR")) > 100
    assert 7800 < sum("correlation_id" in line for line in printed) < 8200
    assert 4800 < sum("user_id" in line for line in printed) < 5200
    assert 180 < len(lines.batch("flood", 0, 10_000, TIMESTAMP)) / 10_000 < 280
    assert json_object(lines.batch("flood", 7, 1, TIMESTAMP).decode()) is not None
    assert lines.iso_time(TIMESTAMP).startswith(printed[0]["timestamp"][:19])


def test_a_message_contains_its_number_and_time() -> None:
    for number in (0, 7, 999_999, 3_000_000):
        text = lines.message(number, TIMESTAMP)
        assert (lines.number_of(text), lines.printed_at(text)) == (number, TIMESTAMP)
    assert lines.RARE_WORD in lines.message(7, TIMESTAMP) and lines.RARE_WORD not in lines.message(8, TIMESTAMP)


def test_ids_are_deterministic() -> None:
    (printed,) = lines.batch("flood", 250_000, 1, TIMESTAMP).splitlines()
    assert json.loads(printed).get("correlation_id") == lines.trace_id("flood", 250_000)
    traces = {trace for number in range(100_000) if (trace := lines.trace_id("flood", number))}
    assert len(traces) > 19_000 and {len(trace) for trace in traces} == {36}


@pytest.mark.parametrize(
    ("figures_given", "part", "wanted"),
    [([3.0, 1.0, 2.0], 0.5, 2.0), ([1.0], 0.99, 1.0), (list(range(1, 201)), 0.99, 198), (list(range(50)), 0.99, 49)],
)
def test_percentile(figures_given: list[float], part: float, wanted: float) -> None:
    assert figures.percentile(figures_given, part) == wanted


def test_a_figure_is_shown_with_its_peer(capsys: pytest.CaptureFixture[str]) -> None:
    figures.show("catch-up", [60_000, 90_000, 80_000], "{:,.0f} rows/s", figures.ratio([80_000], "rsyslog", [20_000]))
    said = " ".join(capsys.readouterr().out.split())
    assert said == "catch-up 80,000 rows/s [60,000 rows/s to 90,000 rows/s] 4.00 x rsyslog (20,000)"


def test_the_command_line() -> None:
    assert logs.sizes_of([]) == (Sizes(), list(logs.PARTS))
    sizes, parts = logs.sizes_of(["--short", "--keep", "--runs", "2", "--only", "http,catchup"])
    assert (sizes.runs, sizes.keep, sizes.backlog, parts) == (2, True, SHORT.backlog, ["catchup", "http"])
    for wrong in (["--only", "floods"], ["--runs", "0"]):
        with pytest.raises(SystemExit):
            logs.sizes_of(wrong)


def test_a_request_contains_its_batch() -> None:
    head, _, body = posting.requests("posted", 10)[0].partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
    given = json.loads(body)
    assert given["service_name"] == "posted" and len(given["logs"]) == 10
