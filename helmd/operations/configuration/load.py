"""Reads an account's configuration from disk: settings, registry and formats, each completely or not at all."""

import os
import shlex
import stat
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from helmd.model.config.settings import Settings, read_settings_files
from helmd.model.config.toml_tables import MAX_FILE, ConfigSource
from helmd.model.errors import ConfigurationError, Fault
from helmd.model.layout import Layout
from helmd.model.suite.composition import whole_suite
from helmd.model.suite.names import MODES, SUITE_CLUSTER, Mode, default_path, fault_in_name
from helmd.model.suite.registry import read_registry
from helmd.model.suite.service import Registry, Service

if TYPE_CHECKING:
    # Only for annotations: helmctl needs no formats to start or stop a service.
    from helmd.model.logs.parsing.parsed import Formats

FORMATS_FILE = "formats.toml"
DEFAULT_PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
"""Where systemd looks for programs without a slash (systemd.service(5), "Command lines")."""


@dataclass(frozen=True, slots=True)
class Sources:
    """The files of an account's configuration, each list in the order in which later ones override."""

    settings: tuple[ConfigSource, ...]
    registry: tuple[ConfigSource, ...]
    formats: tuple[ConfigSource, ...]


@dataclass(frozen=True, slots=True)
class Configuration:
    """The content of an account's files. With ``faults``, services have their last good definitions."""

    settings: Settings
    registry: Registry
    formats: "Formats"
    faults: tuple[Fault, ...] = ()


def _open_nonblocking(path: str, flags: int) -> int:
    """Open PATH without blocking, as open(2) of a named pipe without a writer otherwise does."""
    return os.open(path, flags | os.O_NONBLOCK)


def _source(path: Path, faults: list[Fault], catalogue: bool = False) -> ConfigSource | None:
    """Read a configuration file. Return None if it does not exist, or can't be read; the latter is added to FAULTS."""
    try:
        with open(path, "rb", opener=_open_nonblocking) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                faults.append(Fault(str(path), 0, "", "is not a regular file"))
                return None
            content = file.read(MAX_FILE + 1)
    except FileNotFoundError:
        if path.is_symlink():
            faults.append(Fault(str(path), 0, "", "is a symbolic link to a file that does not exist"))
        return None
    except OSError as problem:
        faults.append(Fault(str(path), 0, "", f"could not be read: {problem.strerror}"))
        return None
    try:
        return ConfigSource(str(path), content.decode(), catalogue)
    except UnicodeDecodeError as problem:
        line = content[: problem.start].count(b"\n") + 1
        faults.append(Fault(str(path), line, "", "is not UTF-8 text"))
        return None


def _modules(directory: Path, faults: list[Fault]) -> list[Path]:
    """Return the paths of installed modules' registry files. A DIRECTORY that can't be read is added to FAULTS."""
    try:
        names = sorted(os.listdir(directory))
    except FileNotFoundError:
        return []
    except OSError as problem:
        faults.append(Fault(str(directory), 0, "", f"could not be read: {problem.strerror}"))
        return []
    # Editors' temporary files begin with a dot.
    return [directory / name for name in names if name.endswith(".toml") and not name.startswith(".")]


def _declared(layout: Layout) -> list[Path]:
    """Return the paths of files with the settings that active versions of modules declare."""
    try:
        names = sorted(os.listdir(layout.modules))
    except OSError:
        return []
    return [layout.module(name).declared for name in names if not fault_in_name(name)]


def registry_sources(layout: Layout) -> tuple[list[ConfigSource], list[Fault]]:
    """Return the registry's files in the order in which later ones override, and faults of those that can't be read.

    The order is: package, declarations of modules, machine, account, installed modules.
    """
    faults: list[Fault] = []
    found = [
        _source(layout.share / "services.toml", faults, catalogue=True),
        *(_source(path, faults, catalogue=True) for path in _declared(layout)),
        _source(layout.machine / "services.toml", faults, catalogue=True),
        _source(layout.registry_file, faults),
        *(_source(path, faults) for path in _modules(layout.registry_directory, faults)),
    ]
    return [source for source in found if source], faults


def _settings_sources(layout: Layout) -> tuple[list[ConfigSource], list[Fault]]:
    faults: list[Fault] = []
    found = [_source(layout.machine / "helm.toml", faults), _source(layout.settings_file, faults)]
    return [source for source in found if source], faults


