"""Clients that post entries. Arguments: TARGET NAME BATCH CLIENTS SECONDS; TARGET is a port or socket path.

Each client waits for the response before its next request. HTTP is implemented here, since a client library would take
more time than the server. Prints a JSON object.
"""

import asyncio
import json
import sys
import time

from logs_figures import percentile
from logs_lines import entry

_BODIES = 50
"""Number of different request bodies, generated in advance."""


def requests(name: str, batch: int) -> list[bytes]:
    made = []
    for number in range(_BODIES if batch < 1000 else _BODIES // 5):
        now = time.time()
        logs = [entry(name, number * batch + each, now) for each in range(batch)]
        body = json.dumps({"service_name": name, "logs": logs}).encode()
        head = (
            "POST /api/logs/ingest HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        made.append(head.encode() + body)
    return made


async def post(target: str, bodies: list[bytes], batch: int, end: float, took: list[float]) -> None:
    if target.isdigit():
        reader, writer = await asyncio.open_connection("127.0.0.1", int(target))
    else:
        reader, writer = await asyncio.open_unix_connection(target)
    number = len(took)
    # At least once, even on a busy machine.
    while True:
        began = time.perf_counter()
        writer.write(bodies[number % len(bodies)])
        number += 1
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        response = await reader.readexactly(length)
        if not head.startswith(b"HTTP/1.1 200 ") or json.loads(response)["ingested"] != batch:
            sys.exit(f"response: {(head + response)[:1000].decode(errors='replace')}")
        took.append(time.perf_counter() - began)
        if time.perf_counter() >= end:
            break
    writer.close()


async def main(target: str, name: str, batch: int, clients: int, seconds: float) -> None:
    bodies = requests(name, batch)
    took: list[float] = []
    began = time.perf_counter()
    end = began + seconds
    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(post(target, bodies, batch, end, took))
    passed = time.perf_counter() - began
    rows = batch * len(took)
    print(
        json.dumps(
            {
                "rows": rows,
                "rate": rows / passed,
                "p50": 1000 * percentile(took, 0.5),
                "p99": 1000 * percentile(took, 0.99),
            }
        )
    )


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5])))
