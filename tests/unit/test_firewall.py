"""The firewall that Helm proposes, and the scripts for it. tests/system/test_firewall.py runs them."""

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import make_mocked_request
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from helmd.cli.security import security_command
from helmd.model.errors import DeniedError, HelmError, UsageError
from helmd.model.security.firewall import FIREWALL_KINDS, FirewallKind, FirewallPlan, FirewallPort, firewall_plan
from helmd.model.security.firewall_script import firewall_script
from helmd.model.suite.service import Registry, Service
from helmd.operations.security.firewall import script_for
from helmd.operations.security.firewall_apply import STATE, plan_document, plan_of_document
from helmd.web.api.firewall import Firewall

TOP = Path(__file__).resolve().parents[2]
HELM = 5004
SUITE = Registry(
    {
        "nexus": Service("nexus", port=443, url="https://localhost:443"),
        "keycloak": Service("keycloak", type="keycloak", port=8080),
        "custom": Service("custom", type="command", port=7000, url="http://0.0.0.0:7000"),
        "worker": Service("worker", type="command"),
        "elsewhere": Service("elsewhere", type="external", port=9000, url="https://db.example:9000"),
    }
)
HOSTILE = (
    "'; touch pwned; '",
    '"$(touch pwned)"',
    "`touch pwned`",
    "a\ntouch pwned",
    "\\'",
    '"; drop table',
    "$IFS",
    "",
)


def test_the_gateway_is_open_and_all_others_are_closed() -> None:
    plan = firewall_plan(SUITE, HELM)
    assert plan.opened == (FirewallPort(443, "tcp", "nexus"),)
    assert [(each.port, each.service) for each in plan.closed] == [(HELM, "helm"), (7000, "custom"), (8080, "keycloak")]


def test_a_suite_without_a_gateway_opens_nothing() -> None:
    assert firewall_plan(Registry({"custom": SUITE["custom"]}), HELM).opened == ()


def test_more_is_opened_by_service_and_by_port() -> None:
    plan = firewall_plan(SUITE, HELM, ["custom", "8080", "51820/udp", "443", "helm"])
    assert [(each.port, each.protocol, each.service) for each in plan.opened] == [
        (443, "tcp", "nexus"),
        (HELM, "tcp", "helm"),
        (7000, "tcp", "custom"),
        (8080, "tcp", "keycloak"),
        (51820, "udp", "by-request"),
    ]
    assert plan.closed == ()


@pytest.mark.parametrize("word", ["worker", "nobody", "0", "65536", "443/sctp", "-1", "443 22", "٤٤٣", "", "1e3"])
def test_what_is_no_port_is_refused(word: str) -> None:
    with pytest.raises(UsageError):
        firewall_plan(SUITE, HELM, [word])


def test_networks_are_joined_where_one_holds_the_other() -> None:
    plan = firewall_plan(SUITE, HELM, (), ["10.1.0.0/16", "10.0.0.0/8", "192.168.7.3", "fd00::/8", "fd12::/16"])
    assert [str(each) for each in plan.networks] == ["10.0.0.0/8", "192.168.7.3/32", "fd00::/8"]


@pytest.mark.parametrize("word", ["10.0.0.1/8", "10.0.0.0/33", "all", "10.0.0.0/8; reboot", "fe80::1%eth0/64 x", ""])
def test_what_is_no_network_is_refused(word: str) -> None:
    with pytest.raises(UsageError):
        firewall_plan(SUITE, HELM, (), [word])


