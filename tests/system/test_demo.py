"""What `scripts/demo` leaves: a healthy suite that reads, to systemctl and journalctl, as an admin expects."""

import json
import os
import urllib.request

import pytest

from tests.system.booted import Sandbox, until

SUITE = ("postgres", "keycloak", "core", "nexus", "codex", "ledger", "knowledgetree", "ticker")
DEMO_SECONDS = 360.0


def test_demo_ends_well_and_in_time(demo: Sandbox) -> None:
    if "HIVEMATRIX_TEST_SANDBOX" in os.environ:
        pytest.fail("run without HIVEMATRIX_TEST_SANDBOX: this test is about scripts/demo itself")
    assert demo.demo_code == 0
    assert demo.demo_seconds < DEMO_SECONDS, demo.demo_output
    for said in ("building the Debian package", "booting Debian", "helmctl up", "keycloak: started", "--stop"):
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
    page = demo.shell("curl -s http://127.0.0.1:8080/realms/master/.well-known/openid-configuration").out
    assert json.loads(page)["issuer"] == "http://127.0.0.1:8080/realms/master"
    pid = demo.status("keycloak")["keycloak"]["pid"]
    assert "io.quarkus.bootstrap.runner.QuarkusEntryPoint" in demo.shell(f"tr '\\0' ' ' < /proc/{pid}/cmdline").out


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
    # The suite and helm itself.
    until(lambda: demo.sql("select count(*) from service_status where health_status = 'healthy'") == "9", within=40)
    names = demo.sql("select string_agg(distinct metric_name, ' ' order by metric_name) from service_metrics")
    for name in ("cpu_percent", "memory_mb", "response_ms", "restarts"):
        assert name in names.split()


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
