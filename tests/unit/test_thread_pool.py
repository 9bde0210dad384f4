"""Health checks from threads, against real servers."""

import asyncio
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from helmd.health.thread_pool import PROBES, ThreadPool
from helmd.model.suite.service import Health, Service
from tests.waiting import WITHIN, eventually


def service(port: int, timeout: float = WITHIN) -> Service:
    return Service("core", url=f"http://localhost:{port}", port=port, health=Health(timeout=timeout))


async def answering(body: bytes) -> tuple[asyncio.Server, int]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    return server, server.sockets[0].getsockname()[1]


async def test_the_verdict_and_how_long_it_took() -> None:
    server, port = await answering(b'HTTP/1.0 503 Busy\r\n\r\n{"status": "degraded"}')
    begun = time.monotonic()
    async with server:
        answer = await ThreadPool(2).probe(service(port))
    assert answer.verdict == ("degraded", "answered 503: degraded")
    assert answer.response_ms is not None
    assert 0 < answer.response_ms < 1000 * (time.monotonic() - begun)


async def test_a_service_without_a_port_is_well_while_its_process_lives() -> None:
    answer = await ThreadPool(1).probe(Service("ticker", "command", health=Health(check="process")))
    assert (answer.verdict.state, answer.response_ms) == ("healthy", None)


async def test_one_that_hangs_is_unhealthy_and_holds_up_nobody_else() -> None:
    server, port = await answering(b"HTTP/1.0 200 OK\r\n\r\n")
    threads = ThreadPool(2)
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        mute = hanging.getsockname()[1]
        late = asyncio.ensure_future(threads.probe(service(mute, timeout=10 * WITHIN)))
        async with server:
            quick = [await threads.probe(service(port)) for _ in range(20)]
        assert {answer.verdict.state for answer in quick} == {"healthy"}
        assert not late.done()
        assert (await threads.probe(service(mute, timeout=0.1))).verdict == ("unhealthy", "no answer within 0.1 s")
    assert (await late).verdict.state == "unhealthy"


async def test_a_url_that_nobody_can_resolve_is_a_verdict_too() -> None:
    for url in ("http://a..b", f"http://{'a' * 70}.example", "http://%00", "https://[::1]:9"):
        answer = await ThreadPool(1).probe(Service("idp", "external", url=url, health=Health(timeout=0.5)))
        assert answer.verdict.state == "unhealthy", url


async def test_threads_are_used_again() -> None:
    threads = ThreadPool(20)
    assert len({await threads.run(threading.get_ident) for _ in range(50)}) == 1

    before = set(threading.enumerate())
    await asyncio.gather(*(threads.run(lambda: time.sleep(0.05)) for _ in range(20)))
    await eventually(lambda: len(set(threading.enumerate()) - before) <= 4)
    assert await threads.run(lambda: "and go on") == "and go on"


async def test_an_error_comes_out_where_it_is_waited_for() -> None:
    def fail() -> None:
        raise OSError("broken")

    with pytest.raises(OSError, match="broken"):
        await ThreadPool(1).run(fail)


async def test_a_call_holds_its_thread_until_it_ends_whoever_has_given_up() -> None:
    """Or each caller that gives up on a call that hangs would leave one more thread behind."""
    threads, end, begun = ThreadPool(2), threading.Event(), 0

    def hang() -> None:
        nonlocal begun
        begun += 1
        end.wait(10 * WITHIN)

    for _ in range(5):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await threads.run(hang)
    await eventually(lambda: begun == 2)
    end.set()
    assert await threads.run(lambda: "free again") == "free again"
    assert begun == 2, "what nobody waits for is not begun"


async def test_a_resolver_that_hangs_holds_up_no_other_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forty external services whose names are not resolved, and one that is healthy."""
    end, asked = threading.Event(), []
    real: Callable[..., Any] = socket.getaddrinfo

    def hang(host: Any, *words: Any, flags: int = 0, **more: Any) -> Any:
        if flags & socket.AI_NUMERICHOST or host in ("127.0.0.1", b"127.0.0.1"):
            return real(host, *words, flags=flags, **more)
        asked.append(host)
        end.wait(10 * WITHIN)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    server, port = await answering(b"HTTP/1.0 200 OK\r\n\r\n")
    threads = ThreadPool(PROBES)
    health = Health(timeout=10 * WITHIN)
    lost = [Service(f"lost{n}", "external", url=f"http://lost{n}.example", health=health) for n in range(40)]
    late = [asyncio.ensure_future(threads.probe(each)) for each in lost]
    try:
        await eventually(lambda: len(asked) == 40)
        async with server:
            assert (await threads.probe(service(port))).verdict.state == "healthy"
        assert not any(each.done() for each in late)
    finally:
        end.set()
    assert {result.verdict.state for result in await asyncio.gather(*late)} == {"unhealthy"}


def test_a_process_ends_at_once_though_a_check_is_under_way() -> None:
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        program = (
            "import asyncio\n"
            "from helmd.health.thread_pool import ThreadPool\n"
            "from helmd.model.suite.service import Health, Service\n"
            "async def main():\n"
            f"    service = Service('x', url='http://localhost', port={hanging.getsockname()[1]},"
            " health=Health(timeout=600.0))\n"
            "    task = asyncio.create_task(ThreadPool(1).probe(service))\n"
            "    await asyncio.sleep(0.2)\n"
            "asyncio.run(main())\n"
        )
        subprocess.run([sys.executable, "-c", program], check=True, timeout=WITHIN)
