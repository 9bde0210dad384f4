"""Rendered units on disk: reading their mode, distinguishing ours from others', writing them atomically."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

from helmd.model.errors import UnitRefusedError
from helmd.model.layout import Layout
from helmd.model.suite.names import Mode, unit_of

UNIT_HEADER = '# Rendered by "helmctl apply"'

_MODE = re.compile(r"^Mode=(\w+)$", re.MULTILINE)


def read_unit(path: Path) -> str | None:
    """Return the text of a unit file, or None when there is none."""
    try:
        return path.read_text(errors="replace")
    except FileNotFoundError:
        return None


def is_ours(text: str) -> bool:
    """Return whether Helm rendered this unit, and so may replace it."""
    return text.startswith(UNIT_HEADER)


def starts_with_others(text: str) -> bool:
    """Return whether this unit can be enabled, so that another one starts it (systemd.unit(5), ``[Install]``)."""
    return "\n[Install]\n" in text


def mode_of(text: str | None) -> Mode | None:
    """Return the mode in which a rendered unit was rendered."""
    found = _MODE.search(text.partition("[X-HiveMatrix]")[2]) if text else None
    word = found.group(1) if found else ""
    return "development" if word == "development" else "production" if word == "production" else None


def mode_in_file(path: Path) -> Mode | None:
    """Return the mode in which the unit in a file was rendered; None for one that this account can't read."""
    try:
        return mode_of(read_unit(path))
    except OSError:
        return None


def installed_mode(layout: Layout, service: str) -> Mode | None:
    """Return the mode in which a service's unit is rendered, or None when it isn't."""
    return mode_in_file(layout.unit_file(unit_of(service)))


def verify_units(units: Mapping[str, str], beside: Mapping[str, str] | None = None) -> Mapping[str, list[str]]:
    """Return what systemd-analyze(1) says against UNITS (text by name), by unit. Raises UnitRefusedError.

    BESIDE are those that they may depend on. These are read as far as that goes, in place of what is installed, and
    what is said of them is in the answer as well.
    """
    import subprocess
    import tempfile

    every = {**units, **(beside or {})}
    with tempfile.TemporaryDirectory(prefix="helm-verify-") as directory:
        for name, text in every.items():
            Path(directory, name).write_text(text)
        files = [str(Path(directory, name)) for name in units]
        try:
            done = subprocess.run(
                ["systemd-analyze", "--user", "verify", "--man=no", *files],
                capture_output=True,
                text=True,
                errors="replace",
                timeout=60,
                check=False,
                env={**os.environ, "SYSTEMD_LOG_LEVEL": "warning"},
            )
        except subprocess.TimeoutExpired:
            raise UnitRefusedError("systemd-analyze verify took over a minute; no unit was installed") from None
    # It reads the other units of the account too; what is wrong with those is not ours to judge.
    about_ours: dict[str, list[str]] = {}
    for line in done.stderr.splitlines():
        if name := next((name for name in every if name in line), ""):
            about_ours.setdefault(name, []).append(line.replace(f"{directory}/", ""))
    if done.returncode and not about_ours:
        raise UnitRefusedError(
            "systemd-analyze finds fault with the rendered units; none was installed", lines=done.stderr.splitlines()
        )
    return about_ours
