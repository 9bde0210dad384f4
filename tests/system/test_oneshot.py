"""Services that run to their end: once for what needs them, or by a schedule."""

import json
import re
import time
from typing import Any

from tests.system.booted import Sandbox, until

UNITS = "/home/hive/.local/share/systemd/user"
FILE = "/home/hive/.config/hivematrix/services.d/jobs.toml"
STAMP = "/home/hive/.local/share/systemd/timers/stamp-hivematrix-tidy.timer"


def job(name: str, program: str, more: str = "") -> str:
    """The registry entry of a shell program that runs to its end."""
    start = json.dumps(["/bin/sh", "-c", program])
    return f'[services.{name}]\ntype = "oneshot"\npath = "~/suite"\nstart_command = {start}\n{more}\n'


def web(needs: str) -> str:
    command = '["/bin/sleep", "1000"]'
    return f'[services.shop]\ntype = "command"\npath = "~/suite"\nstart_command = {command}\ndepends_on = ["{needs}"]\n'


def word(box: Sandbox, name: str) -> str:
    return str(box.status(name)[name]["state"])


def systemctl(box: Sandbox, *words: str) -> str:
    return box("systemctl", "--user", *words, check=False).out.strip()


def unique(words: str) -> str:
    """What a program of one test prints, and no other has printed."""
    return f"{words} {time.time_ns()}"


def timer(box: Sandbox) -> str:
    return systemctl(box, "is-active", "hivematrix-tidy.timer")


def asked(box: Sandbox, name: str) -> dict[str, Any]:
    """What helmd says of a service."""
    address = f"http://localhost/api/services/{name}/status"
    done = box("curl", "-s", "--unix-socket", "/run/user/1000/hivematrix/helm.sock", address)
    found: dict[str, Any] = json.loads(done.out)
    return found


def lines(box: Sandbox, name: str, said: str) -> int:
    return int(box.sql(f"SELECT count(*) FROM log_entries WHERE service_name = '{name}' AND message = '{said}'"))


def printed(box: Sandbox, said: str) -> int:
    found = box("journalctl", "--user", "-t", "hivematrix-tidy", "-o", "cat", "--no-pager", check=False).out
    return found.splitlines().count(said)


def test_what_needs_it_starts_when_it_has_succeeded(box: Sandbox) -> None:
    said = unique("migrating")
    box.register("jobs", job("migrate", f"echo {said}; sleep 2") + web("migrate"))
    done = box.helmctl("start", "shop")
    assert re.search(r"^✓ migrate: succeeded \((\d+)\.\d+ s\)$", done.err, re.MULTILINE), done.err
    assert done.err.index("migrate: succeeded") < done.err.index("shop: started") and done.seconds > 2
    assert systemctl(box, "is-active", "hivematrix-migrate") == "active"
    found = box.status("migrate", "shop")
    assert (found["migrate"]["state"], found["migrate"]["pid"], found["migrate"]["health"]) == (
        "succeeded", None, "healthy"
    )  # fmt: skip
    assert box.helmctl("status", "migrate").code == 0
    assert "migrate succeeded at 2" in box.helmctl("why", "migrate").out
    box.helmctl("is-healthy", "migrate", "shop")
    until(lambda: asked(box, "migrate")["state"] == "succeeded", within=30)
    # It is not run again for a second start, and neither a second run nor its stop concerns what needed it.
    assert "succeeded at" in box.helmctl("start", "migrate").err
    assert "succeeded (" in box.helmctl("restart", "migrate").err
    until(lambda: lines(box, "migrate", said) == 2, within=30)
    box.helmctl("stop", "migrate")
    after = box.status("migrate", "shop")
    assert (after["migrate"]["state"], after["shop"]["pid"]) == ("stopped", found["shop"]["pid"])


