"""Which directive of its sandbox a service met, by the unit's properties, how it ended, and what it printed."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from helmd.model.suite.service import Service
from helmd.model.units.hardening import DIRECTIVES, HIDDEN_ROOTS
from helmd.model.units.sandbox_failures import Cause, Sandbox, causes
from helmd.model.units.unit_state import UnitFacts
from helmd.systemd.bus import Manager

_UNRESTRICTED = ("", "no", (1 << 64) - 1)
"""Values of properties whose directive is not in force, besides False."""


def sandbox_of(properties: Mapping[str, Any]) -> Sandbox:
    """Return what restricts a unit with these PROPERTIES (org.freedesktop.systemd1(5)), drop-ins included."""
    families, calls = _allowed(properties, "RestrictAddressFamilies"), _allowed(properties, "SystemCallFilter")
    names = {directive.name for directive in DIRECTIVES}
    in_force = {name for name in names if not _unrestricted(properties.get(name, ""))}
    return Sandbox(frozenset(in_force), frozenset(families), frozenset(calls))


def _unrestricted(value: Any) -> bool:
    if isinstance(value, list):
        # A list of what is allowed, or (for a filter) whether it allows or denies, and what.
        return not any(value) or (value[0] is False and value[1:] == [[]])
    return value is False or value in _UNRESTRICTED


def _allowed(properties: Mapping[str, Any], name: str) -> Sequence[str]:
    value = properties.get(name)
    return value[1] if isinstance(value, list) and len(value) == 2 and value[0] else ()


def hidden_from(properties: Mapping[str, Any], path: str) -> bool:
    """Return whether PATH exists, and a unit with these PROPERTIES does not see it."""
    place = Path(os.path.normpath(path))
    covered = [Path(mount[0]) for mount in properties.get("TemporaryFileSystem", ())]
    if properties.get("ProtectHome") == "tmpfs":
        covered += map(Path, HIDDEN_ROOTS)
    shown = [Path(mount[1]) for name in ("BindPaths", "BindReadOnlyPaths") for mount in properties.get(name, ())]
    if not any(place.is_relative_to(root) for root in covered) or any(place.is_relative_to(root) for root in shown):
        return False
    return os.path.lexists(place)


def sandbox_causes(service: Service, facts: UnitFacts, lines: Sequence[str], manager: Manager) -> list[Cause]:
    """Return what of its sandbox the unit of SERVICE may have failed by, the likeliest first.

    LINES are its last ones.
    """
    properties = manager.properties(facts.unit)
    return causes(facts, lines, sandbox_of(properties), service, lambda path: hidden_from(properties, path))