def load_settings(layout: Layout) -> Settings:
    """Read Helm's settings. Raises ConfigurationError with every fault."""
    found, faults = _settings_sources(layout)
    if faults:
        raise ConfigurationError(faults)
    return read_settings_files(found)


def load_suite(layout: Layout, settings: Settings, instead: ConfigSource | None = None) -> Registry:
    """Read the suite as configured, with its embedded PostgreSQL. Raises ConfigurationError with every fault.

    INSTEAD replaces the account's own file. Whether paths exist is checked by `path_faults`.
    """
    sources, faults = registry_sources(layout)
    if instead:
        modules = [source for source in sources if source.file.startswith(f"{layout.registry_directory}/")]
        defaults = [source for source in sources if source.catalogue]
        sources = [*defaults, instead, *modules]
    try:
        registry = read_registry(sources, settings.taken_ports())
    except ConfigurationError as error:
        raise ConfigurationError([*faults, *error.faults]) from None
    if faults:
        raise ConfigurationError(faults)
    return whole_suite(registry, settings)


def _formats_sources(layout: Layout) -> tuple[list[ConfigSource], list[Fault]]:
    faults: list[Fault] = []
    own = layout.share / FORMATS_FILE
    found = [_source(directory / FORMATS_FILE, faults) for directory in (layout.share, layout.machine, layout.config)]
    if found[0] is None and not faults:
        faults.append(Fault(str(own), 0, "", "does not exist; reinstall the package"))
    return [source for source in found if source], faults


def load_formats(layout: Layout) -> "Formats":
    """Read the formats of log lines: the package's, overridden by the machine's and the account's.

    Raises ConfigurationError with every fault.
    """
    from helmd.model.logs.parsing.format_schema import read_formats

    found, faults = _formats_sources(layout)
    if faults:
        raise ConfigurationError(faults)
    return read_formats(found)


def read_sources(layout: Layout) -> Sources:
    """Read the text of every file. Raises ConfigurationError for those that can't be read."""
    settings, registry, formats = _settings_sources(layout), registry_sources(layout), _formats_sources(layout)
    if faults := [*settings[1], *registry[1], *formats[1]]:
        raise ConfigurationError(faults)
    return Sources(tuple(settings[0]), tuple(registry[0]), tuple(formats[0]))


def configuration_of(sources: Sources) -> Configuration:
    """Parse SOURCES to a configuration. Raises ConfigurationError with the faults of the first kind that has some."""
    from helmd.model.logs.parsing.format_schema import read_formats

    settings = read_settings_files(sources.settings)
    registry = whole_suite(read_registry(sources.registry, settings.taken_ports()), settings)
    return Configuration(settings, registry, read_formats(sources.formats))


def path_faults(registry: Registry, layout: Layout, names: Collection[str] | None = None) -> list[Fault]:
    """Return the faults of services that can only be found on this machine; of all services, or those in NAMES.

    These are files and directories that are missing, or hidden by the sandbox, and schedules that systemd does not
    accept.
    """
    faults: list[Fault] = []
    for name, service in registry.services.items():
        if names is None or name in names:
            faults += _schedule_faults(service)
            faults += _missing_files(service, registry, layout) or _hidden_files(service, registry, layout)
    return faults


def _schedule_faults(service: Service) -> Sequence[Fault]:
    if not service.schedule:
        return ()
    from helmd.systemd.calendar import calendar_fault

    if sentence := calendar_fault(service.schedule):
        return [Fault(service.file, service.line, f"services.{service.name}.schedule", sentence)]
    return ()


def _hidden_files(service: Service, registry: Registry, layout: Layout) -> Sequence[Fault]:
    """Return faults for paths that the service needs or sets, but that may not be bind-mounted into its sandbox."""
    from helmd.systemd.programs import needs_of, refused_paths

    refused = [("readable_paths", sentence) for sentence in refused_paths(service, layout)]
    for mode in MODES:
        refused += needs_of(service, mode, registry, layout).refused
    where = f"services.{service.name}"
    return [Fault(service.file, service.line, f"{where}.{key}", sentence) for key, sentence in dict.fromkeys(refused)]


