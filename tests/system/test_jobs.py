"""Starts and stops over the API: as jobs that need no helmd once they run, and of which every result is known."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from helmd.model.suite.names import SOCKET_UNITS
from tests.system.booted import Sandbox, until
from tests.system.test_control import command

SOCKET = "/run/user/1000/hivematrix/helm.sock"
STARTS = 20

KILLED = f"""
import http.client, json, os, signal, socket, subprocess, sys, threading, time

def post(name, answers):
    connection = http.client.HTTPConnection("helm")
    connection.sock = socket.socket(socket.AF_UNIX)
    try:
        connection.sock.connect("{SOCKET}")
        connection.request("POST", f"/api/services/{{name}}/start")
        answers[name] = json.loads(connection.getresponse().read())["job"]
    except (OSError, http.client.HTTPException):
        answers[name] = None

def kill():
    asked = ["systemctl", "--user", "show", "-P", "MainPID", "helmd"]
    os.kill(int(subprocess.run(asked, capture_output=True, text=True).stdout), signal.SIGKILL)

answers = {{}}
threads = [threading.Thread(target=post, args=(f"slow{{number}}", answers)) for number in range({STARTS})]
for number, thread in enumerate(threads):
    thread.start()
    time.sleep(0.05)
    if number == {STARTS // 2}:
        kill()
time.sleep(1.0)
kill()
for thread in threads:
    thread.join()
print(json.dumps(answers))
"""


def slow(name: str, seconds: float) -> str:
    """A service whose start takes so many seconds."""
    return (
        f'[services.{name}]\ntype = "command"\npath = "~/suite"\nstart_command = ["/usr/bin/sleep", "1000"]\n'
        f'pre_start = ["/usr/bin/sleep", "{seconds}"]\n'
    )


def api(box: Sandbox, method: str, path: str, body: object = None, **headers: str) -> tuple[int, dict[str, Any]]:
    """What helmd answers over the account's socket: status and document."""
    words = [word for name, value in headers.items() for word in ("-H", f"{name.replace('_', '-')}: {value}")]
    data = [] if body is None else ["-H", "Content-Type: application/json", "-d", json.dumps(body)]
    url = f"http://helm{path}"
    done = box("curl", "-sS", "--unix-socket", SOCKET, "-X", method, *words, *data, "-w", "\n%{http_code}", url)
    document, _, status = done.out.rpartition("\n")
    return int(status), json.loads(document)


def job_of(box: Sandbox, job_id: str) -> dict[str, Any]:
    """A job as helmctl shows it, which needs no helmd."""
    shown: dict[str, Any] = json.loads(box.helmctl("jobs", "show", job_id, "--json", check=False).out)
    return shown


def job_units(box: Sandbox) -> str:
    words = ("list-units", "--all", "--plain", "--no-legend", "hivematrix-job-*")
    return box("systemctl", "--user", *words).out


def test_start_stop_and_restart(box: Sandbox) -> None:
    """The replies that older clients know, and the record of who did it."""
    box.helmctl("start", "codex")
    status, reply = api(box, "POST", "/api/services/codex/stop")
    assert (status, reply["success"], reply["message"]) == (200, True, "Service stopped successfully")
    status, reply = api(box, "POST", "/api/services/codex/stop")
    assert (status, reply["success"], reply["message"]) == (400, False, "Service not running or PID unknown")
    reason = "50 % of $HOME, in 'one' line"
    status, started = api(box, "POST", "/api/services/codex/start", {"reason": reason})
    pid = box.status("codex")["codex"]["pid"]
    assert (status, started["message"]) == (200, "Service started successfully")
    assert (started["pid"], started["port"]) == (pid, 5010)
    status, reply = api(box, "POST", "/api/services/codex/start", {"mode": "development"})
    assert (status, reply["success"], reply["message"]) == (400, False, f"Service already running (PID: {pid})")
    status, reply = api(box, "POST", "/api/services/codex/restart")
    assert (status, reply["details"]["start"]["pid"]) == (200, reply["pid"]) and reply["pid"] != pid
    assert api(box, "POST", "/api/services/codex/start", {"mode": "turbo"})[0] == 400
    assert api(box, "POST", "/api/services/no-such/start")[0] == 404

    job = job_of(box, started["job"])
    assert (job["state"], job["by"], job["via"], job["reason"]) == ("succeeded", "hive", "socket", reason)
    assert api(box, "GET", f"/api/jobs/{started['job']}")[1] == job
    assert "✓ codex: started" in box.helmctl("jobs", "log", started["job"]).out
    assert started["job"] in box.helmctl("jobs", "list").out
    until(lambda: not job_units(box), within=30)
    changes = json.loads(box.helmctl("audit", "--json", "-n", "30").out)
    mine = [change for change in changes if started["job"] in (change["detail"] or "")]
    assert {(change["action"], change["result"]) for change in mine} == {
        ("start", "done"),
        ("POST /api/services/{name}/start", "done"),
    }
    assert all((change["who"], change["via"], change["reason"]) == ("hive", "socket", reason) for change in mine)
    assert all(change["unit"] for change in mine)
    printed = (
        f"select count(*) from log_entries where service_name = 'job-{started['job']}' and message like '%started%'"
    )
    until(lambda: int(box.sql(printed)) > 0, within=30)


def test_failures_have_a_status_and_the_last_lines(box: Sandbox) -> None:
    box.register(
        "failing",
        command("deaf-to-all", "hang", 6111, HANG="silent", more='health = { start_timeout = "2s" }')
        + command("crashing", "crasher", AFTER="0.02", more='restart = { burst = 1, within = "60s" }')
        + command("needing", "printer", COUNT="0", RATE="1", more='depends_on = ["crashing"]'),
    )
    status, problem = api(box, "POST", "/api/services/deaf-to-all/start")
    assert (status, problem["code"]) == (504, "not_healthy"), problem
    assert "was not healthy within 2 s" in problem["error"]
    status, problem = api(box, "POST", "/api/services/crashing/start")
    assert (status, problem["code"]) == (500, "start_failed"), problem
    assert any("crasher gives up" in line for line in problem["lines"])
    status, problem = api(box, "POST", "/api/services/needing/start")
    assert (status, problem["code"], problem["success"]) == (409, "dependency_failed", False), problem
    assert "because crashing failed" in problem["message"] and problem["lines"]


def test_a_job_is_cancelled_and_has_limits(box: Sandbox) -> None:
    """Also: the same Idempotency-Key is the same job, and a job can be followed."""
    box.register("slow", slow("slow", 30) + slow("after", 0) + 'depends_on = ["slow"]\n')
    body, key = {"wait": False}, f"at {time.time()}"
    status, accepted = api(box, "POST", "/api/services/after/start", body, Idempotency_Key=key)
    job = accepted["job"]
    assert (status, job["kind"], job["target"], job["result"]) == (202, "start", "after", None)
    assert api(box, "POST", "/api/services/after/start", body, Idempotency_Key=key)[1]["job"]["id"] == job["id"]
    until(lambda: job_of(box, job["id"])["state"] == "running", within=30)
    until(lambda: job_of(box, job["id"])["step"].startswith("slow: "), within=30)
    shown = box("systemctl", "--user", "show", job["unit"], "-p", "TasksMax", "-p", "RuntimeMaxUSec", "-p", "ExecStart")
    assert "TasksMax=128" in shown.out and "RuntimeMaxUSec=1h" in shown.out
    assert f"helmctl --job {job['id']} start after --json" in shown.out
    status, cancelled = api(box, "POST", f"/api/jobs/{job['id']}/cancel")
    assert (status, cancelled["state"]) == (200, "cancelled")
    assert "cancelled by hive (socket)" in cancelled["result"]["detail"]
    assert box.status("after")["after"]["active_state"] == "inactive"
    assert box.status("slow")["slow"]["active_state"] == "activating", "what systemd had begun goes on"
    assert not job_units(box)
    assert api(box, "POST", f"/api/jobs/{job['id']}/cancel")[0] == 409
    assert box.helmctl("jobs", "cancel", job["id"], check=False).code == 1
    log = box("curl", "-sS", "--max-time", "10", "--unix-socket", SOCKET, f"http://helm/api/jobs/{job['id']}/log").out
    assert (
        "event: step\n" in log and "event: log\n" in log and log.rstrip().rpartition("event: ")[2].startswith("end\n")
    )


@contextmanager
def helmd_stopped(box: Sandbox) -> Iterator[None]:
    """Without helmd and its database."""
    box("systemctl", "--user", "stop", *SOCKET_UNITS, "helmd", "helmd-postgres")
    try:
        yield
    finally:
        box("systemctl", "--user", "start", "helmd-postgres", *SOCKET_UNITS, "helmd")


def test_a_job_needs_neither_helmd_nor_postgresql(box: Sandbox) -> None:
    box.register("slow", slow("slow", 3))
    job_id = api(box, "POST", "/api/services/slow/start", {"wait": False})[1]["job"]["id"]
    with helmd_stopped(box):
        followed = box.helmctl("jobs", "log", "-f", job_id)
        assert "slow: started" in followed.out
        assert job_of(box, job_id)["state"] == "succeeded"
        assert box.helmctl("jobs", "list").out.splitlines()[1].split()[:2] == [job_id, "succeeded"]
    assert api(box, "GET", f"/api/jobs/{job_id}")[1]["state"] == "succeeded"


def test_killed_helmd_loses_no_result(box: Sandbox) -> None:
    """helmd is killed twice during 20 starts. Every job that there is has succeeded in the end, whoever was answered;
    those that were cut off between request and start are known, too.
    """
    box.register("slow", "".join(slow(f"slow{number}", 2) for number in range(STARTS)))
    before = {job["id"] for job in json.loads(box.helmctl("jobs", "list", "--json").out)}
    answers = json.loads(box.python(KILLED, timeout=120).out)
    assert len(answers) == STARTS

    def mine() -> list[dict[str, Any]]:
        return [job for job in json.loads(box.helmctl("jobs", "list", "--json").out) if job["id"] not in before]

    until(lambda: all(job["ended_at"] for job in mine()), within=60)
    jobs = {job["target"]: job for job in mine()}
    never_started = [job for job in jobs.values() if job["state"] != "succeeded"]
    assert all(job["result"]["detail"] == "it was never started" for job in never_started), never_started
    assert len(never_started) <= STARTS // 2, "most starts were asked for before or between the kills"
    assert {name for name, job in answers.items() if job} <= set(jobs)
    cut_off = [name for name, job in answers.items() if job is None]
    assert cut_off, "no request was under way when helmd was killed"
    states = box.status(*(f"slow{number}" for number in range(STARTS)))
    assert {name for name, status in states.items() if status["active_state"] == "active"} == {
        name for name, job in jobs.items() if job["state"] == "succeeded"
    }
    assert {job["id"]: job for job in api(box, "GET", "/api/jobs")[1]["jobs"] if job["id"] not in before} == {
        job["id"]: job for job in jobs.values()
    }
    until(lambda: not job_units(box), within=30)


def test_several_at_once(box: Sandbox) -> None:
    """A plan, then the same as a job."""
    given = {"action": "restart", "services": ["ticker", "codex"]}
    status, plan = api(box, "POST", "/api/services/actions", {**given, "dry_run": True})
    assert status == 200 and [step["service"] for step in plan["plan"]] == ["codex", "ticker"]
    status, accepted = api(box, "POST", "/api/services/actions", given)
    assert status == 202
    until(lambda: job_of(box, accepted["job"]["id"])["state"] == "succeeded", within=30)
