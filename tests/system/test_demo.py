"""What `scripts/demo` leaves: a healthy suite that reads, to systemctl and journalctl, as an admin expects."""

import json
import re
import secrets
import urllib.request

from tests.system.booted import Sandbox, until, until_none
from tests.system.keycloak_admin import GATEWAY, REALM, Person, log_in

SUITE = ("postgres", "keycloak", "core", "nexus", "codex", "ledger", "knowledgetree", "ticker")
DEMO_SECONDS = 360.0


def test_demo_ends_well_and_in_time(demo: Sandbox) -> None:
    assert demo.demo_output, f"this is about scripts/demo itself: before it, scripts/demo --stop --name {demo.name}"
    assert demo.demo_code == 0
    assert demo.demo_seconds < DEMO_SECONDS, demo.demo_output
    for said in ("building the Debian package", "booting Debian", "helmctl up", "core: started", "--stop"):
        assert said in demo.demo_output


def test_manual_pages_a_pager_and_an_editor_are_there(demo: Sandbox) -> None:
    """Also the pages of Debian's packages, which images for containers often lack."""
    for page in ("helmctl", "helm.toml", "systemd.exec"):
        text = demo("man", page).out
        assert text.splitlines()[0].lower().startswith(f"{page}("), page
        assert demo("less", "--quit-if-one-screen", stdin=text).out == text
    assert "nano" in demo("editor", "--version").out


def test_every_service_is_healthy(demo: Sandbox) -> None:
    done = demo.helmctl("status")
    assert done.code == 0
    states = {name: entry["state"] for name, entry in demo.status().items()}
    assert states == dict.fromkeys(SUITE, "healthy")


def test_keycloak_is_the_real_one(demo: Sandbox) -> None:
    """It is known by one URL, whatever a request calls it, and what only asks it stays on this machine."""
    for headers in ("", "-H 'Host: evil.example'", "-H 'X-Forwarded-Host: evil.example'"):
        for realm in ("master", REALM):
            url = f"http://127.0.0.1:8080/realms/{realm}/.well-known/openid-configuration"
            found = json.loads(demo.shell(f"curl -s {headers} {url}").out)
            assert found["issuer"] == f"{GATEWAY}/keycloak/realms/{realm}"
            assert found["authorization_endpoint"].startswith(f"{GATEWAY}/keycloak/")
    found = json.loads(demo.shell(f"curl -s {url}").out)
    assert found["token_endpoint"].startswith("http://127.0.0.1:8080/")
    pid = demo.status("keycloak")["keycloak"]["pid"]
    assert "io.quarkus.bootstrap.runner.QuarkusEntryPoint" in demo.shell(f"tr '\\0' ' ' < /proc/{pid}/cmdline").out


def test_the_demo_ends_with_a_first_login(demo: Sandbox) -> None:
    """The URL, name and password that it prints, which Keycloak wants changed at once."""
    assert demo.demo_output, f"this is about scripts/demo itself: before it, scripts/demo --stop --name {demo.name}"
    said = re.search(r"(https://\S+)/\n\s+The first admin is (\S+), with the password (\S+)\n", demo.demo_output)
    assert said and said[1] == GATEWAY, demo.demo_output
    first = Person(said[2], said[3])
    assert 'name="password-new"' in log_in(demo, first, "/helm/").page
    entered = log_in(demo, first, "/helm/", new_password=secrets.token_urlsafe(12))
    assert entered.location == "/helm/", entered


def test_doctor_finds_nothing(demo: Sandbox) -> None:
    found = json.loads(demo.helmctl("doctor", "--json").out)["findings"]
    # How much of its disk is free is this machine's own affair; a demo needs no backups.
    others = [each for each in found if each["check"] not in ("disk", "backups")]
    assert [each for each in others if each["verdict"] != "ok"] == []


