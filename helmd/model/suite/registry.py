"""Reading the registry: configuration sources are merged and validated; all errors are reported together."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from helmd.model.config.file_format import format_of
from helmd.model.config.service_schema import SERVICE_SETTINGS
from helmd.model.config.toml_tables import ConfigSource, Given, SettingsReader, parse_toml, shown_key
from helmd.model.errors import ConfigurationError, Fault
from helmd.model.suite.dependencies import find_cycle
from helmd.model.suite.names import KEYCLOAK_START_SECONDS, MODES, default_path, fault_in_name
from helmd.model.suite.service import (
    DatabaseConfig,
    Health,
    Install,
    Limits,
    Override,
    Registry,
    Restart,
    Service,
    ServiceType,
)
from helmd.model.suite.variables import refused_variables
from helmd.model.urls import normal_url

Entries = dict[str, dict[str, Given]]

CYCLE_SHOWN = 8
"""Maximum number of names in the message about a dependency cycle."""

_KINDS: Mapping[str, Sequence[ServiceType]] = {
    "pre_start": ("python", "command", "oneshot"),
    "reload_command": ("python", "command"),
    "stop_signal": ("python", "command", "oneshot"),
    "schedule": ("oneshot",),
    "run_timeout": ("oneshot",),
}
"""Settings that only services of some types have."""
_RUNS_AGAIN = "systemd does not restart it; it runs again at its next start"
_NOT_ONESHOT = {
    **dict.fromkeys(("port", "port_variable", "url"), "nothing connects to it"),
    **dict.fromkeys(("health", "on_unhealthy", "unhealthy_after"), "its exit status says whether it succeeded"),
    **dict.fromkeys(("restart.delay", "restart.burst", "restart.within"), _RUNS_AGAIN),
}
"""Settings and tables of settings that a oneshot can't have, with the reason."""
_MERGED_BY_KEY = ("environment", "flaskenv", *(f"{mode}.environment" for mode in MODES))


def read_registry(sources: Sequence[ConfigSource], taken_ports: Mapping[int, str]) -> Registry:
    """Return the suite described by SOURCES; later sources override single settings of earlier ones.

    A service is part of the suite if any source other than a catalogue names it. TAKEN_PORTS maps ports that Helm
    uses to their purpose. Raises ConfigurationError with all faults.
    """
    services, entries, faults = collect(sources)
    faults += check_together(services, entries, taken_ports)
    if faults:
        raise ConfigurationError(sorted(faults, key=lambda fault: (fault.file, fault.line)))
    return Registry(services)


def collect(sources: Sequence[ConfigSource]) -> tuple[dict[str, Service], Entries, list[Fault]]:
    """Return the services in SOURCES, their settings as given, and the faults of each by itself."""
    faults: list[Fault] = []
    entries: Entries = {}
    members: dict[str, Given] = {}
    reader = SettingsReader(SERVICE_SETTINGS)
    for source in sources:
        _read_source(source, reader, entries, members, faults)
    services = {name: _service(name, entries[name], members[name]) for name in members if name in entries}
    unread = {fault.where for fault in faults}
    for service in services.values():
        found: list[Fault] = []
        _check_service(service, entries.get(service.name, {}), found)
        faults += [fault for fault in found if fault.where not in unread]
    return services, entries, faults


def check_together(services: Mapping[str, Service], entries: Entries, taken_ports: Mapping[int, str]) -> list[Fault]:
    """Return what keeps SERVICES from being a suite: a port, a dependency, a second Keycloak.

    ENTRIES say where it is set.
    """
    faults: list[Fault] = []
    _check_ports(services, entries, taken_ports, faults)
    _check_databases(services, entries, faults)
    _check_keycloaks(services, entries, faults)
    _check_dependencies(services, entries, faults)
    return faults


def _read_source(
    source: ConfigSource, reader: SettingsReader, entries: Entries, members: dict[str, Given], faults: list[Fault]
) -> None:
    tables, lines = parse_toml(source, faults)
    for key in tables:
        if key != "services":
            faults.append(
                Fault(source.file, lines.get((key,), 0), shown_key(key), "is an unknown table; use [services.NAME]")
            )
    services = tables.get("services", {})
    if not isinstance(services, dict):
        faults.append(Fault(source.file, lines.get(("services",), 0), "services", "must be a table"))
        return
    for name, table in services.items():
        line = lines.get(("services", name), 0)
        where = f"services.{shown_key(name)}"
        if sentence := fault_in_name(name):
            faults.append(Fault(source.file, line, where, sentence))
            continue
        if not isinstance(table, dict):
            faults.append(Fault(source.file, line, where, "must be a table"))
            continue
        read = reader.read(table, ("services", name), source.file, lines, faults)
        entry = entries.setdefault(name, {})
        for key, given in read.items():
            if key in _MERGED_BY_KEY and key in entry:
                given = Given({**entry[key].value, **given.value}, given.file, given.line)
            entry[key] = given
        if not source.catalogue:
            members[name] = Given(None, source.file, line)