@pytest.mark.parametrize("kind", FIREWALL_KINDS)
@pytest.mark.parametrize("networks", [[], ["10.0.0.0/8"], ["10.0.0.0/8", "fd00::/8"]], ids=len)
def test_shellcheck_finds_nothing(tmp_path: Path, kind: FirewallKind, networks: list[str]) -> None:
    script = tmp_path / "script"
    script.write_text(script_for(TOP, kind, firewall_plan(SUITE, HELM, ["custom"], networks)))
    checked = subprocess.run(["shellcheck", str(script)], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


def data_of(plan: FirewallPlan, place: Path) -> list[str]:
    """Return what sh(1) makes of the data in a script for PLAN, line by line."""
    show = 'main() { printf "%s\\n" "$OPEN" "$CLOSED" "$SOURCES4" "$SOURCES6"; }'
    done = subprocess.run(
        ["sh"], input=firewall_script("nftables", plan, show, ""), cwd=place, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_only_a_name(tmp_path: Path, name: str) -> None:
    plan = firewall_plan(SUITE, HELM)
    plan = replace(plan, opened=(FirewallPort(443, "tcp", name),), closed=(FirewallPort(80, "tcp", name),))
    opened, closed, *networks = data_of(plan, tmp_path)
    assert opened.startswith("443 tcp ") and closed.startswith("80 tcp ") and networks == ["", ""]
    assert list(tmp_path.iterdir()) == []


@given(st.text(max_size=80))
def test_any_name_becomes_one_word(name: str) -> None:
    script = firewall_script("ufw", FirewallPlan((FirewallPort(443, "tcp", name),), ()), "", "")
    (line,) = [line for line in script.splitlines() if line.startswith("OPEN=")]
    assert line.isascii() and line.endswith("'") and line.count("'") == 2
    assert len(line.split(" ")) == 3 and not set(line) & set('"$`\\;&|<>(){}*?~#!')


def test_every_option_of_a_script_is_in_its_usage() -> None:
    done = subprocess.run(
        ["sh", "-s", "--", "--help"],
        input=script_for(TOP, "nftables", firewall_plan(SUITE, HELM)),
        capture_output=True,
        text=True,
        check=True,
    )
    for option in ("--dry-run", "--confirm-within", "--confirm", "--undo"):
        assert option in done.stdout


@pytest.mark.parametrize("seconds", ["9", "3601", "0", "-5", "60s", "", "1e2", "007"])
def test_a_time_that_is_too_short_or_too_long_is_refused(seconds: str) -> None:
    done = subprocess.run(
        ["sh", "-s", "--", "--confirm-within", seconds],
        input=script_for(TOP, "nftables", firewall_plan(SUITE, HELM)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1 and "must be 10 to 3600 seconds" in done.stderr


def test_a_plan_is_the_same_after_its_way_to_root() -> None:
    plan = firewall_plan(SUITE, HELM, ["51820/udp"], ["10.0.0.0/8", "fd00::/8"])
    assert plan_of_document(json.loads(json.dumps(plan_document(plan)))) == plan


@pytest.mark.parametrize(
    "port",
    [
        {"port": "443; reboot", "protocol": "tcp", "service": "nexus"},
        {"port": 0, "protocol": "tcp", "service": "nexus"},
        {"port": 443.5, "protocol": "tcp", "service": "nexus"},
        {"port": True, "protocol": "tcp", "service": "nexus"},
        {"port": 443, "protocol": "tcp\nreboot", "service": "nexus"},
        {"port": 443, "protocol": "tcp"},
        None,
    ],
)
def test_root_takes_no_other_plan_from_the_account(port: Any) -> None:
    for document in (
        {"opened": [port], "closed": [], "networks": []},
        {"opened": [], "closed": [], "networks": [port]},
    ):
        with pytest.raises(HelmError):
            plan_of_document(document)


async def asked(query: str) -> dict[str, str]:
    request = make_mocked_request("GET", f"/api/security/firewall-script?{query}")
    answer = await Firewall(TOP, lambda: (SUITE, HELM)).script(request)
    assert isinstance(answer.body, bytes)
    found: dict[str, str] = json.loads(answer.body)
    return found


async def test_the_api_gives_the_script_of_each_tool() -> None:
    for kind in FIREWALL_KINDS:
        found = await asked(f"type={kind}")
        script = script_for(TOP, kind, firewall_plan(SUITE, HELM))
        assert found == {"filename": f"hivematrix-firewall-{kind}.sh", "script": script}
    found = await asked("open=custom,%2051820/udp&allow_from=10.0.0.0/8")
    assert "7000 tcp custom" in found["script"] and "SOURCES4='10.0.0.0/8'" in found["script"]


@pytest.mark.parametrize("query", ["type=pf", "open=nobody", "allow_from=10.0.0.1/8", "type=ufw&type=ufw"])
async def test_the_api_refuses_what_is_none(query: str) -> None:
    with pytest.raises(UsageError):
        await asked(query)


@pytest.mark.parametrize("words", ["apply nftables", "confirm", "undo"])
def test_only_root_changes_the_firewall(monkeypatch: pytest.MonkeyPatch, words: str) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    result = CliRunner().invoke(security_command, words.split())
    assert isinstance(result.exception, DeniedError)
    assert result.exception.hint == f"Run: sudo helmctl security {words}"


def test_the_state_is_where_the_scripts_have_it() -> None:
    text = (TOP / "firewall/common.sh").read_text()
    assert f"\nSTATE={STATE}\n" in text
    assert (TOP / "debian/hivematrix-helm.postrm").read_text().count(str(STATE)) == 2
