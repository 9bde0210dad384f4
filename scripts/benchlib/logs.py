"""Runs in the sandbox as the suite's account: measures the log store against its peers and limits."""

import argparse
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import replace

from logs_catchup import catch_up
from logs_figures import MeasurementError, note, say
from logs_flood import flood, sustained
from logs_http import http_ingest
from logs_latency import latency
from logs_queries import queries
from logs_tools import BENCH, HELM_UNITS, HOME, SHORT, Sizes, figure, run, units

PARTS: dict[str, Callable[[Sizes], None]] = {
    "catchup": catch_up,
    "queries": queries,
    "latency": latency,
    "http": http_ingest,
    "flood": flood,
    "sustained": sustained,
}
"""In this order: parts that need much disk space come before the floods fill the journal."""

_SETTINGS = """\
[ingest]
# Permits the client that posts over TCP; the rate limit is too high to matter.
anonymous = "loopback"
rate = 10000000
burst = 100000000
"""
_REGISTRY = '[services.one]\ntype = "command"\npath = "~/bench"\nstart_command = ["/usr/bin/sleep", "infinity"]\n'


def sizes_of(arguments: list[str]) -> tuple[Sizes, list[str]]:
    """Parse the command line: the amount of work, and the parts to run."""
    parser = argparse.ArgumentParser(prog="scripts/bench logs")
    parser.add_argument("--runs", type=int, help=f"number of runs of each part (default {Sizes().runs})")
    parser.add_argument("--only", help=f"only these parts, separated by commas: {', '.join(PARTS)}")
    parser.add_argument("--rows", type=int, help=f"number of generated rows (default {Sizes().rows:,})")
    parser.add_argument("--short", action="store_true", help="everything once, with little data")
    parser.add_argument("--keep", action="store_true", help="keep all entries in the store")
    given = parser.parse_args(arguments)
    parts = given.only.split(",") if given.only else list(PARTS)
    if unknown := [part for part in parts if part not in PARTS]:
        parser.error(f"--only: there is no {', '.join(unknown)}")
    if given.runs is not None and given.runs < 1:
        parser.error("--runs: at least 1")
    sizes = SHORT if given.short else Sizes()
    if given.rows is not None and given.rows < 2 * sizes.today:
        parser.error(f"--rows: at least {2 * sizes.today:,}")
    if given.runs is not None:
        sizes = replace(sizes, runs=given.runs)
    if given.rows is not None:
        sizes = replace(sizes, rows=given.rows)
    return replace(sizes, keep=given.keep), [part for part in PARTS if part in parts]


def prepare() -> None:
    settings = HOME / ".config/hivematrix/helm.toml"
    settings.parent.mkdir(parents=True, exist_ok=True)
    settings.write_text(_SETTINGS)
    (BENCH / "logs-services.toml").write_text(_REGISTRY)
    run("helmctl", "setup", "--registry", BENCH / "logs-services.toml")


def main() -> None:
    sizes, parts = sizes_of(sys.argv[1:])
    # As an exception, so that started units are stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    if not sizes.keep:
        prepare()
    try:
        for part in parts:
            began = time.monotonic()
            _measure(part, sizes)
            note(f"{part} took {time.monotonic() - began:.0f} s")
            say("")
    finally:
        units("start", *HELM_UNITS)


def _measure(part: str, sizes: Sizes) -> None:
    try:
        with figure(part):
            PARTS[part](sizes)
    except SystemExit:
        # Shows where a benchmark that took too long was waiting.
        traceback.print_exc()
        say(f"WRONG: terminated during {part}")
        raise


if __name__ == "__main__":
    try:
        main()
    except MeasurementError as missing:
        sys.exit(f"bench: {missing}")
