"""Starting, stopping, failing: what an admin sees, and how long Helm adds to it."""

import re
import statistics
import time

import pytest

from helmd.model.suite.names import SOCKET_UNITS
from tests.system.booted import Poller, Sandbox, until

FAULTY = "/home/hive/suite/faulty"
ADDED = AFTER_HEALTHY = 0.300
"""What Helm may add to a stop or restart, in seconds; and how long after a service is healthy a start may return. These
find a wait that should not be there, on any machine; figures, in ratio to systemctl's, are ``scripts/bench control``.
"""


def command(name: str, program: str, port: int | None = None, more: str = "", **environment: str) -> str:
    """The registry entry of one of the faulty programs."""
    given = {**environment, **({"PORT": str(port)} if port else {})}
    table = ", ".join(f'{key} = "{value}"' for key, value in given.items())
    return (
        f'[services.{name}]\ntype = "command"\npath = "{FAULTY}"\n'
        f'start_command = ["/usr/bin/python3", "{program}.py"]\n'
        + (f"port = {port}\n" if port else "")
        + f"environment = {{ {table} }}\n{more}\n"
    )


def start_nexus(box: Sandbox) -> tuple[str, float]:
    """Starts nexus; what helmctl said, and how long after nexus' first good answer it returned."""
    poller = Poller(box, "https://127.0.0.1:8443/health")
    try:
        # The interpreter that prints the time starts after helmctl has returned: the figure is an upper bound.
        clock = "python3 -Sc 'import time; print(time.clock_gettime(1))'"
        done = box.shell(f"helmctl start nexus; code=$?; {clock}; exit $code", timeout=240)
        return done.err, float(done.out.strip()) - poller.first_success()
    finally:
        poller.close()


@pytest.mark.alone
def test_start_from_nothing_in_order_and_at_once(demo: Sandbox) -> None:
    """keycloak, core, nexus in that order; back at once after nexus' first good answer; each step says its wait."""
    demo.helmctl("down", timeout=120)
    notified, late = start_nexus(demo)
    started = re.findall(r"^✓ (\w+): (?:started|already)", notified, re.MULTILINE)
    assert [name for name in started if name != "postgres"] == ["keycloak", "core", "nexus"]
    for name in ("keycloak", "core", "nexus"):
        line = rf"^✓ {name}: started, after waiting for GET https?://localhost:\d+/\S+ \(\d+\.\d+ s\)$"
        assert re.search(line, notified, re.MULTILINE), notified
    figures = [late]
    for _ in range(4):
        demo.helmctl("stop", "nexus")
        figures.append(start_nexus(demo)[1])
    print(f"returned after nexus' first healthy answer: {[f'{1000 * each:.0f} ms' for each in figures]}")
    assert statistics.median(figures) < AFTER_HEALTHY
    demo.helmctl("up", timeout=240)


def timed(box: Sandbox, words: str) -> float:
    """Seconds that a command took inside, without the way into the sandbox."""
    done = box.shell(f"TIMEFORMAT=%R; time {words} > /dev/null 2>&1")
    return float(done.err.strip().splitlines()[-1])


@pytest.mark.alone
def test_stop_and_restart_add_little(box: Sandbox) -> None:
    """Against systemctl doing the same to the same service, in turn."""
    figures: dict[str, list[float]] = {"helm stop": [], "systemd stop": [], "helm restart": [], "systemd restart": []}
    for _ in range(7):
        figures["helm restart"].append(timed(box, "helmctl restart codex"))
        figures["systemd restart"].append(timed(box, "systemctl --user restart hivematrix-codex"))
        for who, words in (("helm", "helmctl stop codex"), ("systemd", "systemctl --user stop hivematrix-codex")):
            # A count of starts, which both kinds of command go into, must not stop the measurement.
            box.shell("systemctl --user reset-failed hivematrix-codex; systemctl --user start hivematrix-codex")
            figures[f"{who} stop"].append(timed(box, words))
    box.helmctl("start", "codex")
    medians = {name: statistics.median(found) for name, found in figures.items()}
    print({name: f"{1000 * value:.0f} ms" for name, value in medians.items()})
    # The least of each: what else the machine does only ever adds.
    least = {name: min(found) for name, found in figures.items()}
    assert least["helm stop"] - least["systemd stop"] < ADDED
    assert least["helm restart"] - least["systemd restart"] < ADDED


