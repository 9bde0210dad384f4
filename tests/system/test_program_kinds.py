"""Programs as people have them: scripts around them, other stop signals, PID files, ``::1``, places below ``~/``."""

from collections.abc import Iterator

import pytest

from tests.system.booted import Sandbox, until

HOME = "/home/hive"
PLACE = f"{HOME}/kinds"
UNITS = f"{HOME}/.local/share/systemd/user"

SAVES = """
import signal, sys, time

def save(number, frame):
    print("saving", number)
    time.sleep(0.3)
    open(f"saved-{number}", "w").close()
    sys.exit(0)

signal.signal(signal.SIGTERM, save)
signal.signal(signal.SIGQUIT, save)
print("serving")
while True:
    time.sleep(60)
"""

LEAVES_A_FILE = """#!/usr/bin/python3
import os, sys, time
if os.path.exists("server.pid"):
    sys.exit(f"A server is already running (pid: 7, file: {os.getcwd()}/server.pid).")
open("server.pid", "w").close()
time.sleep(1000)
"""

SIX = """
import http.server, socket

class Server(http.server.HTTPServer):
    address_family = socket.AF_INET6

Server(("::1", 6231), http.server.SimpleHTTPRequestHandler).serve_forever()
"""

FILES = {
    f"{PLACE}/wrapped/run.sh": "#!/bin/sh\nexport A=1\n/usr/bin/python3 serve.py\n",
    f"{PLACE}/wrapped/serve.py": SAVES,
    f"{PLACE}/quits/serve.py": SAVES,
    f"{PLACE}/deaf/serve.py": "import time\nprint('asleep')\ntime.sleep(1000)\n",
    f"{PLACE}/leaves/serve.py": LEAVES_A_FILE,
    f"{PLACE}/six/serve.py": SIX,
    f"{HOME}/bin/of-the-test": "#!/bin/sh\necho run from home\nexec sleep 1000\n",
}


def service(name: str, command: str, more: str = "") -> str:
    return f'[services.{name}]\ntype = "command"\npath = "~/kinds/{name}"\nstart_command = "{command}"\n{more}\n'


REGISTRY = (
    service("wrapped", "./run.sh")
    + service("quits", "/usr/bin/python3 serve.py", 'stop_signal = "SIGQUIT"')
    + service("deaf", "/usr/bin/python3 serve.py", 'stop_signal = "SIGUSR1"')
    + service("leaves", "./serve.py", "restart.delay = 30")
    + service("six", "/usr/bin/python3 serve.py", 'port = 6231\nhealth.path = "/"')
    + service("below-home", "~/bin/of-the-test")
    + service("never", "/usr/bin/sleep 1000", "port = 6232")
)


@pytest.fixture(scope="module")
def kinds(demo: Sandbox) -> Iterator[Sandbox]:
    demo.shell(f"mkdir -p {PLACE}/below-home {PLACE}/never")
    for path, text in FILES.items():
        demo.write(path, text)
    demo("chmod", "755", *FILES)
    try:
        demo.register("kinds", REGISTRY)
        demo.helmctl("start", "wrapped", "quits", "deaf", "leaves", "six", "below-home")
        yield demo
    finally:
        demo.unregister()
        demo("rm", "-rf", PLACE, f"{HOME}/bin/of-the-test")


def printed(box: Sandbox, name: str) -> list[str]:
    return box("journalctl", "--user", "-u", f"hivematrix-{name}", "-o", "cat").out.splitlines()


@pytest.mark.parametrize(("name", "number"), [("wrapped", 15), ("quits", 3)])
def test_what_ends_gracefully_may_do_so(kinds: Sandbox, name: str, number: int) -> None:
    """The program, not a shell around it, is asked by the signal that it wants. It prints at once."""
    until(lambda: "serving" in printed(kinds, name), 10)
    kinds.helmctl("stop", name)
    assert kinds("test", "-e", f"{PLACE}/{name}/saved-{number}", check=False).code == 0, printed(kinds, name)
    assert kinds.status(name)[name]["active_state"] == "inactive"
    kinds.helmctl("start", name)


def test_the_end_by_its_stop_signal_is_no_failure(kinds: Sandbox) -> None:
    until(lambda: "asleep" in printed(kinds, "deaf"), 10)
    assert "stopped" in kinds.helmctl("stop", "deaf").err
    assert kinds.status("deaf")["deaf"]["active_state"] == "inactive"


def test_a_program_below_the_home_directory_runs(kinds: Sandbox) -> None:
    until(lambda: "run from home" in printed(kinds, "below-home"), 10)


def test_what_takes_localhost_for_ipv6_is_healthy(kinds: Sandbox) -> None:
    assert kinds.status("six")["six"]["health"] == "healthy"


def test_a_pid_file_that_a_killed_run_left_is_named(kinds: Sandbox) -> None:
    until(lambda: kinds("test", "-e", f"{PLACE}/leaves/server.pid", check=False).code == 0, 10)
    kinds("systemctl", "--user", "kill", "-s", "KILL", "hivematrix-leaves")
    kinds.helmctl("stop", "leaves")
    fix = f'set pre_start = ["rm", "-f", "{PLACE}/leaves/server.pid"]'
    refused = kinds.helmctl("start", "leaves", check=False)
    assert refused.code == 1 and fix in refused.err, refused.err
    assert fix in " ".join(kinds.helmctl("why", "leaves").out.split())
    kinds.helmctl("stop", "leaves")


def test_a_stop_during_a_start_is_no_failure(kinds: Sandbox) -> None:
    kinds.helmctl("start", "never", "--no-block")
    until(lambda: kinds.status("never")["never"]["sub_state"] == "start-post", 20)
    done = kinds.helmctl("stop", "never")
    assert "✓ never: stopped" in done.err and "probe" not in done.err, done.err
    assert kinds.status("never")["never"]["active_state"] == "inactive"


def test_a_script_with_line_ends_of_windows_is_refused(kinds: Sandbox) -> None:
    """Its start would fail with "No such file or directory"."""
    script, unit = f"{PLACE}/wrapped/run.sh", f"{UNITS}/hivematrix-wrapped.service"
    before = kinds("cat", unit).out
    kinds("sed", "-i", "s/$/\\r/", script)
    try:
        refused = kinds.helmctl("apply", "wrapped", check=False)
        assert refused.code == 1 and f"script {script} has the line ends of Windows" in refused.err, refused.text
        assert kinds("cat", unit).out == before
    finally:
        kinds("sed", "-i", "s/\\r$//", script)
    assert kinds.helmctl("apply", "wrapped").code == 0
