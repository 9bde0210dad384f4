"""A module's commands that change its data, run in its version's directory, with the sandbox and environment of its
unit.
"""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

from helmd.files.environment_file import read_environment_file
from helmd.model.config.settings import Settings
from helmd.model.errors import HelmError, ModuleError
from helmd.model.layout import Layout
from helmd.model.suite.names import unit_of
from helmd.model.suite.service import Registry, Service
from helmd.modules.sandbox import MEMORY, TASKS, BuildSandbox, run_in
from helmd.operations.configuration.apply import rendered
from helmd.operations.configuration.host_facts import host_of

_LEFT_OUT = re.compile(
    r"(Exec\w+|Type|Restart\w*|KillMode|KillSignal|Timeout\w+|SyslogIdentifier|OOMPolicy|SuccessExitStatus|"
    r"RuntimeDirectory\w*|NotifyAccess|RemainAfterExit|UnsetEnvironment)="
)
SECONDS = 1800.0
"""Time limit of a migration in seconds."""


def service_properties(unit: str) -> list[str]:
    """Return the directives of a rendered UNIT's ``[Service]`` that say what its program sees, for systemd-run(1)."""
    found, inside = [], False
    for line in unit.splitlines():
        if line.startswith("["):
            inside = line == "[Service]"
        elif inside and "=" in line and not line.startswith("#") and not _LEFT_OUT.match(line):
            # Specifiers are not expanded there.
            found.append(line.replace("%%", "%"))
    return found


def run_for_module(
    service: Service,
    registry: Registry,
    layout: Layout,
    settings: Settings,
    words: tuple[str, ...],
    line: Callable[[str], None],
    job: str = "",
) -> None:
    """Run a command of a module as its service, from its ``path``. Raises ModuleError if it fails.

    Secrets of the service are removed from the output.
    """
    name, directory = service.name, layout.resolve(service.path)
    unit = rendered(registry, layout, settings, only=Registry({name: service}))[unit_of(name)]
    properties = [
        *service_properties(unit),
        f"RuntimeMaxSec={SECONDS:g}",
        f"MemoryMax={MEMORY}",
        f"TasksMax={TASKS}",
        "TimeoutStopSec=5",
    ]
    namespaces = host_of(layout).user_namespaces
    secrets = _secrets(layout.secrets_file(name))
    sandbox = BuildSandbox(layout, name, namespaces, directory, bound_to=job, secrets=secrets)
    layout.home_of(name).mkdir(parents=True, exist_ok=True, mode=0o700)
    program = _program(words[0], directory, service)
    ran = run_in(sandbox, [program, *words[1:]], line, properties=properties)
    if not ran.good:
        raise ModuleError(f"{' '.join(words)} of {name} failed: {ran.why}", lines=ran.tail[-10:])


def _program(word: str, directory: Path, service: Service) -> str:
    if "/" in word:
        return str(directory / word)
    own = (directory / service.python_bin).parent if service.type == "python" else directory
    return str(own / word) if shutil.which(word, path=str(own)) else word


def _secrets(file: Path) -> tuple[str, ...]:
    try:
        return tuple(read_environment_file(file).values())
    except HelmError:
        return ()