def test_degraded_from_the_first_second_counts_as_started(box: Sandbox) -> None:
    box.register("degraded", command("half-well", "degraded", 6101))
    done = box.helmctl("start", "half-well")
    assert "degraded" in done.err
    assert box.status("half-well")["half-well"]["state"] == "degraded"
    assert box.helmctl("status", "half-well").code == 0


def test_killed_service_is_restarted_once(box: Sandbox) -> None:
    box.register("victim", command("victim", "printer", COUNT="0", RATE="1"))
    box.helmctl("start", "victim")
    before = box.status("victim")["victim"]
    box("kill", "-9", str(before["pid"]))

    def back() -> bool:
        now = box.status("victim")["victim"]
        return bool(now["pid"]) and now["pid"] != before["pid"] and now["state"] == "healthy"

    until(back, within=30)
    after = box.status("victim")["victim"]
    assert (after["restarts"], after["status"]) == (1, "running")
    assert "restarted it once" in " ".join(box.helmctl("why", "victim").out.split())


def test_crashing_service_is_flapping_then_failed_never_running(box: Sandbox) -> None:
    box.register("crash", command("crash", "crasher", AFTER="0.3"))
    began = time.monotonic()
    done = box.helmctl("start", "crash", check=False)
    seen: list[str] = []
    while not seen or seen[-1] != "failed":
        seen.append(box.status("crash")["crash"]["state"])
        assert time.monotonic() - began < 60, seen
    # With 0.3 s to live it is up when its first start ends; from its first end on it is never shown as running.
    ended = next(i for i, state in enumerate(seen) if state == "flapping")
    assert set(seen[ended:]) <= {"flapping", "failed"}, seen
    assert done.code in (0, 1)
    paragraph = " ".join(box.helmctl("why", "crash").out.split())
    assert "exited with code 3" in paragraph
    assert "crasher gives up" in paragraph


def test_crash_at_once_is_explained(box: Sandbox) -> None:
    box.register("crash", command("crash", "crasher", AFTER="0.02"))
    done = box.helmctl("start", "crash", check=False)
    assert done.code == 1
    assert "crash exited with code 3" in done.err
    assert "systemd restarts it in 1 s" in done.err
    assert "crasher gives up" in done.err


def test_deaf_to_sigterm_is_killed_and_said_so(box: Sandbox) -> None:
    box.register("deaf", command("deaf", "stubborn", 6102, more='restart = { stop_timeout = "2s" }'))
    box.helmctl("start", "deaf")
    done = box.helmctl("stop", "deaf")
    assert "did not exit within 2 s of SIGTERM and was killed" in done.err
    assert 2.0 <= done.seconds < 4.0
    assert box.status("deaf")["deaf"]["pid"] is None


def test_failed_probe_keeps_dependents_down(box: Sandbox) -> None:
    """core's probe fails: nexus is not started, and the reason is core's, everywhere."""
    box.helmctl("stop", "nexus", "codex", "ledger", "knowledgetree", "core")
    box.register("badcore", '[services.core]\nhealth = { start_path = "/no-such-page", start_timeout = "3s" }\n')
    try:
        done = box.helmctl("start", "nexus", check=False)
        assert done.code == 1
        reason = "core was not healthy within 3 s: GET http://localhost:5000/no-such-page: answered 404"
        assert f"✗ core: {reason}" in done.err
        assert "- nexus: not started, because core failed" in done.err
        assert box.status("nexus")["nexus"]["active_state"] == "inactive"
        paragraph = " ".join(box.helmctl("why", "nexus").out.split())
        assert "It depends on core: core" in paragraph
    finally:
        box.shell("systemctl --user stop hivematrix-core; systemctl --user reset-failed hivematrix-core")
        box.shell("rm ~/.config/hivematrix/services.d/badcore.toml; helmctl apply")
        box.registered.clear()
        box.helmctl("up", timeout=120)


def test_works_with_helmd_stopped(demo: Sandbox) -> None:
    demo("systemctl", "--user", "stop", *SOCKET_UNITS, "helmd", "helmd-journal")
    try:
        assert demo.helmctl("status").code == 0
        demo.helmctl("restart", "ticker")
        assert "tick" in demo.helmctl("logs", "-n", "5", "ticker").out
        assert demo.helmctl("is-healthy", "core").code == 0
    finally:
        demo("systemctl", "--user", "start", "helmd-journal", "helmd")


