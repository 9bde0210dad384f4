"""From a service to the text of its unit: one jinja2 template a kind, every value through its own escaping."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from helmd.health.target import probe_of, probe_words, url_host
from helmd.keycloak import launch
from helmd.model.config.settings import Settings
from helmd.model.layout import Layout
from helmd.model.suite.composition import RECOVERY
from helmd.model.suite.names import (
    BACKUP_TIMER,
    DATABASE_CONNECTIONS,
    HELMD_UNIT,
    HTTP_SOCKET,
    HTTP_SOCKET_UNIT,
    NO_SCHEDULE,
    RECOVER_UNIT,
    SOCKET_BACKLOG,
    SOCKET_UNIT,
    STORE_CLUSTER_UNIT,
    SUITE_CLUSTER,
    TARGET,
    UNIX_SOCKET,
    Mode,
    identifier_of,
    timer_of,
    unit_of,
)
from helmd.model.suite.service import START_MARGIN, Health, Registry, Restart, Service
from helmd.model.units.hardening import ISOLATED, WRITES_CODE, isolates, unit_lines
from helmd.systemd import quoting
from helmd.systemd.host import Host
from helmd.systemd.prestart import DISCOVERY_VARIABLE
from helmd.systemd.programs import Needs, account_roots, needs_of, own_places, program_of, search_path
from helmd.systemd.scripts import stays_in_shell

UNSET = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP")
"""Variables of the user manager that services get only if their configuration sets them."""
UNSET_ISOLATED = (
    "XDG_RUNTIME_DIR",
    "DBUS_SESSION_BUS_ADDRESS",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "XDG_STATE_HOME",
    "XDG_CACHE_HOME",
)
"""The same for services that do not see what these name: programs then use HOME, or do without."""
_CLEAN_SIGNALS = ("SIGTERM", "SIGINT", "SIGHUP")
"""Signals by which a program ends without having failed, for systemd (Restart= in systemd.service(5))."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What rendering needs to know besides the service. ``environment`` is what set-up adds for each service."""

    layout: Layout
    settings: Settings
    host: Host
    account: str
    environment: Mapping[str, Mapping[str, str]]
    suite_postgres: Path | None = None
    store_postgres: Path | None = None
    """The directories of the PostgreSQL programs that each cluster needs; None where there is no such cluster."""
    databases: Mapping[str, str] = field(default_factory=dict)
    """The databases in the suite's cluster by their roles."""


def _seconds(value: float) -> str:
    return f"{value:g}" if value >= 1 or not value else f"{value * 1000:g}ms"


def template_environment(directory: Path) -> Environment:
    """Templates of DIRECTORY, with the escaping filters. Unit files are no HTML, hence no autoescape."""
    environment = Environment(
        loader=FileSystemLoader(directory), undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False
    )
    environment.filters |= {
        "line": quoting.line,
        "path": quoting.escaped_path,
        "command": quoting.command_line,
        "reload": quoting.reload_command,
        "seconds": _seconds,
    }
    environment.globals["assignment"] = quoting.assignment
    return environment


def service_command(service: Service, mode: Mode, layout: Layout) -> tuple[str, ...]:
    """Return the words that start the service in MODE, the program as an absolute path where it has a slash."""
    directory = layout.resolve(service.path)
    override = service.modes[mode].start_command if mode in service.modes else ()
    words = override or service.start_command
    if not words and service.type == "keycloak":
        return tuple(launch.command(directory, mode, service.environment_in(mode)))
    if not words and service.type == "python":
        script = service.run_script
        words = (service.python_bin, str(layout.resolve_in(directory, script)) if script.startswith("~/") else script)
    if not words:
        return ()
    program = str(layout.resolve_in(directory, words[0])) if "/" in words[0] else words[0]
    return (program, *words[1:])


def extra_command(
    service: Service, mode: Mode, words: tuple[str, ...], layout: Layout, needs: Needs
) -> tuple[str, ...]:
    """Return WORDS with the program as a path, unless it is one of the system."""
    found = program_of(service, mode, words[0], layout, needs.search) if words else None
    return (str(found), *words[1:]) if found else words


