"""SIGHUP to helmd in the middle of D-Bus calls: no call fails, and units are still watched."""

import json
import time

from tests.system.booted import Sandbox, until

SOCKET = "/run/user/1000/hivematrix/helm.sock"


def status_of(box: Sandbox, service: str) -> str:
    """A service's status as helmd reports it, which reads no unit for the request."""
    done = box("curl", "--silent", "--unix-socket", SOCKET, f"http://helm/api/services/{service}/status")
    return str(json.loads(done.out)["status"])


def test_reloads_interrupt_no_call_and_units_stay_watched(demo: Sandbox) -> None:
    cursor = demo("journalctl", "--user", "-n", "0", "--show-cursor").out.split("cursor: ")[1].strip()
    demo.shell(
        "for i in $(seq 60); do systemctl --user kill -s HUP --kill-who=main helmd; sleep 0.05;"
        " [ $((i % 5)) != 0 ] || systemctl --user daemon-reload; done"
    )
    # The last reload has ended.
    time.sleep(2)
    written = demo("journalctl", "--user", "-u", "helmd", "-o", "cat", f"--after-cursor={cursor}").out
    assert "Interrupted system call" not in written, written
    assert "not watched" not in written, written
    until(lambda: status_of(demo, "ticker") == "running", 30)
    demo("systemctl", "--user", "stop", "hivematrix-ticker")
    try:
        # Well below the interval at which helmd would find it without signals.
        until(lambda: status_of(demo, "ticker") == "stopped", 30)
    finally:
        demo.helmctl("start", "ticker")
    until(lambda: status_of(demo, "ticker") == "running", 30)
