"""helmd's sockets are systemd's: whoever posts while it restarts is answered, and nothing it does closes them."""

import json
import secrets
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.system.booted import TOP, Sandbox, until

SETTINGS = "/home/hive/.config/hivematrix/helm.toml"
SOCKETS = ("helmd.socket", "helmd-http.socket")
RATE = 400
HEALTH = "curl -s --max-time 30 -o /dev/null -w %{http_code}"


@pytest.fixture
def settings(demo: Sandbox) -> Iterator[str]:
    """The text of helm.toml, which is restored afterwards."""
    text = demo("cat", SETTINGS).out
    try:
        yield text
    finally:
        demo.write(SETTINGS, text)
        demo.helmctl("apply")
        until(lambda: states(demo) == dict.fromkeys((*SOCKETS, "helmd.service"), "active"), 30)


def states(box: Sandbox) -> dict[str, str]:
    units = (*SOCKETS, "helmd.service")
    shown = box("systemctl", "--user", "show", "-P", "ActiveState", *units).out.split()
    return dict(zip(units, shown, strict=True))


def setting(text: str, table: str, line: str) -> str:
    """TEXT of a helm.toml with LINE put into its TABLE, which it has."""
    assert f"\n[{table}]\n" in text
    return text.replace(f"\n[{table}]\n", f"\n[{table}]\n{line}\n", 1)


@contextmanager
def posting(box: Sandbox, seconds: float, port: int = 5004) -> Iterator[tuple[str, dict[str, Any]]]:
    """Posts under a name of its own meanwhile; the name, and the result once this is left."""
    service, result = f"poster-{secrets.token_hex(3)}", dict[str, Any]()
    box.script("copy", str(TOP / "tests/system/ingest_load.py"), "/tmp/ingest_load.py")
    command = box.command("python3", "/tmp/ingest_load.py", str(RATE), str(seconds), service, str(port))
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as poster:
        time.sleep(2)
        yield service, result
        out, _ = poster.communicate(timeout=seconds + 60)
    result |= json.loads(out)


def stored(box: Sandbox, service: str) -> tuple[int, int]:
    """How many entries of SERVICE the store has, and how many different ones."""
    query = f"SELECT count(*), count(DISTINCT message) FROM log_entries WHERE service_name = '{service}'"
    entries, different = box.sql(query).split("|")
    return int(entries), int(different)


def test_ten_restarts_refuse_nobody(demo: Sandbox, settings: str) -> None:
    demo.write(SETTINGS, setting(settings, "ingest", 'anonymous = "loopback"'))
    demo.helmctl("apply")
    with posting(demo, 45) as (service, result):
        for _ in range(10):
            demo("systemctl", "--user", "restart", "helmd.service")
            time.sleep(1.5)
    print(f"{result['accepted']} posts over ten restarts, the slowest took {result['slowest']:.2f} s")
    assert result["failed"] == []
    assert result["accepted"] > RATE * 40
    until(lambda: stored(demo, service)[0] >= result["accepted"], 60)
    assert stored(demo, service) == (result["accepted"], result["accepted"])


def test_a_kill_refuses_nobody_who_comes_afterwards(demo: Sandbox) -> None:
    demo("systemctl", "--user", "kill", "--signal=KILL", "helmd.service")
    assert demo.shell(f"{HEALTH} http://127.0.0.1:5004/health").out in ("200", "503")
    assert demo.shell(f"{HEALTH} --unix-socket $XDG_RUNTIME_DIR/hivematrix/helm.sock http://helm/health").code == 0


def test_a_connection_starts_helmd(demo: Sandbox) -> None:
    demo("systemctl", "--user", "stop", "helmd.service")
    assert states(demo) == {"helmd.socket": "active", "helmd-http.socket": "active", "helmd.service": "inactive"}
    assert demo.shell(f"{HEALTH} http://127.0.0.1:5004/health").out in ("200", "503")
    assert states(demo)["helmd.service"] == "active"


def test_a_broken_configuration_and_many_connections_leave_the_sockets_active(demo: Sandbox, settings: str) -> None:
    moved = setting(settings, "http", "port = 6104")
    demo.write(SETTINGS, moved)
    demo.helmctl("apply")
    demo.write(SETTINGS, moved + "\n[http\n")
    demo("systemctl", "--user", "restart", "helmd.service")
    many = f"for n in $(seq 100); do {HEALTH} http://127.0.0.1:6104/health & done; wait"
    codes = demo.shell(many).out
    assert codes in ("200" * 100, "503" * 100) or set(codes) <= set("2053")
    assert len(codes) == 300
    assert set(states(demo).values()) == {"active"}
    body = json.loads(demo.shell("curl -s http://127.0.0.1:6104/health").out)
    assert body["checks"]["configuration"]["faults"] >= 1