@cache
def _keys(names: tuple[str, ...], prefix: str) -> tuple[tuple[str, str], ...]:
    """Return NAMES of fields, each with the key of its setting."""
    return tuple((name, f"{prefix}.{name}") for name in names)


def _group(entry: Mapping[str, Given], kind: Any, prefix: str, defaults: Mapping[str, Any]) -> Any:
    """Return the named tuple KIND of the settings below PREFIX."""
    given = {name: entry[key].value for name, key in _keys(kind._fields, prefix) if key in entry}
    return kind(**{**defaults, **given})


def _service(name: str, entry: Mapping[str, Given], member: Given) -> Service:
    given = {key: item.value for key, item in entry.items() if "." not in key}
    kind = given.get("type", "python")
    port = given.get("port")
    health: dict[str, Any] = {"check": "http" if port or given.get("url") else "process"}
    restart: dict[str, Any] = {}
    plain: dict[str, Any] = {"description": name, "path": default_path(name), "database_name": name}
    plain["services_json"] = kind == "python"
    plain["shared_paths"] = (".flaskenv", "instance") if kind == "python" else ()
    if kind == "oneshot":
        health, restart = {"check": "process"}, {"policy": "no"}
    if kind == "keycloak":
        health = {"check": "realm", "start_timeout": KEYCLOAK_START_SECONDS}
        restart = {"stop_timeout": 30.0}
        plain["success_exit_status"] = (143,)
    if port:
        plain["url"] = normal_url(f"http://localhost:{port}")
    if port and "url" in entry and entry["url"].file != entry["port"].file:
        given["url"] = normal_url(entry["url"].value, port)
    if "health.path" in entry:
        health["start_path"] = entry["health.path"].value
    modes = {
        mode: Override(
            entry[f"{mode}.start_command"].value if f"{mode}.start_command" in entry else (),
            entry[f"{mode}.environment"].value if f"{mode}.environment" in entry else {},
        )
        for mode in MODES
    }
    service = Service(
        name=name,
        health=_group(entry, Health, "health", health),
        limits=_group(entry, Limits, "limits", {}),
        restart=_group(entry, Restart, "restart", restart),
        install=_group(entry, Install, "install", {}),
        database_config=_group(entry, DatabaseConfig, "database_config", {}),
        modes=modes,
        file=member.file,
        line=member.line,
        **{**plain, **given},
    )
    if "url" in given or not service.relative_path:
        return service
    return replace(service, url=service.url + service.relative_path)


def _fault(service: Service, entry: Mapping[str, Given], key: str, sentence: str) -> Fault:
    place = entry.get(key)
    file, line = (place.file, place.line) if place else (service.file, service.line)
    return Fault(file, line, f"services.{service.name}.{key}", sentence)


def _check_service(service: Service, entry: Mapping[str, Given], faults: list[Fault]) -> None:
    if service.type in ("command", "oneshot") and not service.start_command:
        faults.append(_fault(service, entry, "start_command", f"is needed for a service of type {service.type}"))
    if service.type == "python" and service.port is None:
        faults.append(_fault(service, entry, "port", "is needed for a service of type python"))
    if service.type == "keycloak" and service.port is None:
        faults.append(_fault(service, entry, "port", "is needed for a service of type keycloak"))
    if service.external and not service.url:
        faults.append(_fault(service, entry, "url", "is needed for a service of type external"))
    if service.external and service.database:
        faults.append(_fault(service, entry, "database", "can't be given to an external service"))
    if service.external and service.url and service.health.check == "process":
        faults.append(_fault(service, entry, "health.check", "can't be 'process' for an external service"))
    if service.health.check != "process" and service.port is None and not service.url:
        faults.append(_fault(service, entry, "health.check", f"'{service.health.check}' needs a port or url"))
    if service.type != "keycloak" and service.health.check == "realm" and not service.external:
        faults.append(_fault(service, entry, "health.check", "'realm' is for keycloak or an external one"))
    for key, kinds in _KINDS.items():
        if key in entry and service.type not in kinds:
            sentence = f"is for services of type {', '.join(kinds)}, not {service.type}"
            faults.append(_fault(service, entry, key, sentence))
    if service.oneshot:
        _check_oneshot(service, entry, faults)
    _check_database(service, entry, faults)
    for key, sentence in refused_variables(service):
        faults.append(_fault(service, entry, key, sentence))


