"""``helmctl security audit``, ``accept`` and ``withdraw``: what they print, and the exit codes."""

import json
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import click
import pytest

from helmd.cli import security
from helmd.cli.context import Context
from helmd.model.api.security import FirewallStatus, SecurityAuditReply
from helmd.model.errors import UsageError
from helmd.model.layout import layout
from helmd.model.security.acceptance import UnknownFindingError, acceptances_in_force
from helmd.model.security.findings import security_finding
from helmd.model.security.report import AuditFacts, audit_reply, with_acceptances
from helmd.operations.security.acceptances import AcceptanceStore

NOW = datetime.now(UTC)
HIGH = security_finding("wide-binding", "core port 5000", "core is open\x1b[2J", ["tcp 0.0.0.0:5000"], "bind it")
LOW = security_finding("anonymous-ingest", "ingest.anonymous", "everybody may post", ["helm.toml"], "set it")
FIREWALL = FirewallStatus(True, "nftables", ())
REPLY = audit_reply(AuditFacts(NOW, 0.5, [HIGH, LOW], firewall=FIREWALL, unchecked=["updates: apt-get failed"]), 1000)


class FakeContext:
    """What the commands use of `Context`: the places of an account without a suite, so that nothing is recorded."""

    def __init__(self, directory: Path) -> None:
        self.layout = layout({}, directory, os.getuid(), directory)


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Context:
    made = cast(Context, FakeContext(tmp_path))

    def audited(given: Context) -> SecurityAuditReply:
        store = AcceptanceStore(given.layout)
        return with_acceptances(REPLY, acceptances_in_force(store.acceptances(), datetime.now(UTC)))

    monkeypatch.setattr(security, "audit_here", audited)
    return made


def ran(command: click.Command, context: Context, *words: str) -> Any:
    return command.main(list(words), standalone_mode=False, obj=context)


@pytest.mark.parametrize(
    ("least", "code"), [(None, 0), ("low", 1), ("medium", 1), ("high", 1), ("critical", 0)], ids=str
)
def test_fail_on(context: Context, least: str | None, code: int) -> None:
    words = [] if least is None else ["--fail-on", least]
    assert ran(security.security_audit_command, context, *words) == code


def test_a_finding_is_printed_with_all_that_belongs_to_it(context: Context, capsys: pytest.CaptureFixture[str]) -> None:
    ran(security.security_audit_command, context)
    printed = capsys.readouterr()
    lines = [line.strip() for line in printed.out.splitlines()]
    assert lines[0] == r"high      core is open\x1b[2J"
    assert lines[1:5] == ["tcp 0.0.0.0:5000", HIGH.why, "Fix: bind it", HIGH.id]
    assert printed.err.splitlines() == [
        "not checked: updates: apt-get failed",
        "2 findings; a firewall is active (nftables).",
    ]


def test_what_is_accepted_does_not_fail_and_is_shown_on_request(
    context: Context, capsys: pytest.CaptureFixture[str]
) -> None:
    ran(security.accept_command, context, HIGH.id, "--reason", "behind a VPN", "--until", "+30 days")
    assert "Accepted until" in capsys.readouterr().err
    assert ran(security.security_audit_command, context, "--fail-on", "high") == 0
    printed = capsys.readouterr()
    assert "core is open" not in printed.out and "1 finding, 1 accepted" in printed.err
    ran(security.security_audit_command, context, "--all")
    assert ": behind a VPN" in capsys.readouterr().out
    ran(security.security_audit_command, context, "--json")
    reply = json.loads(capsys.readouterr().out)
    assert [bool(each["accepted"]) for each in reply["findings"]] == [True, False]
    ran(security.withdraw_command, context, HIGH.id)
    assert ran(security.security_audit_command, context, "--fail-on", "high") == 1


def test_what_can_not_be_accepted(context: Context) -> None:
    with pytest.raises(UnknownFindingError, match="no finding with the id nothing"):
        ran(security.accept_command, context, "nothing", "--reason", "x", "--until", "tomorrow")
    with pytest.raises(UsageError, match="until: must be in the future"):
        ran(security.accept_command, context, HIGH.id, "--reason", "x", "--until", "yesterday")
    with pytest.raises(UsageError, match=r"--until: .* is not a time"):
        ran(security.accept_command, context, HIGH.id, "--reason", "x", "--until", "someday")
    with pytest.raises(UnknownFindingError):
        ran(security.withdraw_command, context, HIGH.id)


def test_what_became_more_severe_counts(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    before = datetime.now(UTC)
    ran(security.accept_command, context, LOW.id, "--reason", "known", "--until", "+1 day")
    (made,) = AcceptanceStore(context.layout).acceptances()
    assert before + timedelta(days=1) <= made.until <= datetime.now(UTC) + timedelta(days=1)
    worse = audit_reply(AuditFacts(NOW, 0.5, [replace(LOW, severity="high")]), 1000)
    in_force = acceptances_in_force((made,), datetime.now(UTC))
    monkeypatch.setattr(security, "audit_here", lambda _: with_acceptances(worse, in_force))
    assert ran(security.security_audit_command, context, "--fail-on", "high") == 1
