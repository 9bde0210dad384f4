"""The probe against real sockets: whatever a port answers, or doesn't, is a verdict in time."""

import itertools
import os
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from helmd.health import probe as probe_module
from helmd.health.probe import run_probe, wait
from helmd.health.start_probe import MAX_ANSWER, is_simple, wait_simply
from helmd.health.target import probe_of, probe_words
from helmd.model.suite.service import Health, Service
from helmd.model.units.health import DEGRADED, HEALTHY, UNHEALTHY, Probe
from helmd.model.units.health_request import USER_AGENT
from tests.free_ports import free_port
from tests.waiting import WITHIN, until

TOP = Path(__file__).resolve().parents[2]
PROGRAM = TOP / "packaging/libexec/probe"
WAIT_PROCESS = TOP / "packaging/libexec/wait-process"
Serve = Callable[[Callable[[socket.socket], None]], int]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start a server on a free port of 127.0.0.1 that hands each connection to a function; return the port."""
    stop, listeners, threads = threading.Event(), [], []

    def begin(handle: Callable[[socket.socket], None]) -> int:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def run() -> None:
            while not stop.is_set():
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    try:
                        handle(connection)
                    except OSError:
                        continue

        thread = threading.Thread(target=run)
        threads.append(thread)
        thread.start()
        return int(listener.getsockname()[1])

    yield begin
    stop.set()
    for listener in listeners:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
    for thread in threads:
        thread.join()


def answering(*parts: bytes, then: Callable[[], object] = lambda: None) -> Callable[[socket.socket], None]:
    """Read the request, then send PARTS one after another."""

    def handle(connection: socket.socket) -> None:
        connection.recv(4096)
        for part in parts:
            connection.sendall(part)
            time.sleep(0.005)
        then()

    return handle


def at(port: int, path: str = "/health", **more: object) -> Probe:
    return Probe(url=f"http://127.0.0.1:{port}{path}", **{"timeout": WITHIN, **more})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("parts", "state", "sentence"),
    [
        ([b"HTTP/1.1 200 OK\r\n\r\n"], HEALTHY, "answered 200"),
        ([b"HTTP/1.0 2", b"00 OK\r\nContent-", b"Length: 2\r\n\r", b"\nOK"], HEALTHY, "answered 200"),
        ([b'HTTP/1.1 503 X\r\n\r\n{"status":', b' "degraded"}'], DEGRADED, "answered 503: degraded"),
        ([b"HTTP/1.1 500 \r\n\r\n"], UNHEALTHY, "answered 500"),
        ([b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 3 * MAX_ANSWER], HEALTHY, "answered 200"),
        ([b"SSH-2.0-OpenSSH_9.2\r\n"], UNHEALTHY, "what answers does not speak HTTP"),
        ([b"HTTP/1.1 20 OK\r\n\r\n"], UNHEALTHY, "what answers does not speak HTTP"),
        ([b"HTTP/1.1\r\n\r\n"], UNHEALTHY, "what answers does not speak HTTP"),
        ([b"\x16\x03\x01\x02\x00\x01\xff"], UNHEALTHY, "what answers does not speak HTTP"),
        ([], UNHEALTHY, "the connection was closed unanswered"),
    ],
    ids=str,
)
def test_answers(serve: Serve, parts: list[bytes], state: str, sentence: str) -> None:
    assert run_probe(at(serve(answering(*parts)))) == (state, sentence)


def test_the_request(serve: Serve) -> None:
    seen: list[bytes] = []

    def handle(connection: socket.socket) -> None:
        seen.append(connection.recv(4096))
        connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n")

    port = serve(handle)
    assert run_probe(at(port, "/up?deep=1")).state == HEALTHY
    lines = seen[0].decode().split("\r\n")
    assert lines[0] == "GET /up?deep=1 HTTP/1.0" and f"Host: 127.0.0.1:{port}" in lines and lines[-2:] == ["", ""]


def test_a_server_that_keeps_the_connection_open_is_not_waited_for(serve: Serve) -> None:
    done = threading.Event()
    reply = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nOK"
    port = serve(answering(reply, then=lambda: done.wait(2 * WITHIN)))
    begun = time.monotonic()
    verdict = run_probe(at(port, timeout=2 * WITHIN))
    done.set()
    assert verdict.state == HEALTHY and time.monotonic() - begun < WITHIN


@pytest.mark.parametrize("pace", ["silent", "slow"])
def test_a_hanging_server_costs_the_timeout_and_no_more(serve: Serve, pace: str) -> None:
    done = threading.Event()

    def handle(connection: socket.socket) -> None:
        while not done.wait(0.05):
            if pace == "slow":
                connection.sendall(b"H")

    port = serve(handle)
    begun = time.monotonic()
    verdict = run_probe(at(port, timeout=0.3))
    took = time.monotonic() - begun
    done.set()
    assert verdict == (UNHEALTHY, "no answer within 0.3 s") and 0.29 < took < WITHIN


def test_nobody_listens() -> None:
    port = free_port()
    assert run_probe(at(port)) == (UNHEALTHY, f"nothing listens on port {port}")
    assert run_probe(at(port, check="port")) == (UNHEALTHY, f"nothing listens on port {port}")


def test_a_port_alone(serve: Serve) -> None:
    assert run_probe(at(serve(lambda connection: None), check="port")).state == HEALTHY


def test_a_process_alone() -> None:
    assert run_probe(Probe("process")) == (HEALTHY, "its process runs")


@pytest.mark.parametrize("host", ["nowhere.invalid", "a" * 70 + ".invalid", "x..y"])
def test_a_host_that_does_not_exist(host: str) -> None:
    verdict = run_probe(Probe(url=f"http://{host}:80/", timeout=2.0))
    assert verdict.state == UNHEALTHY and verdict.sentence.isprintable()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    words = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1"]
    name = ["-subj", "/CN=localhost", "-keyout", str(path), "-out", f"{path}.crt"]
    subprocess.run(["openssl", *words, *name], check=True, capture_output=True)
    path.write_text(path.read_text() + Path(f"{path}.crt").read_text())
    return path


def test_tls(serve: Serve, certificate: Path) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)

    def handle(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as secured:
            secured.recv(4096)
            secured.sendall(b"HTTP/1.0 200 OK\r\n\r\n")

    url = f"https://127.0.0.1:{serve(handle)}/health"
    assert run_probe(Probe(url=url, timeout=WITHIN)).state == HEALTHY
    verdict = run_probe(Probe(url=url, verify=True, timeout=WITHIN))
    assert verdict.state == UNHEALTHY and verdict.sentence.startswith("no TLS connection (")
    plain = serve(answering(b"HTTP/1.0 400 Bad Request\r\n\r\n"))
    verdict = run_probe(Probe(url=f"https://127.0.0.1:{plain}/", timeout=WITHIN))
    assert verdict.state == UNHEALTHY and verdict.sentence.startswith("no TLS connection (")


def sleeper() -> "subprocess.Popen[bytes]":
    return subprocess.Popen(["sleep", "100"])


def test_waiting_ends_when_it_is_healthy(serve: Serve) -> None:
    answers = iter([b"HTTP/1.0 500 X\r\n\r\n"] * 3 + [b"HTTP/1.0 200 OK\r\n\r\n"] * 9)
    port = serve(lambda connection: answering(next(answers))(connection))
    process = sleeper()
    try:
        assert wait(at(port), process.pid, within=WITHIN, settle=0) == (HEALTHY, "answered 200")
        assert next(answers).startswith(b"HTTP/1.0 200"), "it was asked four times, no more"
    finally:
        process.kill()
        process.wait()
    assert len(list(answers)) == 7


def test_waiting_ends_when_the_process_does() -> None:
    process = sleeper()
    threading.Timer(0.2, process.kill).start()
    begun = time.monotonic()
    assert wait(at(free_port()), process.pid, within=2 * WITHIN, settle=0) is None
    assert time.monotonic() - begun < WITHIN
    process.wait()
    assert wait(at(free_port()), process.pid, within=60, settle=0) is None, "it had ended before"


def test_waiting_ends_when_the_time_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe_module, "own_control_group", lambda: "")
    port = free_port()
    verdict = wait(at(port), os.getpid(), within=0.2, settle=0)
    assert verdict == (UNHEALTHY, f"nothing listens on port {port}")


def test_a_service_without_a_port_has_to_live_briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe_module, "ANSWERED_PAUSE", 2 * WITHIN)  # there is nothing to ask again
    begun = time.monotonic()
    assert wait(Probe("process"), os.getpid(), within=5, settle=0.2) == (HEALTHY, "its process runs")
    assert 0.2 <= time.monotonic() - begun < WITHIN
    process = sleeper()
    threading.Timer(0.1, process.kill).start()
    assert wait(Probe("process"), process.pid, within=5, settle=2 * WITHIN) is None
    process.wait()


def run(pid: int, *words: str, program: Path = PROGRAM) -> "subprocess.CompletedProcess[str]":
    """Run a program as units do."""
    command = [str(program), *words]
    return subprocess.run(command, env={"MAINPID": str(pid)}, capture_output=True, text=True, timeout=60)


def test_the_program_for_a_service_without_a_port() -> None:
    begun = time.monotonic()
    done = run(os.getpid(), program=WAIT_PROCESS)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert time.monotonic() - begun >= 0.1
    process = sleeper()
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    done = run(process.pid, program=WAIT_PROCESS)
    assert (done.returncode, done.stderr) == (2, ""), "it has ended, and nobody has noticed"
    process.wait()
    done = run(process.pid, program=WAIT_PROCESS)
    assert (done.returncode, done.stderr) == (2, ""), "it is gone"


def test_a_process_s_name_does_not_confuse_the_program(tmp_path: Path) -> None:
    """A process chooses its name, which is in the line that has its state."""
    name = ") Z 1 ("
    (tmp_path / name).symlink_to("/usr/bin/sleep")
    process = subprocess.Popen([tmp_path / name, "100"])
    try:
        until(lambda: name in Path(f"/proc/{process.pid}/stat").read_text())
        assert run(process.pid, program=WAIT_PROCESS).returncode == 0
    finally:
        process.kill()
        process.wait()


def test_the_program(serve: Serve) -> None:
    port = serve(answering(b"HTTP/1.0 401 X\r\n\r\n"))
    service = Service("x", port=port, health=Health(expect=(401,), timeout=WITHIN, start_timeout=0.3))
    done = run(os.getpid(), *probe_words(service))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    done = run(os.getpid(), *probe_words(Service("x", port=port, health=Health(timeout=WITHIN, start_timeout=0.3))))
    assert done.returncode == 1
    assert done.stderr.startswith(f"not healthy within 0.3 s: GET http://localhost:{port}/health: answered 401: ")
    gone = sleeper()
    gone.send_signal(signal.SIGKILL)
    gone.wait()
    assert run(gone.pid, *probe_words(service)).returncode == 2


def loaded_after(statements: str) -> set[str]:
    """The modules that an isolated interpreter has loaded after STATEMENTS."""
    code = f"import sys; sys.path.insert(0, {str(TOP)!r}); {statements}; print(*sys.modules)"
    command = ["/usr/bin/python3", "-I", "-S", "-Xutf8", "-c", code]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


def test_the_programs_of_units_import_next_to_nothing(serve: Serve, tmp_path: Path) -> None:
    """They run beside every start, so what they load delays every start."""
    port = serve(answering(b"HTTP/1.0 200 OK\r\n\r\n"))
    words = probe_words(Service("x", port=port, health=Health(timeout=WITHIN)))
    (tmp_path / "source").touch()
    before = [f"port={free_port()}", "host=localhost", f"discovery={tmp_path}/source", f"directory={tmp_path}"]
    for program, given in (("helmd.health.start_probe", words), ("helmd.systemd.prestart", before)):
        loaded = loaded_after(f"from {program} import main; assert main({given!r}) == 0")
        assert program in loaded and not loaded & {"collections", "enum", "re", "socket", "typing"}


def test_the_probe_imports_little() -> None:
    assert not loaded_after("import helmd.health.probe") & {
        "json",
        "ssl",
        "http.client",
        "urllib.request",
        "asyncio",
        "dataclasses",
        "subprocess",
        "email",
    }


def test_which_probe_a_service_wants() -> None:
    core = Service("core", url="http://core.example:5000", port=5000, health=Health(path="/up", start_path="/ready"))
    assert (probe_of(core).url, probe_of(core).port) == ("http://core.example:5000/up", 5000)
    assert probe_of(core, starting=True).url == "http://core.example:5000/ready"
    nexus = Service("nexus", url="https://desk.example", port=8443)
    assert (probe_of(nexus).url, probe_of(nexus).port) == ("https://desk.example/health", 8443)
    external = Service("mail", "external", url="https://mail.example/base/")
    assert (probe_of(external).url, probe_of(external).port) == ("https://mail.example/base/health", 0)
    realm = Service("keycloak", "keycloak", port=8080, realm="master", health=Health(check="realm"))
    assert probe_of(realm).url == "http://localhost:8080/realms/master/.well-known/openid-configuration"
    assert probe_of(realm).realm == "master"
    quiet = Service("job", "command", health=Health(check="process"))
    assert probe_of(quiet).url == "" and probe_of(quiet).asked == "its process"
    assert probe_words(quiet) == ["check=process", "timeout=2", "within=60"]
    port = Service("db", port=5433, health=Health(check="port"))
    assert probe_of(port).asked == "port 5433"


SIMPLE = {"check": "http", "url": "http://localhost:5000/health", "port": "5000"}


@pytest.mark.parametrize(
    ("given", "simple"),
    [
        ({}, True),
        ({"url": "http://0.0.0.0:5000/up?deep=1"}, True),
        ({"check": "port", "url": "http://127.0.0.1"}, True),
        ({"check": "process", "url": ""}, False),
        ({"check": "realm", "realm": "desk"}, False),
        ({"url": "https://localhost:5000/health"}, False),
        ({"url": "http://127.0.0.2:5000/health"}, False),
        ({"url": "http://[::1]:5000/health"}, False),
        ({"url": "http://desk.example/health"}, False),
        ({"url": "http://localhost:5000@desk.example/health"}, False),
        ({"url": "http://localhost?to=/health"}, False),
        ({"port": "0"}, False),
    ],
    ids=str,
)
def test_which_checks_the_program_makes_by_itself(given: dict[str, str], simple: bool) -> None:
    assert is_simple({**SIMPLE, **given}) == simple


def test_a_simple_check_makes_the_same_request(serve: Serve) -> None:
    seen: list[bytes] = []

    def handle(connection: socket.socket) -> None:
        seen.append(connection.recv(4096))
        connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n")

    port = serve(handle)
    for url in (f"http://localhost:{port}", f"http://localhost:{port}/", f"http://0.0.0.0:{port}/up?deep=1"):
        words = {**SIMPLE, "url": url, "port": str(port), "within": "9", "timeout": str(WITHIN)}
        assert wait_simply(words, os.getpid(), time.monotonic()) == 0
        assert run_probe(Probe(url=url, port=port, timeout=WITHIN)).state == HEALTHY
        assert seen[-1] == seen[-2]


@pytest.mark.parametrize(
    ("response", "expect", "ended"),
    [
        (b"HTTP/1.1 204 X\r\n\r\n", "", 0),
        (b'HTTP/1.1 200 X\r\n\r\n{"status": "degraded"}', "", 0),
        (b"HTTP/1.1 429 X\r\n\r\n", "", 0),
        (b"HTTP/1.1 401 X\r\n\r\n", "401,403", 0),
        (b"HTTP/1.1 200 X\r\n\r\n", "401,403", None),
        (b'HTTP/1.1 503 X\r\n\r\n{"status": "degraded"}', "", None),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "", None),
        (b"", "", None),
    ],
    ids=str,
)
def test_a_simple_check_leaves_what_it_does_not_know_to_the_probe(
    serve: Serve, response: bytes, expect: str, ended: int | None
) -> None:
    port = serve(answering(response))
    given = {**SIMPLE, "url": f"http://localhost:{port}/", "port": str(port), "within": "9", "timeout": str(WITHIN)}
    assert wait_simply({**given, "expect": expect} if expect else given, os.getpid(), time.monotonic()) == ended


def test_a_simple_check_waits_while_nothing_listens() -> None:
    port = free_port()
    given = {**SIMPLE, "url": f"http://localhost:{port}/", "port": str(port), "within": str(WITHIN)}
    with listening_at("::1", port):
        assert wait_simply({**given, "check": "port"}, os.getpid(), time.monotonic()) == 0, "as Node takes it"
    process = sleeper()
    threading.Timer(0.2, process.kill).start()
    assert wait_simply(given, process.pid, time.monotonic()) == 2
    process.wait()
    assert wait_simply(given, process.pid, time.monotonic()) == 2, "it had ended before"
    assert wait_simply(given, os.getpid(), time.monotonic() - WITHIN) is None, "it may listen elsewhere"


def test_a_starting_service_that_answers_is_asked_twice_a_second_at_most(serve: Serve) -> None:
    """One on whose port nothing listens is asked as soon as something does."""
    times: list[float] = []

    def pauses() -> list[float]:
        return [later - sooner for sooner, later in itertools.pairwise(times)]

    def handle(connection: socket.socket) -> None:
        times.append(time.monotonic())
        often = len(times) >= 4 and min(pauses()) < 0.65
        answering(b"HTTP/1.0 200 OK\r\n\r\n" if often else b"HTTP/1.0 500 X\r\n\r\n")(connection)

    assert wait(at(serve(handle)), os.getpid(), within=WITHIN, settle=0) == (HEALTHY, "answered 200")
    assert min(pauses()) > 0.45


def test_what_may_never_change_is_said_early_and_once(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe_module, "SAID_AFTER", 0.2)
    said: list[str] = []
    answers = iter([b"HTTP/1.0 404 X\r\n\r\n"] * 4 + [b"HTTP/1.0 200 OK\r\n\r\n"])
    port = serve(lambda connection: answering(next(answers))(connection))
    assert wait(at(port), os.getpid(), WITHIN, 0, said.append) == (HEALTHY, "answered 200")
    assert len(said) == 1 and said[0].startswith("not healthy yet after ") and "set health.path" in said[0]
    said.clear()
    monkeypatch.setattr(probe_module, "own_control_group", lambda: "")
    wait(at(free_port()), os.getpid(), 0.5, 0, said.append)
    assert said == [], "it only takes its time"


def listening_at(address: str, port: int = 0) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((address, port))
    listener.listen()
    return listener


@pytest.mark.parametrize("address", ["::1", "127.0.0.9", "127.0.0.1"])
def test_a_service_is_asked_at_the_address_of_its_url(address: str) -> None:
    shown = f"[{address}]" if ":" in address else address
    with listening_at(address) as listener:
        port = listener.getsockname()[1]
        service = Service("x", url=f"http://{shown}:{port}", port=port, health=Health(check="port"))
        assert run_probe(probe_of(service)).state == HEALTHY
        if address == "::1":
            # As Node takes it.
            assert run_probe(probe_of(replace(service, url=f"http://localhost:{port}"))).state == HEALTHY
            assert run_probe(probe_of(replace(service, url=f"http://127.0.0.1:{port}"))).state == UNHEALTHY
        if address == "127.0.0.9":
            sentence = f"nothing listens on port {port}"
            assert run_probe(probe_of(replace(service, url=f"http://localhost:{port}"))) == (UNHEALTHY, sentence)
            sentence = f"nothing listens on 127.0.0.8:{port}"
            assert run_probe(probe_of(replace(service, url=f"http://127.0.0.8:{port}"))) == (UNHEALTHY, sentence)


def test_a_name_is_the_host_header_and_is_asked_on_this_host(serve: Serve) -> None:
    seen: list[bytes] = []

    def handle(connection: socket.socket) -> None:
        seen.append(connection.recv(4096))
        connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n")

    port = serve(handle)
    for url in (f"http://tickets.example.invalid:{port}", "http://tickets.example.invalid"):
        assert run_probe(probe_of(Service("x", url=url, port=port, health=Health(timeout=WITHIN)))).state == HEALTHY
        assert f"\r\nHost: {url.removeprefix('http://')}\r\n".encode() in seen[-1]
    assert f"\r\nUser-Agent: {USER_AGENT}\r\n".encode() in seen[-1]


def test_tls_where_there_is_none_and_the_other_way_round(serve: Serve, certificate: Path) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)

    def handle(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as secured:
            secured.recv(4096)

    def refusing(connection: socket.socket) -> None:
        """As nginx and Go's server do."""
        if connection.recv(1, socket.MSG_PEEK) == b"\x16":
            handle(connection)
        else:
            answering(b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.")(connection)

    for server in (handle, refusing):
        assert 'it speaks TLS on this port: set url = "https://..."' in run_probe(at(serve(server))).sentence
    plain = serve(answering(b"HTTP/1.0 200 OK\r\n\r\n"))
    sentence = run_probe(Probe(url=f"https://127.0.0.1:{plain}/", timeout=WITHIN)).sentence
    assert 'it speaks plain HTTP on this port: set url = "http://..."' in sentence
    assert (
        "answered 400: if it wants another Host"
        in run_probe(at(serve(answering(b"HTTP/1.0 400 Bad Request\r\n\r\n")))).sentence
    )


@pytest.mark.parametrize(("code", "state"), [(404, HEALTHY), (500, UNHEALTHY), (None, UNHEALTHY)])
def test_keycloak_is_asked_for_something_that_it_has_no_copy_of(serve: Serve, code: int | None, state: str) -> None:
    issuer = b'HTTP/1.0 200 OK\r\n\r\n{"issuer": "http://localhost/realms/desk"}'

    def handle(connection: socket.socket) -> None:
        if b" /realms/desk/" in connection.recv(4096):
            connection.sendall(issuer)
        elif code is not None:
            connection.sendall(f"HTTP/1.0 {code} X\r\n\r\n".encode())

    health = Health(check="realm", timeout=WITHIN)
    service = Service("idp", "keycloak", port=serve(handle), realm="desk", health=health)
    verdict = run_probe(probe_of(service))
    assert verdict.state == state
    if state == UNHEALTHY:
        assert verdict.sentence.startswith("realm desk is available from its cache alone: its database fails (")
