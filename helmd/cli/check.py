"""What ``helmd-check@.service`` runs: makes a check as helmctl does, and keeps its result where helmd reads it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from helmd.cli.context import Context
from helmd.cli.doctor import doctor_now
from helmd.cli.main import print_error
from helmd.cli.output import print_message
from helmd.cli.security import audit_here
from helmd.model.errors import HelmError
from helmd.model.suite.names import UNIT_CHECKS
from helmd.operations.diagnostics.latest import keep_report

_MAKE: Mapping[str, Callable[[Context], Any]] = {"audit": audit_here, "doctor": doctor_now}


def main(arguments: Sequence[str]) -> int:
    """Make the check that the one argument names; the exit status is returned. What goes wrong is printed."""
    if len(arguments) != 1 or arguments[0] not in _MAKE:
        print_message(f"usage: check {' | '.join(UNIT_CHECKS)}")
        return 2
    context = Context()
    try:
        keep_report(context.layout, arguments[0], _MAKE[arguments[0]](context))
    except HelmError as error:
        print_error(error)
        return 1
    except OSError as error:
        print_error(HelmError(f"{error.filename}: {error.strerror}" if error.filename else str(error)))
        return 1
    return 0