def test_exit_codes(demo: Sandbox) -> None:
    assert demo.helmctl("status", "no-such", check=False).code == 4
    assert demo.helmctl("start", "no-such", check=False).code == 4
    assert demo.helmctl("start", check=False).code == 2
    demo.helmctl("stop", "ticker")
    assert demo.helmctl("status", check=False).code == 3
    assert demo.helmctl("is-active", "ticker", check=False).code == 3
    assert demo.helmctl("wait", "ticker", "--timeout", "0.2s", check=False).code == 124
    demo.helmctl("start", "ticker")
    assert demo.helmctl("is-active", "ticker").code == 0
    assert demo.helmctl("start", "ticker").code == 0


def test_what_helmctl_did_is_in_the_log(demo: Sandbox) -> None:
    reason = f"to see it in the log at {time.time()}"
    demo.helmctl("restart", "ticker", "--reason", reason)
    query = f"select count(*) from log_entries where service_name = 'ticker' and message like '%{reason}%'"
    until(lambda: demo.sql(query) == "1", within=30)


def test_external_service_is_probed_but_never_controlled(box: Sandbox) -> None:
    """One that answers (Core, by another name) and one that is not there."""
    box.register(
        "external",
        '[services.elsewhere]\ntype = "external"\nurl = "http://127.0.0.1:5000"\n'
        '[services.nowhere]\ntype = "external"\nurl = "http://127.0.0.1:6199"\n'
        + command("dependent", "printer", COUNT="0", RATE="1", more='depends_on = ["nowhere"]'),
    )
    states = {name: entry["state"] for name, entry in box.status("elsewhere", "nowhere").items()}
    assert states == {"elsewhere": "healthy", "nowhere": "unhealthy"}
    done = box.helmctl("start", "dependent", check=False)
    assert done.code == 1
    assert "✗ nowhere: external, unhealthy: nothing listens on port 6199" in done.err
    assert "- dependent: not started, because nowhere failed" in done.err
    assert box.helmctl("restart", "elsewhere", check=False).code == 1
    assert "hivematrix-elsewhere.service" not in box("systemctl", "--user", "list-unit-files", "--no-pager").out
    # With others, it is left out.
    box.helmctl("kill", "--signal", "CONT", "elsewhere", "dependent")
    assert "removed" in box.helmctl("disable", "elsewhere", "dependent").err
    assert box.helmctl("disable", "elsewhere", check=False).code == 4


def test_orphan_unit_is_shown_and_can_be_stopped(box: Sandbox) -> None:
    box("systemd-run", "--user", "--quiet", "--unit=hivematrix-guest", "sleep", "1000")
    assert "guest" in box.helmctl("status").out
    assert "not in the registry" in box.helmctl("why", "guest").out
    box.helmctl("stop", "guest")
    assert "guest" not in box.helmctl("status").out


def test_quiet_prints_failures_only(box: Sandbox) -> None:
    box.register("hushed", command("hushed", "printer", COUNT="0", RATE="1"))
    box.helmctl("start", "hushed")
    box.write("/home/hive/.config/hivematrix/services.d/hushed.toml", command("hushed", "printer", COUNT="0", RATE="2"))
    assert "the configuration has changed since it was applied" in box.helmctl("restart", "hushed").err
    assert box.helmctl("restart", "--quiet", "hushed").err == ""
    assert box.helmctl("restart", "--quiet", "--mode", "production", "hushed").err == ""


def test_boundaries_of_a_start(box: Sandbox) -> None:
    """--timeout gives up and says that systemd goes on; --no-block returns at once; --dry-run does nothing."""
    box.register("slow", command("slow", "hang", 6103, HANG="silent", more='health = { start_timeout = "6s" }'))
    assert (
        "slow: start, then wait for GET http://localhost:6103/health" in box.helmctl("start", "slow", "--dry-run").out
    )
    assert box.status("slow")["slow"]["active_state"] == "inactive"
    done = box.helmctl("start", "slow", "--timeout", "1s", check=False)
    assert done.code == 124
    assert "systemd continues with it" in done.err
    box.helmctl("stop", "slow")
    assert box.helmctl("start", "slow", "--no-block").seconds < 3
    until(lambda: box.status("slow")["slow"]["active_state"] != "inactive", within=30)