def test_a_run_that_fails_says_how_and_keeps_back_what_needs_it(box: Sandbox) -> None:
    box.register("jobs", job("migrate", "echo column exists >&2; exit 4") + web("migrate"))
    done = box.helmctl("start", "shop", check=False)
    assert done.code and "✗ migrate: migrate exited with code 4" in done.err and "| column exists" in done.err
    assert "shop: not started, because migrate failed" in done.err
    assert systemctl(box, "start", "hivematrix-shop") == "" and word(box, "shop") == "stopped", "nor does systemd"
    assert word(box, "migrate") == "failed" and box.helmctl("status", "migrate", check=False).code == 3
    why = " ".join(box.helmctl("why", "migrate").out.split())
    assert "migrate exited with code 4" in why and "column exists" in why
    doctor = box.helmctl("doctor", check=False)
    assert doctor.code and "migrate is failed: migrate exited with code 4" in doctor.out
    until(lambda: asked(box, "migrate")["health"] == "unhealthy", within=30)


def test_a_run_that_takes_longer_than_it_may_is_ended(box: Sandbox) -> None:
    box.register("jobs", job("tidy", "echo begun; sleep 100", 'run_timeout = "1s"'))
    done = box.helmctl("start", "tidy", check=False)
    assert done.code == 1 and "✗ tidy: tidy did not end in time and was killed" in done.err, done.err
    assert "| begun" in done.err and word(box, "tidy") == "failed"


def test_a_long_run_is_shown_as_running_and_can_be_stopped(box: Sandbox) -> None:
    box.register("jobs", job("tidy", "echo begun; sleep 100", 'schedule = "daily"'))
    box.helmctl("start", "--no-block", "tidy")
    running = until(lambda: (found := box.status("tidy")["tidy"])["pid"] and found, within=30)
    assert (running["state"], running["status"], running["health"]) == ("running", "running", "healthy")
    assert "tidy is running since" in box.helmctl("why", "tidy").out
    joined = box.helmctl("start", "tidy", "--timeout", "2s", check=False)
    assert joined.code == 124 and "it runs already" in joined.err
    stopped = box.helmctl("stop", "tidy").err
    assert re.search(r"tidy: stopped; its schedule goes on, next run at \d{4}-\d\d-\d\d 00:00:00", stopped), stopped
    assert "helmctl disable --now tidy" in stopped
    assert word(box, "tidy") == "scheduled" and timer(box) == "active", "it was asked to end, so it has not failed"
    assert box.helmctl("stop", "tidy").err.count("its schedule goes on") == 1


def test_a_schedule_runs_it(box: Sandbox) -> None:
    said = unique("tidied")
    box.register("jobs", job("tidy", f"echo {said}", 'schedule = "*:*:0/3"'))
    until(lambda: printed(box, said) >= 3, within=30)
    until(lambda: lines(box, "tidy", said) >= 3, within=30)
    found = until(lambda: (found := asked(box, "tidy"))["state"] == "scheduled" and found, within=30)
    assert (found["status"], found["health"]) == ("stopped", "healthy") and found["next_run"] > found["ended_at"]
    # It may be running just then.
    until(lambda: "next run at" in box.helmctl("status", "tidy", check=False).out, within=30)
    assert "tidy is" not in box.helmctl("doctor", check=False).out, "doctor has nothing to say while it waits"
    assert box.helmctl("is-enabled", "tidy").out == "enabled\n"
    # Off and on again, at once and at boot.
    box.helmctl("disable", "--now", "tidy")
    assert (timer(box), systemctl(box, "is-enabled", "hivematrix-tidy.timer")) == ("inactive", "disabled")
    assert word(box, "tidy") == "stopped" and "helmctl enable --now tidy" in box.helmctl("why", "tidy").out
    before = printed(box, said)
    assert "✓ tidy: succeeded" in box.helmctl("start", "tidy").err and printed(box, said) == before + 1
    assert "its schedule is on" in box.helmctl("enable", "--now", "tidy").err and timer(box) == "active"
    until(lambda: printed(box, said) > before + 2, within=30)
    systemctl(box, "stop", "hivematrix-tidy.timer")
    assert "the schedule of tidy is off" in box.helmctl("doctor", check=False).out


