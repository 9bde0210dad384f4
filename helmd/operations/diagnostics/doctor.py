"""``helmctl doctor``: every check by itself, so that one that can't be made doesn't keep the others from being made."""

import subprocess
from collections.abc import Callable, Iterator
from typing import NamedTuple

from helmd.model.errors import ConfigurationError, HelmError
from helmd.model.units.diagnostics import Finding, unknown
from helmd.operations.diagnostics import host as doctor_host
from helmd.operations.diagnostics import suite as doctor_suite
from helmd.operations.diagnostics.context import Patient


class Check(NamedTuple):
    """``after_set_up`` marks what makes no sense before: its findings would all say the same."""

    name: str
    examine: Callable[[Patient], list[Finding]]
    after_set_up: bool = False


CHECKS = (
    Check("set-up", doctor_suite.set_up),
    Check("lingering", doctor_host.lingering),
    Check("user manager", doctor_host.manager),
    Check("journal", doctor_host.journal),
    Check("journal storage", doctor_host.storage),
    Check("rate limit", doctor_host.rate_limit),
    Check("disk", doctor_host.disk),
    Check("clock", doctor_host.clock),
    Check("hardening", doctor_host.hardening),
    Check("configuration", doctor_suite.configuration),
    Check("units", doctor_suite.units, after_set_up=True),
    Check("ports", doctor_suite.ports),
    Check("secrets", doctor_suite.secrets),
    Check("java", doctor_suite.java),
    Check("postgresql", doctor_suite.postgres, after_set_up=True),
    Check("helm", doctor_suite.helm, after_set_up=True),
)


class Result(NamedTuple):
    """What one check found."""

    check: str
    finding: Finding


def examine(patient: Patient, checks: tuple[Check, ...] = CHECKS) -> Iterator[Result]:
    """The findings, as they are made. Nothing on the machine is changed."""
    for check in checks:
        if check.after_set_up and not patient.set_up:
            continue
        for finding in _tried(check, patient):
            yield Result(check.name, finding)


def _tried(check: Check, patient: Patient) -> list[Finding]:
    try:
        return check.examine(patient)
    except ConfigurationError:
        return [unknown("the configuration has faults")]
    except HelmError as error:
        return [unknown(error.sentence)]
    except subprocess.TimeoutExpired as problem:
        return [unknown(f"{problem.cmd[0]} gave no answer in {problem.timeout:g} s")]
    except subprocess.CalledProcessError as problem:
        told = str(problem.stderr or "").strip().splitlines()
        return [unknown(f"{problem.cmd[0]} failed{': ' + told[-1] if told else ''}")]
    except (OSError, ValueError, LookupError) as problem:
        # A file, an account or a number that is not what every healthy machine has.
        return [unknown(f"{type(problem).__name__}: {problem}")]
