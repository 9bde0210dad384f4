"""Units whose sandbox is missing, weaker than it should be, or not what the configuration says."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from helmd.model.security.findings import SecurityFinding, security_finding
from helmd.model.units.hardening import EXPOSURE, ISOLATED, PROFILES, Hardening

_TOLERANCE = 1.0
"""By how much releases of systemd differ in the exposure that they compute for the same unit, and a little more."""


@dataclass(frozen=True, slots=True)
class UnitSandbox:
    """The sandbox of a service. ``isolates``: whether the unit, as it is loaded, hides the account's secrets.

    ``exposure`` is what ``systemd-analyze security`` says (0 the least, 10 the most), None if it does not.
    """

    service: str
    unit: str
    profile: Hardening
    isolates: bool
    exposing: Sequence[str] = ()
    exposure: float | None = None


def judge_sandbox(sandbox: UnitSandbox) -> Iterator[SecurityFinding]:
    """Yield what is wrong with it, on a host that has user namespaces."""
    name, unit = sandbox.service, sandbox.unit
    shown = (
        [] if sandbox.exposure is None else [f"systemd-analyze --user security {unit}: {sandbox.exposure:.1f} of 10"]
    )
    if sandbox.profile not in ISOLATED:
        yield security_finding(
            "unit-not-sandboxed",
            unit,
            f"{name} is not isolated: its profile is {sandbox.profile}",
            [f'services.toml: hardening = "{sandbox.profile}" for {name}', *shown],
            f'hardening = "{PROFILES[0]}" for {name} in services.toml; then: helmctl apply; helmctl restart {name}',
        )
    elif not sandbox.isolates:
        yield security_finding(
            "unit-not-sandboxed",
            unit,
            f"{name} is not isolated: its unit, with its drop-ins, does not hide the account's secrets",
            [f"{unit} as loaded: PrivateUsers= or the mounts of its profile {sandbox.profile} are missing", *shown],
            f"Remove what changes it (helmctl cat {name}), then: helmctl apply; helmctl restart {name}",
        )
    elif sandbox.exposure is not None and sandbox.exposure > EXPOSURE[sandbox.profile] + _TOLERANCE:
        yield security_finding(
            "weak-sandbox",
            unit,
            f"{unit} is exposed more than its profile {sandbox.profile} is meant to be",
            [*shown, f"the profile {sandbox.profile} has {EXPOSURE[sandbox.profile]:.1f}"],
            f"See what changes it: helmctl cat {name}; systemd-analyze --user security {unit}",
        )
    if sandbox.profile in ISOLATED and sandbox.exposing:
        yield security_finding(
            "exposing-path",
            unit,
            f"{name} can act as the account through what its directories show it",
            list(sandbox.exposing),
            f"Narrow path, readable_paths and writable_paths of {name} in services.toml; then: helmctl apply",
        )


def judge_drift(unit: str, kind: str, reload: bool) -> Iterator[SecurityFinding]:
    """Check whether a unit is what the configuration says: KIND is that of `Change`, RELOAD that systemd has not read
    it.
    """
    said = {
        "new": "is not installed",
        "changed": "differs from what the configuration says",
        "orphan": "belongs to no service that is configured",
        "foreign": "was not written by Helm",
    }
    if kind in said:
        yield security_finding(
            "unit-drift",
            unit,
            f"{unit} {said[kind]}",
            [f"helmctl diff shows {unit} as {kind}"],
            f"See systemctl --user cat {unit}; move it away, then: helmctl apply"
            if kind == "foreign"
            else "helmctl diff; helmctl apply",
        )
    elif reload:
        yield security_finding(
            "unit-drift",
            unit,
            f"{unit} has changed since systemd loaded it",
            [f"{unit}: NeedDaemonReload=yes"],
            f"systemctl --user daemon-reload; systemctl --user restart {unit}",
        )