def test_a_scheduled_run_that_fails_is_found_and_its_schedule_goes_on(box: Sandbox) -> None:
    said = unique("no space")
    box.register("jobs", job("tidy", f"echo {said}; exit 2", 'schedule = "*:*:0/3"'))
    until(lambda: printed(box, said) >= 2, within=30)
    # From here on there is no run while it is looked at.
    box.write(FILE, job("tidy", f"echo {said}; exit 2", 'schedule = "daily"'))
    box.helmctl("apply")
    until(lambda: word(box, "tidy") == "failed", within=30)
    assert "tidy is failed: tidy exited with code 2" in box.helmctl("doctor", check=False).out
    why = " ".join(box.helmctl("why", "tidy").out.split())
    assert "tidy exited with code 2" in why and "next run at" in why
    done = box.helmctl("start", "tidy", check=False)
    assert done.code and "tidy exited with code 2" in done.err and f"| {said}" in done.err


def test_the_timer_follows_the_setting(box: Sandbox) -> None:
    """Added after a run, changed, edited by hand, not understood, and taken away."""
    said = unique("tidied")
    program = f"echo {said}"
    box.register("jobs", job("tidy", program))
    box.helmctl("start", "tidy")
    assert word(box, "tidy") == "succeeded"
    before = printed(box, said)
    box.write(FILE, job("tidy", program, 'schedule = "*:*:0/3"'))
    assert "hivematrix-tidy.timer: would be installed" in box.helmctl("diff", check=False).err
    applied = box.helmctl("apply").err
    assert "hivematrix-tidy.timer: installed and enabled" in applied and "hivematrix-tidy.service: changed\n" in applied
    until(lambda: printed(box, said) > before + 1, within=30)
    assert systemctl(box, "is-enabled", "hivematrix-tidy.service") == "static"

    box.write(FILE, job("tidy", program, 'schedule = "daily"'))
    box.helmctl("apply")
    assert box.status("tidy")["tidy"]["next_run"].endswith("T00:00:00+00:00"), "in force without a restart"
    box.shell(f"sed -i s/daily/monthly/ {UNITS}/hivematrix-tidy.timer")
    doctor = box.helmctl("doctor", check=False).out
    assert "hivematrix-tidy.timer differs from the configuration" in doctor
    assert "-OnCalendar=monthly\n+OnCalendar=daily" in box.helmctl("diff", check=False).out
    assert "hivematrix-tidy.timer: changed" in box.helmctl("apply").err

    box.write(FILE, job("tidy", program, 'schedule = "every day"'))
    refused = box.helmctl("apply", check=False)
    assert refused.code == 1 and "jobs.toml:1: services.tidy.schedule: " in refused.err and "'every day'" in refused.err
    assert timer(box) == "active" and "OnCalendar=daily" in box("cat", f"{UNITS}/hivematrix-tidy.timer").out
    assert box.helmctl("start", "tidy", check=False).code and "every day" in box.helmctl("doctor", check=False).out

    box.write(FILE, job("tidy", program))
    assert "hivematrix-tidy.timer: removed" in box.helmctl("apply").err
    assert timer(box) == "inactive" and systemctl(box, "is-enabled", "hivematrix-tidy.service") == "enabled"
    assert box("ls", f"{UNITS}/hivematrix-tidy.timer", STAMP, check=False).out == ""
    assert "hivematrix-tidy.timer" not in systemctl(box, "list-units", "--all", "hivematrix-*")


def test_the_schedule_begins_and_ends_with_the_suite(box: Sandbox) -> None:
    said = unique("tidied")
    box.register("jobs", job("tidy", f"echo {said}", 'schedule = "*:*:0/2"') + job("migrate", "echo migrated"))
    assert "tidy: " in box.helmctl("down", timeout=120).err
    assert (timer(box), word(box, "tidy"), word(box, "migrate")) == ("inactive", "stopped", "stopped")
    before = printed(box, said)
    # A schedule that is added while the suite is down begins with the suite.
    box.shell(f"rm {UNITS}/hivematrix-tidy.timer")
    assert "To begin its schedule: helmctl enable --now tidy" in box.helmctl("apply").err
    assert timer(box) == "inactive" and printed(box, said) == before
    started = box.helmctl("up", timeout=240).err
    assert "✓ tidy: its schedule is on" in started and "✓ migrate: succeeded" in started
    assert timer(box) == "active"
    until(lambda: printed(box, said) > before, within=30)
