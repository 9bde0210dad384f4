"""``helmctl doctor``: every check by itself, so that one that can't be made doesn't keep the others from being made."""

import subprocess
from collections.abc import Callable, Iterator
from typing import NamedTuple

from helmd.model.errors import ConfigurationError, HelmError
from helmd.model.units.diagnostics import Finding, unknown
from helmd.operations.diagnostics import host as doctor_host
from helmd.operations.diagnostics import store as doctor_store
from helmd.operations.diagnostics import suite as doctor_suite
from helmd.operations.diagnostics.context import DoctorContext


class DoctorCheck(NamedTuple):
    """``after_set_up`` marks what makes no sense before: its findings would all say the same."""

    name: str
    examine: Callable[[DoctorContext], list[Finding]]
    after_set_up: bool = False


CHECKS = (
    DoctorCheck("set-up", doctor_suite.is_set_up),
    DoctorCheck("lingering", doctor_host.lingering),
    DoctorCheck("user manager", doctor_host.manager),
    DoctorCheck("journal", doctor_host.journal),
    DoctorCheck("journal storage", doctor_host.storage),
    DoctorCheck("rate limit", doctor_host.rate_limit),
    DoctorCheck("disk", doctor_host.disk),
    DoctorCheck("clock", doctor_host.clock),
    DoctorCheck("hardening", doctor_host.hardening),
    DoctorCheck("configuration", doctor_suite.configuration),
    DoctorCheck("units", doctor_suite.units, after_set_up=True),
    DoctorCheck("isolation", doctor_suite.isolation, after_set_up=True),
    DoctorCheck("ports", doctor_suite.ports),
    DoctorCheck("secrets", doctor_suite.secrets),
    DoctorCheck("java", doctor_suite.java),
    DoctorCheck("postgresql", doctor_suite.postgres, after_set_up=True),
    DoctorCheck("log store", doctor_store.log_store, after_set_up=True),
    DoctorCheck("helm", doctor_suite.helm, after_set_up=True),
)


class CheckFinding(NamedTuple):
    """What one check found."""

    check: str
    finding: Finding


def examine(context: DoctorContext, checks: tuple[DoctorCheck, ...] = CHECKS) -> Iterator[CheckFinding]:
    """The findings, as they are made. Nothing on the machine is changed."""
    for check in checks:
        if check.after_set_up and not context.set_up:
            continue
        for finding in _tried(check, context):
            yield CheckFinding(check.name, finding)


def _tried(check: DoctorCheck, context: DoctorContext) -> list[Finding]:
    try:
        return check.examine(context)
    except ConfigurationError:
        return [unknown("the configuration has faults")]
    except HelmError as error:
        return [unknown(error.sentence)]
    except subprocess.TimeoutExpired as problem:
        return [unknown(f"{problem.cmd[0]} gave no answer in {problem.timeout:g} s")]
    except subprocess.CalledProcessError as problem:
        notified = str(problem.stderr or "").strip().splitlines()
        return [unknown(f"{problem.cmd[0]} failed{': ' + notified[-1] if notified else ''}")]
    except (OSError, ValueError, LookupError) as problem:
        # A file, an account or a number that is not what every healthy machine has.
        return [unknown(f"{type(problem).__name__}: {problem}")]
