"""What every unit does before its service starts: refusing a taken port, placing ``services.json``."""

import json
import os
import socket
import subprocess
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from helmd.health.control_group import own_control_group
from helmd.health.listeners import conflict, holder_of, unit_listeners
from helmd.model.config.settings import Settings
from helmd.model.config.toml_tables import ConfigSource
from helmd.model.suite.composition import whole_suite
from helmd.model.suite.discovery import discovery_document, master_document
from helmd.model.suite.registry import read_registry
from helmd.systemd.prestart import place_discovery
from tests.catalogue import CATALOGUE
from tests.waiting import WITHIN

TOP = Path(__file__).resolve().parents[2]
PROGRAM = TOP / "packaging/libexec/prestart"


@pytest.fixture
def place(tmp_path: Path) -> tuple[Path, Path]:
    """Return the suite's document, and a service's directory."""
    source, directory = tmp_path / "source.json", tmp_path / "service"
    source.write_text('{"core": {}}\n')
    directory.mkdir()
    return source, directory


def put(source: Path, directory: Path) -> bool:
    return place_discovery(str(source), str(directory))


def test_written_once_and_readable_for_all(place: tuple[Path, Path]) -> None:
    source, directory = place
    old = os.umask(0o077)
    try:
        assert put(source, directory)
    finally:
        os.umask(old)
    found = directory / "services.json"
    assert found.read_text() == source.read_text() and found.stat().st_mode & 0o7777 == 0o644
    before = found.stat()
    assert not put(source, directory)
    after = found.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert [path.name for path in directory.iterdir()] == ["services.json"]


def test_a_service_whose_start_is_blocked_says_why(place: tuple[Path, Path], tmp_path: Path) -> None:
    source, directory = place
    words = [str(PROGRAM), f"discovery={source}", f"directory={directory}", f"blocked={tmp_path / 'block'}"]
    (tmp_path / "block").write_text("codex is not started: its update goes on\n")
    done = subprocess.run(words, capture_output=True, text=True, timeout=WITHIN, check=False)
    assert (done.returncode, done.stderr) == (1, "codex is not started: its update goes on\n")
    assert not list(directory.iterdir())
    (tmp_path / "block").unlink()
    assert subprocess.run(words, capture_output=True, timeout=WITHIN, check=False).returncode == 0


def test_a_directory_that_the_account_may_not_write_to_is_no_failure(place: tuple[Path, Path]) -> None:
    """Such as one of root's. Another fault, such as a directory that is gone, is one."""
    source, directory = place
    source.chmod(0o644)
    for parent in [source.parent, *source.parent.parents]:
        if parent.stat().st_uid == os.getuid() and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o055)
    directory.chmod(0o555)
    words = [str(PROGRAM), f"discovery={source}", f"directory={directory}"]
    drop = ["setpriv", "--reuid=65534", "--clear-groups"] if os.getuid() == 0 else []
    done = subprocess.run([*drop, *words], capture_output=True, text=True, timeout=WITHIN)
    assert done.returncode == 0, done.stderr
    assert f"HIVEMATRIX_SERVICES_JSON names the file to read instead, {source}" in done.stderr
    assert not list(directory.iterdir())
    gone = [str(PROGRAM), f"discovery={source}", f"directory={directory}x"]
    assert subprocess.run(gone, capture_output=True, timeout=WITHIN).returncode == 1


def test_written_when_it_changed(place: tuple[Path, Path]) -> None:
    source, directory = place
    put(source, directory)
    source.write_text('{"nexus": {}}\n')
    assert put(source, directory) and (directory / "services.json").read_text() == '{"nexus": {}}\n'
    (directory / "services.json").chmod(0o600)
    assert put(source, directory) and (directory / "services.json").stat().st_mode & 0o777 == 0o644