def with_streams(service: Service, words: tuple[str, ...]) -> tuple[str, ...]:
    """Return WORDS run so that stdout and stderr reach the journal at different priorities (systemd-cat(1)),
    same pid.
    """
    if service.streams == "merged":
        return words
    arguments = ("-t", identifier_of(service.name), "-p", "info", "--stderr-priority=notice", "--")
    return ("/usr/bin/systemd-cat", *arguments, *words)


def mode_environment(service: Service, mode: Mode) -> dict[str, str]:
    """Return what the service finds in its environment in MODE, from the registry alone."""
    base: dict[str, str] = {"HIVEMATRIX_MODE": mode}
    if service.type in ("python", "command", "oneshot"):
        # Otherwise what a program of Python prints is in the log when its buffer is full, and lost if it is killed.
        base["PYTHONUNBUFFERED"] = "1"
    if service.type == "python":
        base["FLASK_ENV"] = mode
    if service.port is not None and service.type in ("python", "command"):
        base[service.port_variable] = str(service.port)
    return {**base, **service.environment_in(mode)}


def _context(service: Service, registry: Registry, mode: Mode, setup: Setup) -> dict[str, Any]:
    layout = setup.layout
    directory = layout.resolve(service.path)
    common = _common(service, mode, setup)
    needs = needs_of(service, mode, registry, layout)
    command = service_command(service, mode, layout)
    places = [*own_places(service, layout)]
    environment = {**search_path(needs), DISCOVERY_VARIABLE: str(layout.discovery_file)}
    if service.hardening in ISOLATED and service.name != SUITE_CLUSTER:
        home = layout.home_of(service.name)
        places.append(home)
        environment["HOME"] = str(home)
    environment |= common["environment"]
    checks = []
    if service.port is not None:
        checks += [f"port={service.port}", f"host={url_host(service)}"]
    if service.services_json:
        checks += [f"discovery={layout.discovery_file}", f"directory={directory}"]
    needed = [registry[name] for name in service.depends_on if not registry[name].external]
    recovery, block = [], []
    if (module := layout.module_of(directory)) is not None:
        recovery, block = [RECOVER_UNIT], [str(module.start_block)]
        checks.append(f"blocked={module.start_block}")
    return {
        **common,
        "environment": environment,
        "unset": [
            name for name in (*UNSET, *(UNSET_ISOLATED if common["isolated"] else ())) if name not in environment
        ],
        "unit": unit_of(service.name),
        "part_of": TARGET,
        "wanted_by": "" if service.schedule else TARGET,
        "schedule": service.schedule,
        "run_timeout": service.run_timeout,
        "identifier": identifier_of(service.name),
        "description": f"HiveMatrix {service.name}: {service.description}",
        "after": [*recovery, *(unit_of(each.name) for each in needed if not each.oneshot)],
        "required": [unit_of(each.name) for each in needed if each.oneshot],
        "directory": str(directory),
        "command": with_streams(service, command),
        # With mixed, only the main process is asked to end: a shell does so at once, and what it runs is killed.
        "kill_mode": "control-group" if command and stays_in_shell(command, directory) else "mixed",
        "prestart": [str(layout.libexec / "prestart"), *checks] if checks else [],
        "pre_start": extra_command(service, mode, service.pre_start, layout, needs),
        "reload_command": extra_command(service, mode, service.reload_command, layout, needs),
        "probe": _probe(service, layout),
        "writable": [str(place) for place in places],
        "readable": [
            str(layout.discovery_file),
            *block,
            *_database_socket(service, setup),
            *_share_inside_home(layout),
            *(str(layout.resolve(place)) for place in service.readable_paths),
            *needs.places,
        ],
        "shared_memory": service.type != "postgres",
    }


def _probe(service: Service, layout: Layout) -> list[str]:
    """Return the command that ends once SERVICE counts as started."""
    if probe_of(service, starting=True).check == "process":
        return [str(layout.libexec / "wait-process")]
    return [str(layout.libexec / "probe"), *probe_words(service)]