def _check_oneshot(service: Service, entry: Mapping[str, Given], faults: list[Fault]) -> None:
    for key in entry:
        if reason := _NOT_ONESHOT.get(key) or _NOT_ONESHOT.get(key.partition(".")[0]):
            faults.append(_fault(service, entry, key, f"is not for services of type oneshot: {reason}"))
    if service.restart.policy != "no":
        faults.append(_fault(service, entry, "restart.policy", f"must be no for type oneshot: {_RUNS_AGAIN}"))


def _check_database(service: Service, entry: Mapping[str, Given], faults: list[Fault]) -> None:
    config = service.database_config
    if "database_config.file" not in entry:
        for key in ("format", "section", "key", "scheme"):
            if f"database_config.{key}" in entry:
                faults.append(_fault(service, entry, f"database_config.{key}", "needs database_config.file"))
                return
        return
    if not service.database:
        # A catalogue may say where a service reads it; whether it has a database is the account's choice.
        return
    if config.file.startswith(("/", "~")):
        faults.append(_fault(service, entry, "database_config.file", "must be relative to path"))
    if not config.key:
        faults.append(_fault(service, entry, "database_config.key", "is needed beside database_config.file"))
    if not config.section and (config.format or format_of(config.file)) == "ini":
        faults.append(_fault(service, entry, "database_config.section", "is needed for an INI file"))


def _check_ports(
    services: Mapping[str, Service], entries: Entries, taken: Mapping[int, str], faults: list[Fault]
) -> None:
    holders: dict[int, list[tuple[str, str]]] = {port: [(name, "")] for port, name in taken.items()}
    for service in services.values():
        if service.port is None or service.external:
            continue
        address = _numeric_host(service)
        others = holders.setdefault(service.port, [])
        holder = next((name for name, other in others if not (address and other and address != other)), None)
        if holder is not None:
            sentence = f"{service.port} is also the port of {holder}"
            faults.append(_fault(service, entries.get(service.name, {}), "port", sentence))
        others.append((service.name, address))


def _numeric_host(service: Service) -> str:
    """Return the one address at which SERVICE listens by its URL; empty for a name, and for what stands for all
    addresses.
    """
    host = urlsplit(service.url).hostname or ""
    try:
        address = ip_address("127.0.0.1" if host == "localhost" else host)
    except ValueError:
        return ""
    return "" if address.is_unspecified else str(address)


def _check_databases(services: Mapping[str, Service], entries: Entries, faults: list[Fault]) -> None:
    holders: dict[str, str] = {}
    for service in services.values():
        if service.database and not service.external:
            holder = holders.setdefault(service.database_name, service.name)
            if holder != service.name:
                sentence = f"'{service.database_name}' is also the database of {holder}"
                faults.append(_fault(service, entries.get(service.name, {}), "database_name", sentence))


def _check_keycloaks(services: Mapping[str, Service], entries: Entries, faults: list[Fault]) -> None:
    """Allow one Keycloak only: its database and secrets are named by the type, not by the service."""
    own = [service for service in services.values() if service.type == "keycloak"]
    for service in own[1:]:
        sentence = f"{own[0].name} is already of type keycloak; a second one must be external"
        faults.append(_fault(service, entries.get(service.name, {}), "type", sentence))


def _check_dependencies(services: Mapping[str, Service], entries: Entries, faults: list[Fault]) -> None:
    for service in services.values():
        for needed in service.depends_on:
            if needed not in services:
                sentence = f"'{needed}' is not part of the suite; add a table [services.{needed}]"
                faults.append(_fault(service, entries.get(service.name, {}), "depends_on", sentence))
            elif services[needed].schedule:
                sentence = f"'{needed}' runs by its schedule, so that no start can wait for it"
                faults.append(_fault(service, entries.get(service.name, {}), "depends_on", sentence))
    if cycle := find_cycle({service.name: service.depends_on for service in services.values()}):
        first = services[cycle[0]]
        faults.append(_fault(first, entries.get(first.name, {}), "depends_on", "is a cycle: " + shown_cycle(cycle)))


def shown_cycle(cycle: Sequence[str]) -> str:
    """Return the services of a dependency cycle, shortened in the middle."""
    path = cycle if len(cycle) <= CYCLE_SHOWN else (*cycle[: CYCLE_SHOWN - 2], "...", *cycle[-2:])
    return " -> ".join(path)
