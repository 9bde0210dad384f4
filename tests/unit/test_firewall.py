"""The firewall that Helm proposes, and the scripts for it. tests/system/test_firewall.py runs them."""

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helmd.model.errors import UsageError
from helmd.model.security.firewall import FIREWALL_KINDS, FirewallKind, FirewallPlan, FirewallPort, firewall_plan
from helmd.model.security.firewall_script import firewall_script
from helmd.model.suite.service import Registry, Service
from helmd.operations.security.firewall import script_for

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
        (51820, "udp", "by request"),
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
    """What sh(1) makes of the data in a script for PLAN, line by line."""
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