def _missing_files(service: Service, registry: Registry, layout: Layout) -> Sequence[Fault]:
    if service.external or service.name == SUITE_CLUSTER:
        return ()
    directory = layout.resolve(service.path)

    def fault(key: str, sentence: str) -> Fault:
        return Fault(service.file, service.line, f"services.{service.name}.{key}", sentence)

    if not directory.is_dir():
        fix = "; helmctl setup downloads Keycloak" if service.type == "keycloak" else ""
        if source := service.install.source:
            fix = f"; get it with: git clone {source} {shlex.quote(str(directory))}"
            if service.path == default_path(service.name):
                fix = f"; install it from {source}: helmctl modules install {service.name}"
        return [fault("path", f"directory {directory} does not exist{fix}")]
    found = []
    if service.type == "python" and not service.start_command:
        interpreter = layout.resolve_in(directory, service.python_bin)
        if not os.access(interpreter, os.X_OK):
            sentence = f"interpreter {interpreter} does not exist or is not executable"
            found.append(fault("python_bin", sentence + _environment_advice(directory, interpreter)))
        script = layout.resolve_in(directory, service.run_script)
        if not script.is_file():
            found.append(fault("run_script", f"file {script} does not exist"))
    commands = [("start_command", MODES[0], service.start_command)]
    commands += [(f"{mode}.start_command", mode, override.start_command) for mode, override in service.modes.items()]
    for key, mode, words in commands:
        searched = service.streams == "split"
        if words and (sentence := _program_fault(words[0], service, mode, layout, searched=searched)):
            found.append(fault(key, sentence))
    for key, words in (("pre_start", service.pre_start), ("reload_command", service.reload_command)):
        if not words:
            continue
        from helmd.systemd.programs import needs_of

        search = needs_of(service, MODES[0], registry, layout).search
        if sentence := _program_fault(words[0], service, MODES[0], layout, search):
            found.append(fault(key, sentence))
    return found


def _environment_advice(directory: Path, interpreter: Path) -> str:
    """Return how to create the virtual environment of INTERPRETER; empty if it is not to be in one, or that exists."""
    environment = interpreter.parent.parent
    requirements = directory / "requirements.txt"
    if interpreter.parent.name != "bin" or environment.parent != directory or environment.exists():
        return ""
    place, file = shlex.quote(str(environment)), shlex.quote(str(requirements))
    install = f" && {place}/bin/pip install -r {file}" if requirements.is_file() else ""
    return f"; make it with: python3 -m venv {place}{install}"


def _program_fault(
    program: str, service: Service, mode: Mode, layout: Layout, search: Sequence[str] = (), *, searched: bool = False
) -> str:
    """Return why PROGRAM of SERVICE can't be executed, as a sentence; empty if it can.

    SEARCH are directories before those in PATH. SEARCHED: systemd-cat executes it (`script_fault`).
    """
    directory = layout.resolve(service.path)
    if "/" in program:
        path = layout.resolve_in(directory, program)
        if not path.is_file():
            return f"program {path} does not exist"
        if not os.access(path, os.X_OK):
            return f"program {path} is not executable; if it is to run: chmod +x {shlex.quote(str(path))}"
        from helmd.systemd.scripts import script_fault

        return script_fault(path, searched=searched)
    given = service.environment_in(mode).get("PATH")
    places = list(map(Path, given.split(":") if given else (*search, *DEFAULT_PATH)))
    if service.type == "python":
        places.insert(0, layout.resolve_in(directory, service.python_bin).parent)
    if any(_executable(place / program) for place in places):
        return ""
    sentence = f"program '{program}' is in none of the directories in PATH ({':'.join(map(str, places))})"
    if (directory / program).exists():
        return f"{sentence}; to run {directory / program}, write './{program}'"
    if "=" in program:
        return f"{sentence}; no shell runs it: set variables such as {program.partition('=')[0]} by environment"
    if program in _SHELL_COMMANDS:
        return f'{sentence}, and no shell runs it: write ["sh", "-c", "..."] with exec before the program, or a script'
    return sentence


_SHELL_COMMANDS = frozenset({"cd", "exec", "export", "source", ".", "set", "ulimit", "umask", "eval", "trap", "alias"})
"""Builtins of the shell, with which command lines copied from elsewhere often begin."""


def _executable(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)
