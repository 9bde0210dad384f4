"""HTTP ingest: rows per second and response times, by batch size and number of clients.

The reference is an aiohttp server that only parses the JSON, with the same clients and bodies.
"""

import json
import secrets
import subprocess
import sys
from itertools import product
from statistics import median
from typing import Any

import psycopg
from logs_figures import note, show
from logs_tools import BENCH, HELM_SOCKET, HELM_UNITS, PORT, Sizes, all_stored, figure, run, settle, store, units


def http_ingest(sizes: Sizes) -> None:
    units("start", *HELM_UNITS)
    with store() as connection:
        settle(connection, sizes.timeout)
        for batch, clients in product(sizes.batches, sizes.clients):
            with figure(f"HTTP ingest, batches of {batch:,} by {clients}"):
                _ingest(connection, sizes, batch, clients)


def _ingest(connection: psycopg.Connection[Any], sizes: Sizes, batch: int, clients: int) -> None:
    note(f"HTTP ingest: batches of {batch:,} by {clients}")
    helm, bare = [], []
    for _ in range(sizes.runs):
        name = f"posted-{secrets.token_hex(3)}"
        # Without changing its settings, Helm accepts nothing over TCP without a token.
        target = str(HELM_SOCKET) if sizes.keep else str(PORT)
        helm.append(_posted(target, name, batch, clients, sizes))
        all_stored(connection, [name], round(helm[-1]["rows"]), sizes.timeout)
        bare.append(_posted_bare(name, batch, clients, sizes))
    rates, limits = [each["rate"] for each in helm], [each["rate"] for each in bare]
    p50, p99 = (median([each[key] for each in helm]) for key in ("p50", "p99"))
    show(
        f"HTTP ingest, batches of {batch:,} by {clients} client{'s'[: clients > 1]}",
        rates,
        "{:,.0f} rows/s",
        f"p50 {p50:.1f}, p99 {p99:.1f} ms",
        f"{median(rates) / median(limits):.2f} x aiohttp storing nothing ({median(limits):,.0f} rows/s, "
        f"p99 {median([each['p99'] for each in bare]):.1f} ms)",
    )


def _posted(target: str, name: str, batch: int, clients: int, sizes: Sizes) -> dict[str, float]:
    words = (sys.executable, BENCH / "logs_post.py", target, name, str(batch), str(clients), str(sizes.http_seconds))
    found: dict[str, float] = json.loads(run(*words, within=sizes.http_seconds + sizes.timeout))
    return found


def _posted_bare(name: str, batch: int, clients: int, sizes: Sizes) -> dict[str, float]:
    with subprocess.Popen(
        [sys.executable, str(BENCH / "logs_bare.py")], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        try:
            return _posted(server.stdout.readline().strip(), name, batch, clients, sizes)
        finally:
            server.kill()
