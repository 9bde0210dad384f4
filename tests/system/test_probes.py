"""Where and how services are asked for their health, and what is said when that fails."""

import time

from tests.system.booted import Sandbox, until

FAULTY = "/home/hive/suite/faulty"
FOREIGN = "import socket, sys, time; s = socket.create_server((sys.argv[1], int(sys.argv[2]))); time.sleep(600)"


def answering(name: str, port: int, more: str = "", url: str = "", listens: int | None = None, **how: str) -> str:
    """The registry entry of tests/suite/faulty/answering.py; LISTENS is the port it really listens on."""
    given = {**how, "LISTENS": str(listens or port)}
    table = ", ".join(f"{key} = '{value}'" for key, value in given.items())
    address = f'url = "{url}"\n' if url else ""
    return (
        f'[services.{name}]\ntype = "command"\npath = "{FAULTY}"\nport = {port}\n{address}'
        f'start_command = ["/usr/bin/python3", "answering.py"]\nenvironment = {{ {table} }}\n{more}\n'
    )


def failing_start(box: Sandbox, name: str, entry: str) -> str:
    """What helmctl says of a start that fails, on one line."""
    box.register(name, entry)
    done = box.helmctl("start", name, check=False)
    assert done.code == 1, done.text
    return " ".join(done.err.split())


def asked(box: Sandbox, name: str, code: str = "") -> int:
    """How many requests the access log of its last run shows, with CODE those that were answered so."""
    run = f"$(systemctl --user show -p InvocationID --value hivematrix-{name})"
    lines = box.shell(f"journalctl --user _SYSTEMD_INVOCATION_ID={run} -o cat --no-pager").out
    return sum('"GET ' in line and f'" {code}' in line for line in lines.splitlines())


SHORT = 'health = { start_timeout = "4s" }\nrestart = { policy = "no" }'


def test_a_port_of_another_address_is_no_conflict(box: Sandbox) -> None:
    squatter = ["systemd-run", "--user", "--unit=squatter", "--collect", "--quiet", "python3", "-c", FOREIGN]
    box(*squatter, "127.0.0.2", "6140")
    try:
        box.register("beside", answering("beside", 6140))
        until(lambda: "127.0.0.2:6140" in box.shell("ss -ltnH").out, within=30)
        assert box.helmctl("start", "beside").code == 0
        assert box.status("beside")["beside"]["state"] == "healthy"
        assert "port 6140" not in box.helmctl("doctor", check=False).text
        box.helmctl("stop", "beside")
        box.register("beside", answering("beside", 6140, url="http://0.0.0.0:6140", BIND="0.0.0.0"))
        done = box.helmctl("start", "beside", check=False)
        assert done.code == 1 and "port 6140 is in use by pid" in done.err and "squatter.service" in done.err
    finally:
        box("systemctl", "--user", "stop", "squatter", check=False)


def test_it_is_asked_where_its_url_says(box: Sandbox) -> None:
    lan = box.shell("hostname -I").out.split()[0]
    for name, url, bind in (
        ("six", "http://[::1]:6141", "::1"),
        ("alias", "http://127.0.0.3:6141", "127.0.0.3"),
        ("lan", f"http://{lan}:6141", lan),
    ):
        box.register(name, answering(name, 6141, url=url, BIND=bind))
        assert box.helmctl("start", name).code == 0
        assert box.status(name)[name]["state"] == "healthy"
    until(lambda: "unhealthy" not in box.helmctl("status", "six", "alias", "lan").out, within=30)


def test_it_is_asked_with_the_host_of_its_url(box: Sandbox) -> None:
    host = "tickets.example.org:6142"
    box.register("tickets", answering("tickets", 6142, url=f"http://{host}", HOST=host))
    assert box.helmctl("start", "tickets").code == 0
    assert box.status("tickets")["tickets"]["state"] == "healthy"


def test_a_service_that_fails_while_it_starts_is_asked_twice_a_second_at_most(box: Sandbox) -> None:
    box.register("slow", answering("slow", 6143, FAILING="6"))
    done = box.helmctl("start", "slow")
    assert 5.5 < done.seconds < 30
    # By ExecStartPost alone; helmd and helmctl ask once it has started.
    assert 4 <= asked(box, "slow", "500") <= 2 * 6 + 1


def test_what_is_wrong_with_an_answer_is_said_with_the_fix(box: Sandbox) -> None:
    said = failing_start(box, "lost", answering("lost", 6144, SHORT, CODE="404"))
    assert "answered 404: it has no path /health; set health.path to one that it has" in said
    said = failing_start(box, "moved", answering("moved", 6145, SHORT, CODE="302", LOCATION="/login?next=/health"))
    assert "answered 302, a redirect to /login?next=/health: set health.path" in said
    said = failing_start(box, "secure", answering("secure", 6146, SHORT, TLS="1"))
    assert 'it speaks TLS on this port: set url = "https://..."' in said
    said = failing_start(box, "plain", answering("plain", 6147, SHORT, url="https://localhost:6147"))
    assert 'it speaks plain HTTP on this port: set url = "http://..."' in said
    said = failing_start(box, "elsewhere", answering("elsewhere", 6148, SHORT, listens=6149))
    assert "nothing listens on port 6148; it listens on 127.0.0.1:6149: set port to that one" in said
    said = failing_start(box, "aside", answering("aside", 6150, SHORT, BIND="127.0.0.4"))
    assert "it listens on 127.0.0.4:6150: set url to that address" in said