def test_sockets_stay_though_helmd_cannot_start(demo: Sandbox) -> None:
    """Worse than anything in its files: its program ends at once. Triggered again and again, they must not fail.

    Nor is it started without a pause while clients wait, and helmctl status says what is wrong.
    """
    drop_in = "/home/hive/.config/systemd/user/helmd.service.d/broken.conf"
    demo.write(drop_in, "[Service]\nExecStart=\nExecStart=/bin/false\n")
    try:
        demo.shell("systemctl --user daemon-reload; systemctl --user restart helmd.service", check=False)
        demo.shell(f"for n in $(seq 100); do {HEALTH} --max-time 3 http://127.0.0.1:5004/health & done; wait")
        found = states(demo)
        assert (found["helmd.socket"], found["helmd-http.socket"]) == ("active", "active")
        count = "systemctl --user show -P NRestarts helmd.service"
        waits = f"{HEALTH} --max-time 10 --unix-socket $XDG_RUNTIME_DIR/hivematrix/helm.sock http://helm/health"
        first, last = map(int, demo.shell(f"{count}; {waits} > /dev/null; {count}").out.split())
        assert 3 <= last - first <= 11, "RestartSec=1s"
        said = demo.helmctl("status").err
        assert "helmd.service is flapping: systemd has restarted it " in said and "exited with code 1" in said, said
        assert "helmd.service is flapping: systemd has restarted it " in demo.helmctl("doctor", check=False).out
    finally:
        demo.shell(f"rm -rf {drop_in.rpartition('/')[0]}; systemctl --user daemon-reload")
    assert demo.shell(f"{HEALTH} http://127.0.0.1:5004/health").out in ("200", "503")


def test_apply_moves_the_tcp_socket(demo: Sandbox, settings: str) -> None:
    demo.write(SETTINGS, setting(settings, "http", "port = 6105"))
    assert "helmd-http.socket: changed" in demo.helmctl("apply").text
    assert demo.shell(f"{HEALTH} http://127.0.0.1:6105/health").out in ("200", "503")
    assert demo.shell(f"{HEALTH} http://127.0.0.1:5004/health", check=False).code == 7
    assert set(states(demo).values()) == {"active"}


def test_a_taken_port_costs_tcp_alone(demo: Sandbox, settings: str) -> None:
    unix = "--unix-socket $XDG_RUNTIME_DIR/hivematrix/helm.sock http://helm/health"

    def check() -> dict[str, str]:
        found: dict[str, str] = json.loads(demo.shell(f"curl -s {unix}").out)["checks"]["http"]
        return found

    holder = "import socket, time; s = socket.create_server(('127.0.0.1', 6106)); time.sleep(600)"
    taken = demo.command("python3", "-c", holder)
    with subprocess.Popen(taken) as process:
        try:
            until(lambda: demo.shell("ss -ltn | grep -c :6106 || true").out.strip() == "1", 30)
            demo.write(SETTINGS, setting(settings, "http", "port = 6106"))
            demo.helmctl("apply")
            assert states(demo) == {"helmd.socket": "active", "helmd-http.socket": "failed", "helmd.service": "active"}
            assert "port 6106 is taken" in check()["message"]
            assert "port 6106 is taken" in demo("systemctl", "--user", "show", "-P", "StatusText", "helmd").out
            assert "helmd-http.socket is failed" in demo.helmctl("doctor", check=False).text
        finally:
            demo.shell("pkill -f '[c]reate_server.*6106'", check=False)
            process.wait(10)
    until(lambda: check() == {"status": "healthy"}, 30)
    assert demo.shell(f"{HEALTH} http://127.0.0.1:6106/health").out in ("200", "503")
    demo("systemctl", "--user", "restart", "helmd.service")
    assert set(states(demo).values()) == {"active"}, "systemd has it from the next start on"
    assert "socket" not in demo.helmctl("doctor", check=False).text


def test_a_package_without_sockets_is_upgraded_under_a_running_suite(demo: Sandbox, settings: str) -> None:
    """An account as an older package left it: no socket units, and a helmd that made its sockets itself."""
    demo.write(SETTINGS, setting(settings, "ingest", 'anonymous = "loopback"'))
    units = " ".join(f"~/.local/share/systemd/user/{unit}" for unit in SOCKETS)
    demo.shell(
        f"systemctl --user disable --now {' '.join(SOCKETS)}; rm -f {units}; systemctl --user daemon-reload;"
        " systemctl --user restart helmd.service"
    )
    assert "is not installed" in demo.helmctl("doctor", check=False).text
    before = {name: entry["pid"] for name, entry in demo.status().items()}
    with posting(demo, 25) as (service, result):
        demo("dpkg-reconfigure", "--frontend=noninteractive", "hivematrix-helm", root=True)
    assert set(states(demo).values()) == {"active"}
    listed = demo("systemctl", "--user", "list-unit-files", "--no-legend", *SOCKETS).out.split()
    assert listed.count("enabled") >= 2
    assert "socket" not in demo.helmctl("doctor", check=False).text
    assert {name: entry["pid"] for name, entry in demo.status().items()} == before, "services run on"
    seconds = [at for _, _, at in result["failed"]]
    lasted = max(seconds, default=0.0) - min(seconds, default=0.0)
    print(f"{len(seconds)} of {RATE * 25} posts were refused, within {lasted:.2f} s")
    assert lasted < 5, "only while the sockets changed hands"
    until(lambda: stored(demo, service)[1] >= result["accepted"], 60)
    assert stored(demo, service)[0] == stored(demo, service)[1], "a post that was cut off is not stored twice"