def _common(service: Service, mode: Mode, setup: Setup) -> dict[str, Any]:
    namespaces = setup.host.user_namespaces
    without = WRITES_CODE if service.type == "keycloak" else ()
    return {
        "name": service.name,
        "mode": mode,
        "port": service.port,
        "environment": {**setup.environment.get(service.name, {}), **mode_environment(service, mode)},
        "secrets_file": str(setup.layout.secrets_file(service.name)),
        "start_timeout": service.health.start_timeout + START_MARGIN,
        "start_interval": service.start_interval,
        "restart": service.restart,
        "stop_signal": service.stop_signal,
        "limits": service.limits,
        "success_exit_status": _clean_exits(service),
        "hardening": unit_lines(service.hardening, namespaces, without),
        "isolated": isolates(service.hardening, namespaces),
        "hidden": [str(place) for place in account_roots(setup.layout)],
        "shared_memory": False,
        "layout": setup.layout,
        "settings": setup.settings,
    }


def _clean_exits(service: Service) -> tuple[int | str, ...]:
    """Return what SuccessExitStatus= has to list: a program without a handler of its stop signal ends by that
    signal.
    """
    alone = () if service.stop_signal in _CLEAN_SIGNALS else (service.stop_signal,)
    return (*service.success_exit_status, *alone)


def _cluster_context(layout: Layout, directory: Path, socket: Path, binaries: Path) -> dict[str, Any]:
    return {
        "unlock": [str(layout.libexec / "unlock-cluster"), str(directory)],
        "directory": str(directory),
        "command": [str(binaries / "postgres"), "-D", str(directory)],
        "writable": [str(directory), str(socket)],
        # Where the server says that it is ready (sd_notify(3)): in the directory that hardening hides.
        "readable": [str(layout.runtime.parent / "systemd/notify")],
        "provision": [],
        "runtime_directory": f"hivematrix/{socket.name}",
    }


def _suite_cluster_context(registry: Registry, setup: Setup) -> dict[str, Any]:
    layout = setup.layout
    if setup.suite_postgres is None:
        raise ValueError("the suite's PostgreSQL has no programs")
    context = _cluster_context(layout, layout.suite_cluster, layout.suite_socket, setup.suite_postgres)
    provision = [
        str(layout.libexec / "provision-cluster"),
        f"directory={layout.suite_cluster}",
        f"socket={layout.suite_socket}",
        f"port={setup.settings.suite_database_port}",
        f"account={setup.account}",
        f"passfile={layout.suite_passfile}",
    ]
    for role, database in setup.databases.items():
        limit = registry[role].database_connections
        if limit != DATABASE_CONNECTIONS:
            provision.append(f"{role}:{database}:{limit}")
        else:
            provision.append(role if role == database else f"{role}:{database}")
    context["readable"].append(str(layout.suite_passfile))
    context["readable"] += _share_inside_home(layout)
    return {**context, "provision": provision}


def _database_socket(service: Service, setup: Setup) -> list[str]:
    """Return the directory with the socket of the suite's PostgreSQL, for a service that has a database in it."""
    return [str(setup.layout.suite_socket)] if service.database and setup.settings.suite_embedded else []


def _share_inside_home(layout: Layout) -> list[str]:
    """Return Helm's own programs, when they run from a checkout below a directory that hardening hides."""
    hidden = (layout.home, Path("/home"), Path("/root"))
    return [str(layout.share)] if any(layout.share.is_relative_to(place) for place in hidden) else []


def _filled(template: str, context: Mapping[str, Any], templates: Environment) -> str:
    return templates.get_template(template).render(u=context).rstrip() + "\n"


