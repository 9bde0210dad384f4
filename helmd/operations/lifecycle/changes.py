"""What a service reads when it starts, and which of it has changed since."""

import os
from collections.abc import Iterator
from pathlib import Path

from helmd.model.layout import Layout
from helmd.model.suite.service import Service
from helmd.model.units.unit_state import UnitFacts

_READ = frozenset(
    [
        ".cfg",
        ".conf",
        ".env",
        ".flaskenv",
        ".go",
        ".html",
        ".ini",
        ".j2",
        ".js",
        ".json",
        ".mjs",
        ".php",
        ".pl",
        ".properties",
        ".py",
        ".rb",
        ".sh",
        ".toml",
        ".ts",
        ".xml",
        ".yaml",
        ".yml",
    ]
)
"""Suffixes of programs and configuration; what else is in a service's directory, it writes itself."""
_WRITTEN = frozenset({"services.json"})
"""Helm writes this at each start."""
_PASSED_OVER = frozenset({"__pycache__", "data", "lib", "log", "logs", "node_modules", "pyenv", "tmp", "venv"})
_DEEPEST, _MOST = 4, 5000
"""Levels of directories that are looked into, and files that are looked at."""


def changed_since(layout: Layout, service: Service, facts: UnitFacts, since: float) -> str:
    """Return a file of SERVICE that was changed after SINCE (seconds since the epoch); empty when none was."""
    named = [facts.fragment, *facts.drop_ins, str(layout.secrets_file(service.name))]
    directory = layout.resolve(service.path)
    module = layout.module_of(directory)
    beside = () if module is None else _files(str(module.shared), _DEEPEST)
    candidates: list[str] = [*named, *_files(str(directory), _DEEPEST), *beside]
    for count, path in enumerate(candidates):
        if count == _MOST:
            break
        try:
            if os.stat(path).st_mtime > since:
                return path
        except OSError:
            continue
    return ""


def _files(directory: str, levels: int) -> Iterator[str]:
    inside = []
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    if entry.name not in _PASSED_OVER and not entry.name.startswith("."):
                        inside.append(entry.path)
                elif entry.name not in _WRITTEN and (Path(entry.name).suffix or entry.name) in _READ:
                    yield entry.path
    except OSError:
        return
    if levels > 1:
        for each in sorted(inside):
            yield from _files(each, levels - 1)