def test_a_link_is_replaced_and_never_written_through(place: tuple[Path, Path], tmp_path: Path) -> None:
    source, directory = place
    victim = tmp_path / "victim"
    for content in ("precious", source.read_text()):
        victim.write_text(content)
        found = directory / "services.json"
        found.unlink(missing_ok=True)
        found.symlink_to(victim)
        assert put(source, directory)
        assert victim.read_text() == content
        assert not found.is_symlink() and found.read_text() == source.read_text()


def test_a_dangling_link_makes_no_file_elsewhere(place: tuple[Path, Path], tmp_path: Path) -> None:
    source, directory = place
    (directory / "services.json").symlink_to(tmp_path / "nowhere")
    assert put(source, directory) and not (tmp_path / "nowhere").exists()


def test_a_hard_link_is_not_written_through(place: tuple[Path, Path], tmp_path: Path) -> None:
    source, directory = place
    (tmp_path / "victim").write_text("precious")
    (directory / "services.json").hardlink_to(tmp_path / "victim")
    assert put(source, directory) and (tmp_path / "victim").read_text() == "precious"


def test_a_pipe_in_its_place_is_replaced(place: tuple[Path, Path]) -> None:
    source, directory = place
    os.mkfifo(directory / "services.json")
    assert put(source, directory) and (directory / "services.json").is_file()


def test_what_can_not_be_replaced_is_an_error_that_leaves_nothing(place: tuple[Path, Path]) -> None:
    source, directory = place
    (directory / "services.json/inside").mkdir(parents=True)
    with pytest.raises(OSError, match=r"Is a directory.*services\.json"):
        put(source, directory)
    assert [path.name for path in directory.iterdir()] == ["services.json"]


def test_a_reader_sees_the_old_or_the_new_one(place: tuple[Path, Path]) -> None:
    source, directory = place
    texts = ['{"a": "' + "a" * 200_000 + '"}', '{"b": "' + "b" * 300_000 + '"}']
    source.write_text(texts[0])
    put(source, directory)
    over, seen = threading.Event(), set()

    def read() -> None:
        while not over.is_set():
            seen.add((directory / "services.json").read_text())

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(40):
        source.write_text(texts[number % 2])
        put(source, directory)
    over.set()
    reader.join()
    assert seen <= set(texts)


