"""The check of ``helmctl doctor`` for virtual environments, which an upgrade of the distribution can break."""

import os
import re
import sys
from pathlib import Path

from helmd.model.layout import Layout
from helmd.model.suite.service import Service
from helmd.model.units.diagnostics import Finding, VirtualEnvironment, judge_environments
from helmd.operations.diagnostics.context import DoctorContext
from helmd.postgres.distribution_upgrade import candidate

_VERSION = re.compile(r"(\d+\.\d+)")
_TOOLS = {"pip", "setuptools", "wheel", "pkg_resources", "_distutils_hack", "distutils-precedence", "__pycache__"}
"""Packages that venv installs itself, which services do not need."""
_LONGEST = 65_536
"""Maximum number of characters read of pyvenv.cfg."""
_PROGRAM = re.compile(r"python(\d+\.\d+)")


def environments(context: DoctorContext) -> list[Finding]:
    """Check whether virtual environments have the Python that they were made with, now and after the next upgrade."""
    found = [
        environment
        for name, service in context.suite.services.items()
        if service.type == "python" and not service.external and not service.start_command
        if (environment := environment_of(name, _interpreter(service, context.layout))) is not None
    ]
    return judge_environments(found, _following())


def _interpreter(service: Service, layout: Layout) -> Path:
    return layout.resolve_in(layout.resolve(service.path), service.python_bin)


def environment_of(service: str, interpreter: Path) -> VirtualEnvironment | None:
    """Return what is known of the virtual environment that INTERPRETER belongs to, or None when it belongs to none.

    Nothing of it is executed, and no more is read than a real one has: the service may have changed it.
    """
    directory = interpreter.parent.parent
    settings = {key.strip(): value.strip() for key, _, value in _lines(directory / "pyvenv.cfg")}
    made = _VERSION.match(settings.get("version", settings.get("version_info", "")))
    if made is None:
        return None
    program = Path(os.path.realpath(interpreter))
    named = _PROGRAM.fullmatch(program.name)
    return VirtualEnvironment(
        service,
        str(directory),
        made[1],
        named[1] if named and program.exists() else None,
        not program.exists(),
        _has_packages(directory / "lib" / f"python{made[1]}" / "site-packages"),
    )


def _lines(path: Path) -> list[tuple[str, str, str]]:
    try:
        if not path.is_file():
            return []
        with path.open(errors="replace") as file:
            return [line.partition("=") for line in file.read(_LONGEST).splitlines()]
    except OSError:
        return []


def _has_packages(directory: Path) -> bool:
    try:
        names = [entry.name for entry in directory.iterdir()]
    except OSError:
        return False
    return any(re.split(r"[-.]\d|\.", name)[0] not in _TOOLS for name in names)


def _following() -> str | None:
    """Return the version of /usr/bin/python3 after the next upgrade, if it is another than now."""
    found = _VERSION.match(candidate("python3") or "")
    now = f"{sys.version_info.major}.{sys.version_info.minor}"
    return found[1] if found and found[1] != now else None
