"""``helmctl audit``: who changed what; and the records of what helmctl itself changes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from helmd.cli import output
from helmd.cli.arguments import point_in_time
from helmd.cli.context import Context

if TYPE_CHECKING:
    from helmd.model.identity.audit import AuditEntry

_COLOURS = {"refused": "yellow", "failed": "red"}


@click.command("audit", short_help="Show who changed what, or tried to.")
@click.option("-n", "--lines", type=click.IntRange(1, 1000), default=100, show_default=True, help="How many at most.")
@click.option("-S", "--since", metavar="TIME", help='Only changes since then: "10 min ago", "yesterday", ISO 8601.')
@click.option("-U", "--until", metavar="TIME", help="Only changes before then.")
@click.option("--cursor", metavar="CURSOR", help="Only changes before the one that has this cursor in the JSON.")
@click.option("--service", metavar="NAME", help="Only changes of this service.")
@click.option("--who", metavar="NAME", help="Only changes by this user, account, or machine:TOKEN.")
@click.option("--result", metavar="RESULT", help="Only changes with this result: done, failed, refused.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def audit_command(
    context: Context,
    lines: int,
    since: str | None,
    until: str | None,
    cursor: str | None,
    service: str | None,
    who: str | None,
    result: str | None,
    as_json: bool,
) -> None:
    """Show changes by helmctl and over the API, the newest last; also what was refused.

    They are read from the journal; only entries that Helm signed are shown. What systemd started or stopped without
    Helm, as by systemctl, is shown as "outside Helm".
    """
    from helmd.model.api.json_codec import to_json
    from helmd.operations.logs.audit import AuditQuery, audit_entries, audit_place

    after, before = point_in_time("--since", since), point_in_time("--until", until)
    suite = context.suite_or_installed
    scheduled = {name for name, each in suite.services.items() if each.schedule}
    wanted = AuditQuery(service, who, result, after, before, None if cursor is None else audit_place(cursor))
    found = audit_entries(context.layout, scheduled, wanted, lines).entries
    if as_json:
        output.print_json([to_json(entry.body) for entry in reversed(found)])
        return
    for entry in reversed(found):
        output.print_line(*_line(entry))


def _line(entry: "AuditEntry") -> list[output.Part]:
    change, origin = entry.change, entry.change.origin
    time = entry.time.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    what = f"{change.action} {change.service}".rstrip()
    colour = _COLOURS.get(change.result)
    result: output.Part = output.Painted(change.result, colour) if colour else change.result
    where = ", ".join(part for part in (origin.via, origin.address, origin.unit, origin.session) if part)
    more = "; ".join(part for part in (change.reason, change.detail) if part)
    return [f"{time} {change.actor}: {what}: ", result, f" [{where}]" if where else "", f" {more}" if more else ""]


@dataclass(slots=True)
class Outcome:
    """Whether the recorded operation succeeded; set by commands that report a failure without raising an error."""

    good: bool = True


@contextmanager
def recorded(context: Context, action: str, reason: str, detail: str) -> Iterator[Outcome]:
    """Record ACTION, which is done in this context, in the audit trail of an account that has a suite."""
    outcome, ended = Outcome(), False
    try:
        yield outcome
        ended = True
    finally:
        if context.layout.config.is_dir():
            from helmd.cli.caller import origin_here, person
            from helmd.journal.actions import record_change
            from helmd.journal.keys import JournalKeys
            from helmd.model.identity.audit import AuditedChange

            result = "done" if ended and outcome.good else "failed"
            change = AuditedChange(action, result, person(), reason=reason, detail=detail, origin=origin_here())
            record_change(JournalKeys(context.layout.journal_keys), change, "helmctl")


def audited(action: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Have a command be recorded in the audit trail as ACTION, with the services that it is given; not a dry run."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(command)
        def run(context: Context, *arguments: Any, **given: Any) -> Any:
            if given.get("dry_run"):
                return command(context, *arguments, **given)
            named = given.get("services") or given.get("service") or given.get("name") or ""
            detail = named if isinstance(named, str) else ", ".join(named)
            with recorded(context, action, given.get("reason") or "", detail) as outcome:
                code = command(context, *arguments, **given)
                outcome.good = not code
            return code

        return run

    return decorate
