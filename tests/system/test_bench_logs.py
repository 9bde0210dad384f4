"""`scripts/bench logs --short --keep` runs all of its parts beside a running suite."""

from tests.system.booted import TOP, Sandbox

FIGURES = (
    "catch-up of 5,000 JSON lines",
    "\\copy of the same rows",
    "regex with a literal part",
    "page 10 by cursor",
    "bytes a row with all indexes",
    "print to queryable, at 100 lines/s",
    "print to a client of the stream, at 100 lines/s",
    "HTTP ingest, batches of 1,000 by 4 clients",
    "until drained",
    "helmd-journal's CPU seconds per million lines",
)


def test_bench_logs_in_short(box: Sandbox) -> None:
    box("rm", "-rf", "/home/hive/bench-logs")
    copied = box.script("copy", str(TOP / "scripts/benchlib"), "/home/hive/bench-logs")
    assert copied.code == 0, copied.text
    # It says what it waited for on a signal.
    limited = ("timeout", "--kill-after=10", "150", "python3", "bench-logs/logs.py", "--short", "--keep")
    done = box(*limited, check=False)
    print(done.text)
    assert not done.code and "WRONG" not in done.out and "nothing measured" not in done.out, done.text
    missing = [figure for figure in FIGURES if figure not in done.out]
    assert not missing, done.text
    assert "bench_queries" not in box.sql("SELECT string_agg(datname, ' ') FROM pg_database")