def render(service: Service, registry: Registry, mode: Mode, setup: Setup, templates: Environment) -> str:
    """Return the unit of SERVICE in MODE."""
    context = _context(service, registry, mode, setup)
    if service.name == SUITE_CLUSTER:
        context |= _suite_cluster_context(registry, setup)
    if service.type == "keycloak":
        context["prepare"] = [str(setup.layout.libexec / "prepare-keycloak"), context["directory"], str(launch.JAVA)]
        context["readable"].append(context["directory"])
        if setup.settings.suite_embedded:
            context["readable"].append(str(setup.layout.suite_certificate))
        context["writable"][:1] = [f"{context['directory']}/{place}" for place in launch.WRITABLE]
    return _filled(f"{service.type}.service.j2", context, templates)


def render_timer(service: Service, templates: Environment) -> str:
    """Return the timer that starts SERVICE by its schedule."""
    context = {
        "unit": timer_of(service.name),
        "name": service.name,
        "description": f"HiveMatrix {service.name}: schedule",
        "part_of": TARGET,
        "wanted_by": TARGET,
        "schedule": service.schedule,
    }
    return _filled("hivematrix.timer.j2", context, templates)


def render_backup_timer(layout: Layout, settings: Settings, templates: Environment) -> Mapping[str, str]:
    """Return the timer that has a backup made, by name, once there is a key for backups, and unless the schedule is
    never.
    """
    if settings.backup_schedule == NO_SCHEDULE or not layout.backup_key.exists():
        return {}
    context = {
        "unit": BACKUP_TIMER,
        "name": "helm",
        "description": "HiveMatrix Helm: schedule of backups",
        "part_of": "",
        "wanted_by": "timers.target",
        "schedule": settings.backup_schedule,
    }
    return {BACKUP_TIMER: _filled("hivematrix.timer.j2", context, templates)}


def render_store_cluster(setup: Setup, templates: Environment) -> str:
    """Return the unit of the PostgreSQL that holds Helm's store; it belongs to no suite, so that `helmctl down` leaves
    it.
    """
    if setup.store_postgres is None:
        raise ValueError("the store's PostgreSQL has no programs")
    service = Service(
        name="helm",
        type="postgres",
        hardening="strict",
        # On a full disk it can't even start; it must come back by itself when there is space again.
        restart=Restart(delay=2.0, within=0.0, stop_timeout=60.0),
        health=Health(check="process", start_timeout=RECOVERY),
    )
    context = {
        **_common(service, setup.settings.mode, setup),
        "unit": STORE_CLUSTER_UNIT,
        "part_of": "",
        "wanted_by": "default.target",
        "identifier": "helmd-postgres",
        "description": "HiveMatrix Helm: PostgreSQL of the log store",
        "after": [],
        "required": [],
        **_cluster_context(setup.layout, setup.layout.store_cluster, setup.layout.store_socket, setup.store_postgres),
    }
    return _filled("postgres.service.j2", context, templates)


def tcp_stream(listen: str, port: int) -> str | None:
    """``http.listen`` and ``http.port`` as a ListenStream= (systemd.socket(5)); None for a host name, which a socket
    unit can't have, so that helmd listens there by itself.
    """
    try:
        address = ip_address(listen)
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        return None if address.scope_id else f"[{address}]:{port}"
    return f"{address}:{port}"


def render_sockets(layout: Layout, settings: Settings, templates: Environment) -> Mapping[str, str]:
    """Return the units of the sockets that helmd is reached by, by name (systemd.socket(5))."""
    about = "what listens for helmd"
    wanted = [(SOCKET_UNIT, UNIX_SOCKET, f"{about}, for the account itself", str(layout.socket))]
    if stream := tcp_stream(settings.listen, settings.port):
        wanted.append((HTTP_SOCKET_UNIT, HTTP_SOCKET, f"{about}, over TCP", stream))
    units = {}
    for unit, name, description, stream in wanted:
        context = {
            "unit": unit,
            "name": name,
            "description": f"HiveMatrix Helm: {description}",
            "listen": stream,
            "service": HELMD_UNIT,
            "share": str(layout.share),
            "backlog": SOCKET_BACKLOG,
        }
        units[unit] = _filled("helmd.socket.j2", context, templates)
    return units
