"""Name resolution is inside a probe's time limit, whatever the resolver does.

getaddrinfo is replaced here, since no resolver can be made to hang on demand for one process.
"""

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from helmd.health.probe import run_probe
from helmd.model.units.health import HEALTHY, UNHEALTHY, Probe
from tests.waiting import WITHIN

TOP = Path(__file__).resolve().parents[2]
real: Callable[..., Any] = socket.getaddrinfo


class Resolver:
    """Answers names by a function, in the thread that asks; numeric hosts are the real one's. Counts calls by name."""

    def __init__(self, answer: Callable[[], Any]) -> None:
        self.answer = answer
        self.asked: list[str] = []

    def __call__(self, host: Any, port: Any, *words: Any, flags: int = 0, **more: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if flags & socket.AI_NUMERICHOST or name[0].isdigit():
            return real(host, port, *words, flags=flags, **more)
        self.asked.append(name)
        return self.answer()


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[Resolver]:
    """Yield a resolver that gives no answer until the end of the test."""
    end = threading.Event()

    def hang() -> Any:
        end.wait(2 * WITHIN)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    resolver = Resolver(hang)
    monkeypatch.setattr(socket, "getaddrinfo", resolver)
    yield resolver
    end.set()


def test_a_resolver_that_hangs_costs_the_timeout_and_no_more(hanging: Resolver) -> None:
    begun = time.monotonic()
    verdict = run_probe(Probe(url="http://hanging.example/health", timeout=0.3))
    assert verdict == (UNHEALTHY, "the name hanging.example was not resolved within 0.3 s")
    assert time.monotonic() - begun < WITHIN


def test_a_name_is_looked_up_by_one_thread_however_often_it_is_asked(hanging: Resolver) -> None:
    probes = [Probe(url=f"http://{name}.example/", timeout=0.1) for name in ("one", "two") for _ in range(10)]
    threads = [threading.Thread(target=run_probe, args=(probe,)) for probe in probes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(hanging.asked) == ["one.example", "two.example"]


def test_a_name_is_looked_up_again_after_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    resolver = Resolver(fail)
    monkeypatch.setattr(socket, "getaddrinfo", resolver)
    for _ in range(2):
        verdict = run_probe(Probe(url="http://gone.example/", timeout=WITHIN))
        assert verdict == (UNHEALTHY, "the name gone.example can't be resolved (Name or service not known)")
    assert len(resolver.asked) == 2


def test_an_address_is_not_looked_up(hanging: Resolver) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert run_probe(Probe("port", f"http://127.0.0.1:{port}")).state == HEALTHY
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as listener:
        assert run_probe(Probe("port", f"http://[::1]:{listener.getsockname()[1]}")).state == HEALTHY
    assert hanging.asked == []


def test_all_addresses_of_a_name_share_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forty addresses that neither accept nor refuse: the queue of each listener is full."""
    with ExitStack() as stack:
        hosts = [f"127.0.0.{number}" for number in range(1, 41)]
        port = 0
        for host in hosts:
            listener = stack.enter_context(socket.create_server((host, port), backlog=0))
            port = listener.getsockname()[1]
            for _ in range(2):
                client = stack.enter_context(socket.socket())
                client.setblocking(False)
                client.connect_ex((host, port))
        full = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port)) for host in hosts]
        monkeypatch.setattr(socket, "getaddrinfo", Resolver(lambda: full))
        begun = time.monotonic()
        verdict = run_probe(Probe("port", f"http://full.example:{port}", timeout=1.0))
        took = time.monotonic() - begun
    assert verdict == (UNHEALTHY, "no connection within 1 s")
    assert took < 20, "each address on its own would be forty times the limit"


def test_the_first_address_that_accepts_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        both = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port)) for host in ("127.0.0.9", "127.0.0.1")]
        monkeypatch.setattr(socket, "getaddrinfo", Resolver(lambda: both))
        assert run_probe(Probe("port", f"http://two.example:{port}")).state == HEALTHY


def test_a_lookup_under_way_keeps_no_process_from_exiting() -> None:
    program = (
        "import socket, sys, time\n"
        f"sys.path.insert(0, {str(TOP)!r})\n"
        "real = socket.getaddrinfo\n"
        "def hang(host, *words, flags=0, **more):\n"
        "    if flags & socket.AI_NUMERICHOST: return real(host, *words, flags=flags, **more)\n"
        "    time.sleep(600)\n"
        "socket.getaddrinfo = hang\n"
        "from helmd.health.probe import run_probe\n"
        "from helmd.model.units.health import Probe\n"
        "print(run_probe(Probe(url='http://hanging.example/', timeout=0.2)).state)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=WITHIN)
    assert done.stdout == "unhealthy\n"