def test_404_is_said_before_the_start_times_out(box: Sandbox) -> None:
    box.register("early", answering("early", 6151, 'health = { start_timeout = "14s" }', CODE="404"))
    done = box.helmctl("start", "early", check=False)
    early, _, late = done.err.partition("✗ early: ")
    assert done.code == 1 and "not healthy within 14 s" in late
    assert "answered 404: it has no path /health" in early


def test_429_is_a_sign_of_life(box: Sandbox) -> None:
    more = 'health = { interval = "1s" }\non_unhealthy = "restart"\nunhealthy_after = 2'
    box.register("limiter", answering("limiter", 6152, more, LIMIT="5"))
    box.helmctl("start", "limiter")
    pid = box.status("limiter")["limiter"]["pid"]
    until(lambda: asked(box, "limiter") > 10, within=30)
    time.sleep(4)
    now = box.status("limiter")["limiter"]
    assert (now["pid"], now["state"]) == (pid, "degraded") and "answered 429" in now["health_message"]


def test_failing_checks_are_named(box: Sandbox) -> None:
    body = '{"status": "degraded", "checks": {"search": {"status": "unhealthy", "error": "connection_refused"}}}'
    box.register("partly", answering("partly", 6153, CODE="503", BODY=body))
    box.helmctl("start", "partly")
    assert "answered 503: degraded (search: connection_refused)" in box.helmctl("status", "partly").out


def test_slow_failures_reach_the_start_limit(box: Sandbox) -> None:
    limits = 'health = { start_timeout = "2s" }\nrestart = { burst = 2 }'
    box.register("stuck", answering("stuck", 6154, limits, CODE="500"))
    box.helmctl("start", "stuck", check=False)
    until(lambda: box.status("stuck")["stuck"]["state"] == "failed", within=40)
    time.sleep(5)
    now = box.status("stuck")["stuck"]
    assert now["state"] == "failed" and now["restarts"] <= 2
    limits = 'health = { start_timeout = "2s" }\nrestart = { burst = 2, within = "3s" }'
    box.register("stuck", answering("stuck", 6154, limits, CODE="500"))
    said = " ".join(box.helmctl("start", "stuck", check=False).err.split())
    assert "again without end" in said and "restart.burst = 2 starts in restart.within = 3 s" in said
    assert "again without end" in " ".join(box.helmctl("doctor", check=False).text.split())


def test_a_service_that_was_healthy_is_always_restarted(box: Sandbox) -> None:
    """Its starts stay within the limit by their number, although the interval is longer than both runs."""
    more = 'health = { start_timeout = "2m", interval = "1s" }\nrestart = { burst = 2 }'
    box.register("mortal", answering("mortal", 6157, more))
    box.helmctl("start", "mortal")
    shown = box("systemctl", "--user", "show", "-P", "StartLimitIntervalUSec", "hivematrix-mortal").out.strip()
    assert shown == "4min 33s"

    def restarted(times: int) -> bool:
        found = box.status("mortal")["mortal"]
        return bool(found["state"] == "healthy" and found["restarts"] == times)

    def killed_for_good() -> bool:
        box("systemctl", "--user", "kill", "-s", "KILL", "hivematrix-mortal", check=False)
        return bool(box.status("mortal")["mortal"]["state"] == "failed")

    box("systemctl", "--user", "kill", "-s", "KILL", "hivematrix-mortal")
    until(lambda: restarted(1), 30)
    until(lambda: restarted(0), 120, 1)
    # The third start within the interval, if that of before counted.
    box("systemctl", "--user", "kill", "-s", "KILL", "hivematrix-mortal")
    until(lambda: restarted(1), 30)
    # Failing at once, it reaches the limit as before.
    until(killed_for_good, 60, 1)


def test_up_restarts_a_start_from_before_the_fix(box: Sandbox) -> None:
    box.register("fixed", answering("fixed", 6155, CODE="500"))
    box.helmctl("start", "fixed", "--no-block")
    until(lambda: asked(box, "fixed") > 0, within=30)
    box.register("fixed", answering("fixed", 6155))
    box.helmctl("apply")
    done = box.helmctl("up")
    assert "a start was under way that began before" in " ".join(done.err.split())
    assert done.seconds < 20 and box.status("fixed")["fixed"]["state"] == "healthy"


def test_failing_health_checks_are_no_errors_in_the_log(box: Sandbox) -> None:
    more = 'health = { interval = "1s" }\nstreams = "merged"'
    box.register("ill", answering("ill", 6156, more, CODE="503", BODY='{"status": "degraded"}'))
    box.helmctl("start", "ill")
    query = "SELECT count(*) FROM log_entries WHERE service_name = 'ill' AND message LIKE '%GET /health%'"
    until(lambda: int(box.sql(query)) > 5, within=40)
    assert box.sql(f"{query} AND level <> 'DEBUG'") == "0"


def test_keycloak_without_its_database_is_unhealthy(demo: Sandbox) -> None:
    demo("systemctl", "--user", "stop", "hivematrix-postgres")
    try:
        said = demo.status("keycloak")["keycloak"]
        assert said["state"] == "unhealthy" and "its database fails (answered 500)" in said["health_message"]
    finally:
        demo.helmctl("start", "postgres")
    until(lambda: demo.status("keycloak")["keycloak"]["state"] == "healthy", within=30)
