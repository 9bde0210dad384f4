"""An orderly reboot."""

import json

import pytest

from tests.system import printed_lines
from tests.system.booted import Sandbox, until
from tests.system.test_jobs import api, job_of, slow

pytestmark = pytest.mark.runs_last

BACK_WITHIN = 240.0
"""Seconds, on a machine that does other things as well; Keycloak takes most of them."""


def test_suite_comes_back_by_itself(box: Sandbox) -> None:
    """Healthy again with no hand put to it, Keycloak as well; every line from before and after is stored once. A job
    that was running is interrupted.
    """
    printer = printed_lines.register(box, 0, rate=100)
    box.helmctl("enable", printer.name)
    box.helmctl("start", printer.name)
    box.register("slow", slow("slow", 60))
    job_id = api(box, "POST", "/api/services/slow/start", {"wait": False})[1]["job"]["id"]
    old = printed_lines.boot_id(box)
    until(lambda: printer.count() > 300, 60)
    done = box.script("reboot")
    assert done.code == 0, done.text
    box.registered.remove("slow")
    until(lambda: box.helmctl("stop", "slow", check=False).code == 0, 60)
    box.shell("rm ~/.config/hivematrix/services.d/slow.toml; helmctl apply")
    took = printed_lines.wait_until_healthy(box, BACK_WITHIN)
    print(f"up {done.seconds:.1f} s after the reboot was asked for, healthy {took:.1f} s later")
    new = printed_lines.boot_id(box)
    assert new != old
    job = job_of(box, job_id)
    assert (job["state"], job["result"]["detail"]) == ("interrupted", "the machine was restarted before it ended")
    units = [f"hivematrix-{name}.service" for name in printed_lines.SUITE]
    helm = ["helmd.service", "helmd-journal.service", "helmd-postgres.service"]
    shown = box("systemctl", "--user", "is-active", "hivematrix.target", *helm, *units).out.split()
    assert set(shown) == {"active"}, shown
    assert box.status("keycloak")["keycloak"]["health"] == "healthy"
    assert box("systemctl", "--user", "--failed", "--plain", "--no-legend").out == ""

    until(lambda: printer.stored(new).total() > 300, 60)
    box.helmctl("stop", printer.name)
    found = [printed_lines.check_complete(printer, boot) for boot in (old, new)]
    print(f"lines before and after: {found}")
    asked = ["curl", "--silent", "http://127.0.0.1:5004/health"]
    until(lambda: json.loads(box(*asked).out)["status"] == "healthy", 60)
