"""``helmctl doctor``: runs the checks; one that fails does not prevent the others."""

import subprocess
from collections.abc import Callable, Iterator
from typing import NamedTuple

from helmd.model.errors import ConfigurationError, HelmError
from helmd.model.units.diagnostics import Finding, unknown
from helmd.operations.diagnostics import backups as doctor_backups
from helmd.operations.diagnostics import databases as doctor_databases
from helmd.operations.diagnostics import gateway as doctor_gateway
from helmd.operations.diagnostics import host as doctor_host
from helmd.operations.diagnostics import limits as doctor_limits
from helmd.operations.diagnostics import python as doctor_python
from helmd.operations.diagnostics import services as doctor_services
from helmd.operations.diagnostics import store as doctor_store
from helmd.operations.diagnostics import suite as doctor_suite
from helmd.operations.diagnostics.context import DoctorContext


class DoctorCheck(NamedTuple):
    """``after_set_up`` marks checks that are skipped while the account has no suite."""

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
    DoctorCheck("services", doctor_services.services, after_set_up=True),
    DoctorCheck("certificates", doctor_services.certificates, after_set_up=True),
    DoctorCheck("gateway pages", doctor_gateway.pages, after_set_up=True),
    DoctorCheck("modules", doctor_suite.modules, after_set_up=True),
    DoctorCheck("isolation", doctor_suite.isolation, after_set_up=True),
    DoctorCheck("limits", doctor_limits.limits, after_set_up=True),
    DoctorCheck("ports", doctor_suite.ports),
    DoctorCheck("secrets", doctor_suite.secrets),
    DoctorCheck("java", doctor_suite.java),
    DoctorCheck("environments", doctor_python.environments, after_set_up=True),
    DoctorCheck("postgresql", doctor_suite.postgres, after_set_up=True),
    DoctorCheck("databases", doctor_databases.databases, after_set_up=True),
    DoctorCheck("log store", doctor_store.log_store, after_set_up=True),
    DoctorCheck("backups", doctor_backups.backups, after_set_up=True),
    DoctorCheck("helm", doctor_suite.helm, after_set_up=True),
)


class CheckFinding(NamedTuple):
    """A finding with the name of its check."""

    check: str
    finding: Finding


def examine(context: DoctorContext, checks: tuple[DoctorCheck, ...] = CHECKS) -> Iterator[CheckFinding]:
    """Yield the findings, one after the other. Nothing on the machine is changed."""
    for check in checks:
        if check.after_set_up and not context.set_up:
            continue
        for finding in _tried(check, context):
            yield CheckFinding(check.name, finding)


def _tried(check: DoctorCheck, context: DoctorContext) -> list[Finding]:
    try:
        return check.examine(context)
    except ConfigurationError:
        return [unknown("the configuration has errors")]
    except HelmError as error:
        return [unknown(error.sentence)]
    except subprocess.TimeoutExpired as problem:
        return [unknown(f"{problem.cmd[0]} did not finish within {problem.timeout:g} s")]
    except subprocess.CalledProcessError as problem:
        printed = str(problem.stderr or "").strip().splitlines()
        return [unknown(f"{problem.cmd[0]} failed{': ' + printed[-1] if printed else ''}")]
    except (OSError, ValueError, LookupError) as problem:
        # A missing file or account, or output that could not be parsed.
        return [unknown(f"{type(problem).__name__}: {problem}")]