def run(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([str(PROGRAM), *words], capture_output=True, text=True, timeout=60)


def test_a_taken_port_is_refused_naming_its_holder(place: tuple[Path, Path]) -> None:
    source, directory = place
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        done = run(f"port={port}", f"discovery={source}", f"directory={directory}")
        assert done.returncode == 1
        assert done.stderr.startswith(f"port {port} is in use by pid {os.getpid()}, ")
        assert not (directory / "services.json").exists()
    done = run(f"port={port}", f"discovery={source}", f"directory={directory}")
    assert (done.returncode, done.stderr) == (0, "") and (directory / "services.json").exists()


def test_a_directory_that_is_gone_is_said(place: tuple[Path, Path]) -> None:
    source, directory = place
    done = run(f"discovery={source}", f"directory={directory}/gone")
    assert done.returncode == 1
    assert done.stderr.startswith(f"can't place services.json in {directory}/gone: ") and "Traceback" not in done.stderr


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0", "::1", "::", "::ffff:127.0.0.1"])
def test_who_listens(address: str) -> None:
    """On whatever local address. Java listens on the mapped one."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as listener:
        listener.bind((address, 0))
        port = listener.getsockname()[1]
        assert holder_of(port) is None, "bound, but not listening"
        listener.listen()
        holder = holder_of(port)
        assert holder is not None and (holder.pid, holder.uid) == (os.getpid(), os.getuid())
        client = socket.create_connection((address, port))
        listener.close()
        with client:
            assert holder_of(port) is None, "a connection is not a listener"


def test_a_holder_is_printable(tmp_path: Path) -> None:
    listens = "s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True)"
    script = f"import socket, sys; {listens}; sys.stdin.read()"
    words = ["/usr/bin/python3", "-c", script, "\x1b[2J\n" + "x" * 300]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin and process.stdout
    try:
        holder = holder_of(int(process.stdout.readline()))
        assert holder is not None and holder.pid == process.pid
        assert str(holder).isprintable() and len(str(holder)) < 200
    finally:
        process.communicate()


def test_the_documents() -> None:
    text = "[services.keycloak]\n[services.core]\n[services.codex]\nbilling_or_admin_only = true\n"
    text += '[services.job]\ntype = "command"\nstart_command = "run"\n'
    suite = whole_suite(read_registry([CATALOGUE, ConfigSource("file", text)], {}), Settings(url="http://desk:5004"))
    found = json.loads(discovery_document(suite, Settings(url="http://desk:5004", port=5004)))
    assert sorted(found) == ["codex", "core", "helm", "keycloak"], "neither what has no address nor the database"
    assert found["codex"] == {
        "url": "http://localhost:5010", "visible": True, "admin_only": False, "billing_or_admin_only": True
    }  # fmt: skip
    assert found["keycloak"]["admin_only"] is True and found["keycloak"]["visible"] is False
    assert found["helm"] == {
        "url": "http://desk:5004", "visible": True, "admin_only": True, "billing_or_admin_only": False
    }  # fmt: skip
    master = json.loads(master_document(suite, Settings(url="http://desk:5004", port=5004)))
    assert master["core"] == {
        "url": "http://localhost:5000", "port": 5000, "description": "Core: tokens and identity"
    }  # fmt: skip
    assert master["helm"]["port"] == 5004


def bound(address: str, port: int = 0, *options: tuple[int, int, int]) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    for option in options:
        listener.setsockopt(*option)
    listener.bind((address, port))
    listener.listen()
    return listener


def port_of_nobody() -> int:
    """Return a port that is free at every address, and that the kernel gives no other process (ip(7),
    ip_local_port_range).
    """
    for port in range(10_000 + os.getpid() % 20_000, 32_768):
        with suppress(OSError), bound("::", port):
            return port
    raise AssertionError("no port is free")


V6ONLY = (socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
SHARED = (socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)


@pytest.mark.parametrize(
    ("taken", "options", "host", "meets"),
    [
        ("127.0.0.2", [], "localhost", False),
        ("127.0.0.2", [], "127.0.0.2", True),
        ("127.0.0.2", [], "0.0.0.0", True),
        ("127.0.0.2", [], "::", True),
        ("127.0.0.1", [], "localhost", True),
        ("127.0.0.1", [], "service.example.invalid", True),
        ("127.0.0.1", [], "::1", False),
        ("0.0.0.0", [], "localhost", True),
        ("0.0.0.0", [], "::1", False),
        ("::1", [], "localhost", False),
        ("::1", [], "::1", True),
        ("::", [], "localhost", True),
        ("::", [V6ONLY], "localhost", False),
        ("::", [V6ONLY], "::1", True),
        ("::ffff:127.0.0.1", [], "localhost", True),
        ("127.0.0.1", [SHARED], "localhost", False),
    ],
    ids=str,
)
def test_a_conflict_is_what_a_bind_would_meet(
    taken: str, options: list[tuple[int, int, int]], host: str, meets: bool
) -> None:
    port = port_of_nobody()
    with bound(taken, port, *options):
        found = conflict(host, port)
        assert (found is not None) == meets
        assert found is None or found.pid == os.getpid()
    assert conflict(host, port) is None


def test_where_the_processes_of_a_control_group_listen() -> None:
    """Of this test's own, whichever it is; sockets of other groups are not among them."""
    with bound("127.0.0.7") as one, bound("::1") as other:
        shown = {str(each) for each in unit_listeners(own_control_group())}
        assert {f"127.0.0.7:{one.getsockname()[1]}", f"[::1]:{other.getsockname()[1]}"} <= shown
    assert unit_listeners("/no-such.slice") == []