def test_helm_answers_on_its_port(demo: Sandbox) -> None:
    if demo.name == "helm":  # The one sandbox that shares this machine's network.
        with urllib.request.urlopen("http://127.0.0.1:5004/health", timeout=5) as answer:
            report = json.load(answer)
    else:
        report = json.loads(demo.shell("curl -s http://127.0.0.1:5004/health").out)
    assert report["service"] == "helm"
    assert report["status"] == "healthy", report
    assert report["checks"]["database"]["type"] == "postgresql"


def test_systemctl_status_reads_as_expected(demo: Sandbox) -> None:
    text = demo("systemctl", "--user", "status", "--no-pager", "hivematrix-core").out
    assert "hivematrix-core.service - HiveMatrix core: Sample Core" in text
    assert "Active: active (running)" in text
    assert "enabled" in text
    assert "run.py" in text


def test_journalctl_shows_the_services_own_lines(demo: Sandbox) -> None:
    demo.shell("curl -s http://127.0.0.1:5000/health")
    text = demo("journalctl", "--user", "-u", "hivematrix-core", "--no-pager").out
    assert "hivematrix-core[" in text
    assert "Started hivematrix-core.service" in text
    assert "/health" in text


def test_lines_reach_the_store(demo: Sandbox) -> None:
    until(lambda: int(demo.sql("select count(*) from log_entries where service_name = 'ticker'")) > 5, within=30)
    # A restarted ticker counts from one again.
    different = "count(distinct (process_id, message))"
    rows = demo.sql(f"select count(*), {different} from log_entries where message ~ '^tick [0-9]+$'")
    total, distinct = map(int, rows.split("|"))
    assert total == distinct > 5


def test_status_and_metrics_are_filled(demo: Sandbox) -> None:
    seen = "select service_name, coalesce(health_status, status), health_message, now() - last_checked"
    healthy = {*SUITE, "helm"}

    def others() -> list[str]:
        """Rows that should not be there, or not be as they are; on a busy machine a check now and then fails."""
        rows = [row.split("|", 2) for row in demo.sql(f"{seen} from service_status").splitlines()]
        missing = healthy - {name for name, *_ in rows}
        return [*missing, *("|".join(row) for row in rows if row[0] not in healthy or row[1] != "healthy")]

    until_none(others, within=120)
    names = demo.sql("select string_agg(distinct metric_name, ' ' order by metric_name) from service_metrics")
    for name in ("cpu_percent", "memory_mb", "response_ms", "restarts"):
        assert name in names.split()
    reply = json.loads(demo.helmctl("metrics", "core", "--metric", "memory_mb", "--step", "1min", "--json").out)
    newest = reply["metrics"][0]
    assert reply["step"] == 60 and newest["count"] >= 1 and newest["minimum"] <= newest["maximum"]
    assert "memory_mb" in demo.helmctl("metrics", "core", "--since", "-5min").out


def test_stopping_the_target_stops_all_in_reverse_order(demo: Sandbox) -> None:
    """Plain systemctl, as at a shutdown: nobody is stopped before those that depend on him."""
    began = demo.shell("date +%s.%N").out.strip()
    demo("systemctl", "--user", "stop", "hivematrix.target")
    # systemctl waits for the target's own job, and the services' stops go on behind it.
    until(lambda: {entry["active_state"] for entry in demo.status().values()} == {"inactive"}, within=60)
    done = demo.shell(f"journalctl --user --since @{began} -o json --no-pager USER_UNIT=hivematrix-nexus.service + "
                      "USER_UNIT=hivematrix-core.service + USER_UNIT=hivematrix-keycloak.service + "
                      "USER_UNIT=hivematrix-postgres.service")  # fmt: skip
    entries = [json.loads(line) for line in done.out.splitlines()]
    stopped = [entry["USER_UNIT"] for entry in entries if entry["MESSAGE"].startswith("Stopped ")]
    assert stopped == [f"hivematrix-{name}.service" for name in ("nexus", "core", "keycloak", "postgres")]
    demo.helmctl("up", timeout=300)
    assert demo.helmctl("status").code == 0
