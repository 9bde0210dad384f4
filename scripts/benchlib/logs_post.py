"""Clients that post: PLACE NAME BATCH CLIENTS SECONDS. PLACE is a port on loopback, or the path of a socket.

Each waits for its answer before it posts again. Requests are written and answers read by hand: on two cores a client
library would be measured more than the server. Prints one JSON object.
"""

import asyncio
import json
import sys
import time

from logs_figures import percentile
from logs_lines import entry

_BODIES = 50
"""Different ones, made beforehand."""


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


async def post(place: str, bodies: list[bytes], batch: int, end: float, took: list[float]) -> None:
    if place.isdigit():
        reader, writer = await asyncio.open_connection("127.0.0.1", int(place))
    else:
        reader, writer = await asyncio.open_unix_connection(place)
    number = len(took)
    # Once at least, however late it has come on a busy machine.
    while True:
        began = time.perf_counter()
        writer.write(bodies[number % len(bodies)])
        number += 1
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        answer = await reader.readexactly(length)
        if not head.startswith(b"HTTP/1.1 200 ") or json.loads(answer)["ingested"] != batch:
            sys.exit(f"answered: {(head + answer)[:1000].decode(errors='replace')}")
        took.append(time.perf_counter() - began)
        if time.perf_counter() >= end:
            break
    writer.close()


async def main(place: str, name: str, batch: int, clients: int, seconds: float) -> None:
    bodies = requests(name, batch)
    took: list[float] = []
    began = time.perf_counter()
    end = began + seconds
    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(post(place, bodies, batch, end, took))
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
