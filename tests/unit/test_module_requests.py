"""What Helm asks of a module, and reads of its programs: none of it holds a change up, or says a secret."""

import socket
import subprocess
import threading
import time
from collections.abc import Iterator

import pytest

from helmd.model.config.toml_tables import ConfigSource
from helmd.model.suite.registry import read_registry
from helmd.modules.sandbox import _Reading
from helmd.operations.modules import watch
from helmd.operations.modules.watch import ask
from tests.waiting import WITHIN

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n"


@pytest.fixture
def port() -> Iterator[int]:
    """Yield a server that sends what each request's path says, then a byte from time to time, without end."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        heads = {
            b"/head": b"HTTP/1.1 200 OK\r\nX: ",
            b"/body": HEAD + b"\r\n",
            b"/length": HEAD + b"Content-Length: 999\r\n\r\n",
        }

        def serve() -> None:
            while True:
                try:
                    taken, _ = server.accept()
                except OSError:
                    return
                with taken:
                    data = heads[taken.recv(4096).split()[1]]
                    try:
                        while True:
                            taken.sendall(data)
                            data = b"x"
                            time.sleep(0.05)
                    except OSError:
                        pass

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join(WITHIN)


@pytest.mark.parametrize("path", ["/head", "/body", "/length"])
def test_an_answer_without_end_is_none(port: int, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "_REQUEST_SECONDS", 0.5)
    service = read_registry([ConfigSource("file", f"[services.desk]\nport = {port}\n")], {})["desk"]
    began = time.monotonic()
    reply = ask(service, path)
    assert (reply.status, reply.fault) == (0, "no whole answer within 10 s")
    assert time.monotonic() - began < WITHIN


def test_a_secret_in_a_line_without_end_is_not_said_in_part() -> None:
    secret = "0123456789" * 4
    said: list[str] = []
    script = f"printf '%0100d' 0; printf '{secret}'; sleep 0.3; printf '%03980d' 0; sleep 0.3; printf '%0500d\\n' 0"
    pipe = subprocess.PIPE
    with subprocess.Popen(["/bin/sh", "-c", script], stdin=pipe, stdout=pipe, stderr=pipe) as process:
        reading = _Reading(process, said.append, (secret,), 0)
        assert reading.follow(b"", lambda: "") == ""
    (line,) = said
    assert "********" in line and not any(secret[at : at + 8] in line for at in range(len(secret) - 8))
