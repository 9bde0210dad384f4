"""``helmctl security``: what is exposed to others and should not be, and the firewall."""

import os
from typing import TYPE_CHECKING

import click

from helmd.cli import account, exits, output
from helmd.cli.arguments import CommandGroup, point_in_time
from helmd.cli.context import Context
from helmd.cli.firewall import AS_ROOT, FIREWALL_COMMANDS
from helmd.model.counted import counted
from helmd.model.security.findings import SEVERITIES, SecuritySeverity, at_least

if TYPE_CHECKING:
    from helmd.model.api.security import AuditFinding, SecurityAuditReply
    from helmd.operations.security.acceptances import AcceptanceStore

_COLOURS = {"critical": "red", "high": "red", "medium": "yellow", "low": "cyan"}
_WIDTH = max(map(len, SEVERITIES))


@click.group(
    "security",
    cls=CommandGroup,
    invoke_without_command=True,
    short_help="Find what is exposed to others, and set up the firewall.",
)
@click.pass_context
def security_command(ctx: click.Context) -> int | None:
    """Find what is exposed to others and should not be, and set up the firewall. Without a command: audit."""
    if os.geteuid() == 0 and ctx.invoked_subcommand not in AS_ROOT:
        ctx.obj = account.context_of_root(ctx.find_root().params["account_name"])
    return ctx.invoke(security_audit_command) if ctx.invoked_subcommand is None else None


for _command in FIREWALL_COMMANDS:
    security_command.add_command(_command)


@security_command.command("audit", short_help="Look for what is exposed and should not be.")
@click.option("--fail-on", "least", type=click.Choice(SEVERITIES),
              help="Exit code 1 if a finding is this severe, or more, and not accepted.")  # fmt: skip
@click.option("--all", "every", is_flag=True, help="Also show findings that are accepted.")
@click.option("--json", "as_json", is_flag=True, help="Print the reply of GET /api/security/audit.")
@click.pass_obj
def security_audit_command(context: Context, least: SecuritySeverity | None, every: bool, as_json: bool) -> int:
    """Look for what is exposed and should not be: sockets, files, passwords, certificates, units, settings.

    Nothing is changed, and no login is tried. Each finding is printed with its evidence, why it matters, and what
    ends it. helmd need not run.
    """
    reply = audit_here(context)
    if as_json:
        from helmd.model.api.json_codec import to_json

        output.print_json(to_json(reply))
    else:
        _print(reply, every)
    bad = least is not None and any(each.accepted is None and at_least(each.severity, least) for each in reply.findings)
    return exits.FAILED if bad else exits.OK


@security_command.command("accept", short_help="Accept a finding until a time.")
@click.argument("finding", metavar="ID")
@click.option("--reason", required=True, help="Why; shown with the finding.")
@click.option(
    "--until", required=True, metavar="TIME", help='Until when, at most a year ahead: "2027-01-31", "+30 days".'
)
@click.pass_obj
def accept_command(context: Context, finding: str, reason: str, until: str) -> None:
    """Accept the finding with this ID until TIME: it does not count until then, nor while it is not more severe.

    It is among the findings again by itself after TIME.
    """
    from datetime import UTC, datetime

    from helmd.cli.audit import recorded
    from helmd.cli.caller import person
    from helmd.model.security.acceptance import UnknownFindingError
    from helmd.model.security.report import finding_of

    end = datetime.fromtimestamp((point_in_time("--until", until) or 0) / 1_000_000, UTC)
    with recorded(context, "accept finding", reason, f"{finding} until {end.isoformat()}"):
        found = next((each for each in audit_here(context).findings if each.id == finding), None)
        if found is None:
            raise UnknownFindingError(
                f"the audit has no finding with the id {finding}", hint="List them: helmctl security audit --all"
            )
        made = _store(context).accept(finding_of(found), reason, end, person())
    output.print_message(f"Accepted until {made.until.isoformat(timespec='minutes')}: {found.sentence}.")


@security_command.command("withdraw", short_help="Have an accepted finding count again.")
@click.argument("finding", metavar="ID")
@click.option("--reason", default="", help="Why, for the audit trail.")
@click.pass_obj
def withdraw_command(context: Context, finding: str, reason: str) -> None:
    """Have the finding with this ID count again, which was accepted."""
    from helmd.cli.audit import recorded

    with recorded(context, "withdraw acceptance", reason, finding):
        found = _store(context).withdraw(finding)
    output.print_message(f"Not accepted any more: {found.subject} ({found.id}).")


def audit_here(context: Context) -> "SecurityAuditReply":
    """Return an audit of now. Raises NotSetUpError, and ConfigurationError where Helm's settings can't be used."""
    from helmd.operations.diagnostics.context import DoctorContext
    from helmd.operations.security.audit import audit_now

    os.environ.setdefault("SYSTEMD_BUS_TIMEOUT", "10")
    # Says what is missing if there is no suite.
    _ = context.effective
    return audit_now(DoctorContext(context.layout))


def _store(context: Context) -> "AcceptanceStore":
    from helmd.operations.security.acceptances import AcceptanceStore

    return AcceptanceStore(context.layout)


def _print(reply: "SecurityAuditReply", every: bool) -> None:
    shown = [each for each in reply.findings if every or each.accepted is None]
    for each in shown:
        _print_finding(each)
    for sentence in reply.unchecked:
        output.print_message(f"not checked: {sentence}")
    open_ones = sum(each.accepted is None for each in reply.findings)
    accepted = f", {reply.summary.accepted} accepted" if reply.summary.accepted else ""
    output.print_message(f"{counted(open_ones, 'finding')}{accepted}; {_firewall(reply)}.")


def _firewall(reply: "SecurityAuditReply") -> str:
    state = reply.firewall_status
    if state.active is None:
        return "whether a firewall is active can't be known"
    return f"a firewall is active ({state.type})" if state.active else "no firewall is active"


def _print_finding(finding: "AuditFinding") -> None:
    indent = " " * (_WIDTH + 2)
    mark = output.Painted(finding.severity.ljust(_WIDTH), _COLOURS[finding.severity])
    output.print_line(mark, f"  {finding.sentence}")
    for line in finding.evidence:
        output.print_line(f"{indent}  {line}")
    output.print_line(f"{indent}{finding.why}")
    output.print_line(f"{indent}Fix: {finding.fix}")
    if finding.accepted is not None:
        until = finding.accepted.until.astimezone().strftime("%Y-%m-%d %H:%M")
        output.print_line(
            f"{indent}Accepted by {finding.accepted.accepted_by} until {until}: {finding.accepted.reason}"
        )
    output.print_line(f"{indent}{finding.id}")
