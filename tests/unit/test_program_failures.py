"""What ordinary programs print when they met a limit, or what an earlier run has left, and what Helm says of it."""

import pytest

from helmd.model.suite.service import Limits, Service
from helmd.model.units.program_failures import program_cause
from helmd.model.units.unit_state import UnitFacts

FAILED = UnitFacts("hivematrix-app.service", "loaded", "failed", result="exit-code", exit_code=1, exit_status=1)
APP = Service("app", "command")
WEB = Service("web", "command", port=8000)


@pytest.mark.parametrize(
    ("line", "file"),
    [
        ("A server is already running (pid: 7, file: /srv/app/tmp/pids/server.pid).", "/srv/app/tmp/pids/server.pid"),
        ("A server is already running. Check /srv/app/tmp/pids/server.pid.", "/srv/app/tmp/pids/server.pid"),
        ("Error: Already running on PID 12 (or pid file '/run/app.pid' is stale)", "/run/app.pid"),
        ("ERROR: Pidfile (celerybeat.pid) already exists.", "celerybeat.pid"),
        ('FATAL:  lock file "postmaster.pid" already exists', "postmaster.pid"),
        ("httpd (pid 123) already running", "FILE"),
        ("Another twistd server is running, PID 123", "FILE"),
    ],
)
def test_a_pid_file_that_was_left(line: str, file: str) -> None:
    said = program_cause(WEB, FAILED, ["starting", line, "bye"])
    assert "a run that was killed leaves" in said
    assert f'pre_start = ["rm", "-f", "{file}"]' in said


@pytest.mark.parametrize(
    ("service", "line", "file"),
    [
        (WEB, "[emerg] bind() to unix:/srv/app/app.sock failed (98: Address already in use)", "/srv/app/app.sock"),
        (APP, "OSError: [Errno 98] Address already in use", "FILE"),
        (APP, "Error: listen EADDRINUSE: address already in use ./app.socket", "./app.socket"),
        (WEB, "OSError: Address 'app.sock' is already in use", "app.sock"),
    ],
)
def test_a_socket_that_was_left(service: Service, line: str, file: str) -> None:
    said = program_cause(service, FAILED, [line])
    assert "socket that a run which was killed has left" in said
    assert f'pre_start = ["rm", "-f", "{file}"]' in said


@pytest.mark.parametrize(
    ("service", "line", "said"),
    [
        (WEB, "OSError: [Errno 24] Too many open files: '/dev/null'", "may: limits.open_files allows more"),
        (Service("a", limits=Limits(open_files=64)), "accept4() failed (24: Too many open files)", "(64 now)"),
        (WEB, "Error: EMFILE: too many open files, open 'x'", "limits.open_files"),
        (WEB, "[2026-11-29 20:38:16 +0000] [7633] [CRITICAL] WORKER TIMEOUT (pid:7637)", "--timeout"),
        (WEB, "OSError: [Errno 6] No such device or address: '/dev/stdout'", "(in a shell: >&2)"),
        (WEB, "/bin/sh: 1: cannot create /dev/stderr: No such device or address", "(in a shell: >&2)"),
        (WEB, '[emerg] open() "/dev/stdout" failed (6: No such device or address)', "PROGRAM 2>&1 | cat"),
        (WEB, "Error: ENXIO: no such device or address, open '/dev/stdout'", "(in a shell: >&2)"),
        (WEB, "locale.Error: unsupported locale setting", "locale -a"),
        (WEB, "perl: warning: Setting locale failed.", "locale -a"),
    ],
)
def test_limits_and_what_the_machine_lacks(service: Service, line: str, said: str) -> None:
    assert said in program_cause(service, FAILED, [line])


@pytest.mark.parametrize(
    "line",
    [
        "OSError: [Errno 98] Address already in use",
        "the user is already running a job",
        "worker pid 12 started",
        "set locale of the page to de",
        "logging to /dev/stdout",
        "open /dev/tty: No such device or address",
        "lock file of the cache is fresh",
        "order exists. Its file is a.pid",
        "",
    ],
)
def test_what_says_nothing(line: str) -> None:
    """Who has the port of a service is said by `conflict`."""
    assert not program_cause(WEB, FAILED, [line])


def test_memory() -> None:
    killed = UnitFacts("hivematrix-app.service", result="oom-kill")
    assert "64M (limits.memory_max)" in program_cause(Service("a", limits=Limits(memory_max=64 << 20)), killed, [])
    assert "limits.memory_max bounds a single service" in program_cause(APP, killed, ["OSError: [Errno 24]"])
    assert not program_cause(APP, FAILED, [])
