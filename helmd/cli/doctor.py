"""``helmctl doctor``: what is wrong with this account's suite and machine, and how to fix it."""

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from helmd.cli import exits, output
from helmd.cli.context import Context
from helmd.model.units.diagnostics import Severity

if TYPE_CHECKING:
    from helmd.model.units.doctor_report import DoctorReport
    from helmd.operations.diagnostics.doctor import CheckFinding

SEVERITY_MARKS: dict[Severity, tuple[str, str]] = {
    "ok": ("✓ ok", "green"),
    "warn": ("! warn", "yellow"),
    "bad": ("✗ bad", "red"),
    "unknown": ("? unknown", "cyan"),
}
_WIDTH = max(len(mark) for mark, _ in SEVERITY_MARKS.values())


@click.command("doctor", short_help="Check suite and machine, and suggest fixes.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@click.pass_obj
def doctor_command(context: Context, as_json: bool) -> int:
    """Check this account, its suite and the machine, and print how to fix what is wrong.

    Nothing is changed. Exit code 0 when no finding is bad (warnings are allowed), else 1: also while a service has
    failed, flaps, is unhealthy or lacks one that it needs.
    """
    from helmd.operations.diagnostics.context import DoctorContext
    from helmd.operations.diagnostics.doctor import CHECKS, examine

    os.environ.setdefault("SYSTEMD_BUS_TIMEOUT", "10")
    results: list[CheckFinding] = []
    width = max(len(check.name) for check in CHECKS)
    for each in examine(DoctorContext(context.layout)):
        check, finding = each
        results.append(each)
        if not as_json:
            mark, colour = SEVERITY_MARKS[finding.verdict]
            output.print_line(output.Painted(mark.ljust(_WIDTH), colour), f"  {check:<{width}}  {finding.sentence}")
            if finding.fix:
                output.print_line(f"{'':{_WIDTH + width + 4}}{finding.fix}")
    worst = [result.finding.verdict for result in results]
    if as_json:
        from helmd.model.api.json_codec import to_json

        output.print_json(to_json(_report(results)))
    return exits.FAILED if "bad" in worst else exits.OK


def doctor_now(context: Context) -> "DoctorReport":
    """Return what doctor finds now."""
    from helmd.operations.diagnostics.context import DoctorContext
    from helmd.operations.diagnostics.doctor import examine

    os.environ.setdefault("SYSTEMD_BUS_TIMEOUT", "10")
    return _report(examine(DoctorContext(context.layout)))


def _report(found: "Iterable[CheckFinding]") -> "DoctorReport":
    from datetime import UTC, datetime

    from helmd.model.units.doctor_report import doctor_report

    results = list(found)
    return doctor_report(results, datetime.now(UTC))
