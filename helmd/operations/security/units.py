"""Checks of the suite's units for the security audit: sandboxes, files, environments."""

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from helmd.files.environment_file import parse_environment_file
from helmd.model.errors import ConfigurationError
from helmd.model.security.findings import SecurityFinding, security_finding
from helmd.model.security.passwords import judge_secrets
from helmd.model.security.settings import judge_debugging, judge_unit_text
from helmd.model.security.units import UnitSandbox, judge_drift, judge_sandbox
from helmd.model.suite.names import HELM_UNITS, STORE_CLUSTER_UNIT, unit_of
from helmd.model.suite.service import Service
from helmd.operations.configuration.apply import changes
from helmd.operations.configuration.module_files import FLASKENV, file_directory
from helmd.operations.diagnostics.context import DoctorContext
from helmd.operations.diagnostics.suite import isolated_now
from helmd.systemd.host import probe_host
from helmd.systemd.installed import installed_mode
from helmd.systemd.programs import exposing_paths

_ANALYZE = ("systemd-analyze", "--user", "--no-pager", "--json=short", "security")
_ANALYZE_SECONDS = 30.0
_LARGEST = 1 << 20


def audit_sandboxes(context: DoctorContext) -> Iterator[SecurityFinding]:
    """Yield services that are not isolated as they should be."""
    if not probe_host().user_namespaces:
        yield security_finding(
            "no-user-namespaces",
            "host",
            "user namespaces are not available: no service is isolated",
            ["systemd-run --user -p PrivateUsers=yes true fails"],
            "See what helmctl doctor says about hardening; then: helmctl setup; helmctl apply",
        )
        return
    exposures = unit_exposures()
    for name, service in context.suite.services.items():
        unit = unit_of(name)
        if service.external or not context.manager.facts(unit).exists:
            continue
        sandbox = UnitSandbox(
            name,
            unit,
            service.hardening,
            isolated_now(name, context) if name != "postgres" else True,
            tuple(exposing_paths(service, context.layout)) if name != "postgres" else (),
            exposures.get(unit),
        )
        yield from judge_sandbox(sandbox)


def unit_exposures() -> Mapping[str, float]:
    """Return the exposures of the account's loaded services by systemd-analyze(1), in one call; empty if it fails."""
    done = subprocess.run(
        _ANALYZE,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        text=True,
        errors="replace",
        timeout=_ANALYZE_SECONDS,
        check=True,
        env={**os.environ, "SYSTEMD_LOG_LEVEL": "err"},
    )
    return {str(row["unit"]): float(row["exposure"]) for row in json.loads(done.stdout or "[]")}


def audit_units(context: DoctorContext) -> Iterator[SecurityFinding]:
    """Yield units that differ from the configuration, or contain secrets."""
    drifted = {
        change.unit: change.kind
        for change in changes(context.suite, context.layout, context.settings, refused=context.effective.refused)
    }
    units = [unit_of(name) for name, service in context.suite.services.items() if not service.external]
    for unit in dict.fromkeys((*units, *drifted, *HELM_UNITS)):
        if unit == STORE_CLUSTER_UNIT and not context.settings.store_embedded:
            continue
        facts = context.manager.facts(unit)
        yield from judge_drift(unit, drifted.get(unit, "same"), facts.exists and facts.need_reload)
        if facts.exists:
            yield from judge_unit_text(unit, _texts(facts.fragment, facts.drop_ins))


def _texts(fragment: str, drop_ins: tuple[str, ...]) -> Mapping[str, str]:
    found = {}
    for path in (fragment, *drop_ins):
        try:
            found[path] = Path(path).read_text(errors="replace")[:_LARGEST]
        except OSError:
            continue
    return found


def audit_environments(context: DoctorContext, wide: frozenset[str]) -> Iterator[SecurityFinding]:
    """Yield enabled debuggers and weak secrets. WIDE are services that other machines can reach."""
    for name, service in context.suite.services.items():
        if service.external:
            continue
        mode = installed_mode(context.layout, name) or context.settings.mode
        places = _variables(service, context)
        places[f"environment of {name} in services.toml"] = service.environment_in(mode)
        for place, variables in places.items():
            yield from judge_debugging(name, mode, variables, place, name in wide)
            yield from judge_secrets(name, place, variables)


def _variables(service: Service, context: DoctorContext) -> dict[str, Mapping[str, str]]:
    """Return the variables in files of SERVICE, by path."""
    directory = file_directory(service, context.layout, FLASKENV) if service.path else None
    paths = [context.layout.secrets_file(service.name)]
    if directory is not None and service.type in ("python", "command", "oneshot"):
        paths += [directory / FLASKENV, directory / ".env"]
    found: dict[str, Mapping[str, str]] = {}
    for path in paths:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            with os.fdopen(descriptor, "rb") as file:
                text = file.read(_LARGEST).decode("utf-8", "surrogateescape")
            found[str(path)] = parse_environment_file(text, str(path))
        except (OSError, ConfigurationError):
            # Reported by doctor.
            continue
    return found
