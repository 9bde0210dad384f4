#!/usr/bin/python3
"""Follows log entries of SERVICES by server-sent events on Helm's socket until each client has COUNT entries.

CLIENTS (1) run concurrently. Each reconnects with Last-Event-ID after a random time of RESTLESS seconds on average (0:
never), and after an event "skipped". Prints "ready" once all have received an entry, and at the end, or after SECONDS
(60), JSON with the number of entries, the digest of their ids, and errors of each client.
"""

import asyncio
import hashlib
import json
import os
import random
import re
import time

SERVICES = os.environ["SERVICES"]
COUNT = int(os.environ["COUNT"])
RESTLESS = float(os.environ.get("RESTLESS", "0"))
SOCKET = os.environ["XDG_RUNTIME_DIR"] + "/hivematrix/helm.sock"
SILENCE_TIMEOUT = 15.0
"""Seconds without data after which a connection counts as dead; heartbeats are more frequent."""
LOG = re.compile(rb"event: log\nid: (\d+)\n")
"""Without ^, which takes ten times as long, since two hundred clients share a processor with Helm."""
LAST = b"\nid: "


class Follower:
    def __init__(self) -> None:
        self.ids: list[int] = []
        self.resume = 0
        self.connections = self.skipped = self.failures = 0
        self.trouble = ""
        self.started = asyncio.Event()

    async def run(self) -> None:
        while len(self.ids) < COUNT:
            # Random times, so that reconnects happen at arbitrary points of the stream.
            reconnect_at = time.monotonic() + random.expovariate(1 / RESTLESS) if RESTLESS else None
            try:
                async with asyncio.timeout_at(None if reconnect_at is None else reconnect_at + _loop_offset()):
                    await self._follow()
            except TimeoutError:
                continue
            except (OSError, asyncio.IncompleteReadError) as error:
                self.failures, self.trouble = self.failures + 1, repr(error)
                await asyncio.sleep(0.1)

    async def _follow(self) -> None:
        reader, writer = await asyncio.open_unix_connection(SOCKET, limit=1 << 20)
        try:
            # With HTTP/1.0 the response is not chunked.
            last = f"Last-Event-ID: {self.resume}\r\n" if self.resume else ""
            writer.write(f"GET /api/logs/stream?service={SERVICES}&source=journal,http HTTP/1.0\r\n{last}\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            if b" 200 " not in head.split(b"\r\n")[0]:
                raise OSError(f"{head[:60]!r} {await reader.read(300)!r}")
            self.connections += 1
            kept = b""
            while len(self.ids) < COUNT:
                async with asyncio.timeout(SILENCE_TIMEOUT):
                    read = await reader.read(1 << 20)
                if not read:
                    raise OSError("the stream has ended")
                whole, end, kept = (kept + read).rpartition(b"\n\n")
                if not self._take(whole + end):
                    return
        finally:
            writer.close()

    def _take(self, events: bytes) -> bool:
        """Record the ids in EVENTS; return False if entries were skipped."""
        before, skipped, _ = events.partition(b"event: skipped\n")
        self.ids += map(int, LOG.findall(before))
        if (last := before.rfind(LAST)) >= 0:
            self.resume = int(before[last + len(LAST) : before.index(b"\n", last + 1)])
            self.started.set()
        self.skipped += bool(skipped)
        return not skipped

    def report(self) -> dict[str, object]:
        return {
            "count": len(self.ids),
            "digest": hashlib.sha256("\n".join(map(str, self.ids)).encode()).hexdigest(),
            "connections": self.connections,
            "skipped": self.skipped,
            "failures": self.failures,
            "trouble": self.trouble,
        }


def _loop_offset() -> float:
    return asyncio.get_running_loop().time() - time.monotonic()


async def main() -> None:
    followers = [Follower() for _ in range(int(os.environ.get("CLIENTS", "1")))]
    running = [asyncio.create_task(follower.run()) for follower in followers]
    for follower in followers:
        await follower.started.wait()
    print("ready", flush=True)
    _, late = await asyncio.wait(running, timeout=float(os.environ.get("SECONDS", "60")))
    for task in late:
        task.cancel()
    print(json.dumps([follower.report() for follower in followers]), flush=True)


asyncio.run(main())
