"""Writes files in the directories of services: ``services.json``, ``.flaskenv``, and database URIs in their own files.

A directory that this account can't write is reported, and everything else is applied.
"""

import errno
import json
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from helmd.files.beneath import opened_directory, read_in, write_below
from helmd.files.durable import write_atomically
from helmd.files.environment_file import ensure_secrets, new_secret
from helmd.model.config.config_text import value_in, with_value
from helmd.model.config.file_format import format_of
from helmd.model.errors import HelmError
from helmd.model.identity.differences import Difference
from helmd.model.identity.realm import CORE_CLIENT, GATEWAY
from helmd.model.layout import Layout
from helmd.model.suite.names import CLIENT_SECRET
from helmd.model.suite.service import Registry, Service

SERVICES_JSON = "services.json"
FLASKENV = ".flaskenv"
SIGNING_KEY = ("keys/jwt_private.pem", "keys/jwt_public.pem")
"""The key with which Core signs tokens, and that with which others verify them, in Core's directory."""
GATEWAY_CERTIFICATE = ("certs/nexus.crt", "certs/nexus.key")
CORE = "core"
KEYS = {CORE: SIGNING_KEY, GATEWAY: GATEWAY_CERTIFICATE}
CLIENT_ID_VARIABLE = "KEYCLOAK_CLIENT_ID"
_PRIVATE = 0o600
_SETTING = re.compile(r"\{([a-z][a-z0-9_-]*)\.(url|realm)\}")


def file_directory(service: Service, layout: Layout, name: str) -> Path:
    """Return the directory of the file NAME of SERVICE: its own, or for the state of a module the one beside it.

    In versions of modules, state is a symbolic link, and Helm follows none in a directory that a service can write.
    """
    return layout.state_directory(layout.resolve(service.path), name, service.shared_paths)


def place_services_json(registry: Registry, layout: Layout, document: str) -> Iterator[str]:
    """Write DOCUMENT to the directory of each service with ``services_json``; yield problems as sentences.

    So running services learn of new ones. Each start of a unit writes it as well (`helmd.systemd.prestart`).
    """
    for name, service in registry.services.items():
        directory = layout.resolve(service.path)
        if service.services_json and not service.external and directory.is_dir():
            try:
                write_below(directory, SERVICES_JSON, document.encode(), 0o644)
            except OSError as problem:
                yield f"{SERVICES_JSON} of {name} was not written: {describe_file_error(problem)}"


def place_flaskenv(
    registry: Registry, layout: Layout, runs: Callable[[str], bool] = lambda name: False
) -> Iterator[str]:
    """Add missing variables of services to their ``.flaskenv``; yield problems, and restarts that are needed.

    RUNS says whether a service runs, and so has read the older file. A variable that Helm has written, and nobody has
    changed since, is updated when the settings change that it was made of.
    """
    placed = _placed(layout)
    before = {name: dict(variables) for name, variables in placed.items()}
    for name, service in registry.services.items():
        directory = file_directory(service, layout, FLASKENV)
        if service.external or not service.flaskenv or not directory.is_dir():
            continue
        try:
            text = read_text(directory, FLASKENV)
            given = {key: value for key, value in service.flaskenv.items() if value != CLIENT_SECRET}
            wanted = {key: expand_settings(value, registry) for key, value in given.items()}
            ours = placed.setdefault(name, {})
            present = {key: value_in(text, "env", "", key) for key in wanted}
            added = {
                key: value
                for key, value in wanted.items()
                if value and value != present[key] and present[key] in (None, ours.get(key))
            }
            for key, value in added.items():
                text = with_value(text, "env", "", key, value)
            if added:
                write_below(directory, FLASKENV, text.encode("utf-8", "surrogateescape"), 0o600)
                ours |= added
            running = bool(added) and runs(name)
            if changed := [key for key in added if running or present[key] is not None]:
                yield f"{', '.join(changed)} in {FLASKENV} of {name} changed; to take effect: helmctl restart {name}"
        except (OSError, ValueError) as problem:
            why = describe_file_error(problem) if isinstance(problem, OSError) else str(problem)
            yield f"{FLASKENV} of {name} was not written: {why}"
    if placed != before and any(placed.values()):
        try:
            write_atomically(layout.placed_variables, json.dumps(placed, indent=1), 0o600)
        except OSError as problem:
            yield f"{layout.placed_variables} was not written: {problem.strerror}"


def variable_in_flaskenv(service: Service, layout: Layout, variable: str) -> str:
    """Return the value of VARIABLE in a service's ``.flaskenv``; empty if it is not set there, or can't be read.

    In Flask, variables of the environment override this file.
    """
    try:
        return value_in(read_text(file_directory(service, layout, FLASKENV), FLASKENV), "env", "", variable) or ""
    except (OSError, ValueError):
        return ""


def _placed(layout: Layout) -> dict[str, dict[str, str]]:
    """Return the variables that Helm has written to ``.flaskenv``, by service; all others are the admin's."""
    try:
        found = json.loads(layout.placed_variables.read_text())
    except (OSError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {name: variables for name, variables in found.items() if isinstance(variables, dict)}


def services_without_keys(registry: Registry, layout: Layout) -> Iterator[str]:
    """Yield the names of services that lack one of the keys they need."""
    for name, files in KEYS.items():
        if name in registry and not registry[name].external:
            directory = file_directory(registry[name], layout, files[0])
            if directory.is_dir() and not all((directory / file).exists() for file in files):
                yield name


def place_client_secret(registry: Registry, layout: Layout, secret: str, write: bool) -> Iterator[Difference]:
    """Write the SECRET of Keycloak's client `CORE_CLIENT` to ``.flaskenv`` of services that need it, mode 0600.

    Yield the differences; without WRITE, nothing is changed. A service that names another client in its ``.flaskenv``
    is skipped. Raises OSError and ValueError.
    """
    for name, service in registry.services.items():
        directory = file_directory(service, layout, FLASKENV)
        variables = [key for key, value in service.flaskenv.items() if value == CLIENT_SECRET]
        if service.external or not variables or not directory.is_dir():
            continue
        text = before = read_text(directory, FLASKENV)
        if value_in(text, "env", "", CLIENT_ID_VARIABLE) not in (None, CORE_CLIENT):
            continue
        subject = f"{FLASKENV} of {name}"
        for key in variables:
            present = value_in(text, "env", "", key)
            if present != secret:
                text = with_value(text, "env", "", key, secret)
                found = None if present is None else "another value"
                yield Difference(subject, key, found, f"the secret of client {CORE_CLIENT}")
        mode = stat.S_IMODE((directory / FLASKENV).lstat().st_mode) if before else _PRIVATE
        if mode != _PRIVATE:
            yield Difference(subject, "mode", f"{mode:04o}", f"{_PRIVATE:04o}")
        if write and (text != before or mode != _PRIVATE):
            write_below(directory, FLASKENV, text.encode("utf-8", "surrogateescape"), _PRIVATE)


def ensure_service_secrets(registry: Registry, layout: Layout) -> Iterator[str]:
    """Generate the random values that services need and that neither their secrets nor ``.flaskenv`` have.

    Yields problems as sentences.
    """
    for name, service in registry.services.items():
        try:
            text = read_text(file_directory(service, layout, FLASKENV), FLASKENV) if service.secrets else ""
            missing = [key for key in service.secrets if value_in(text, "env", "", key) is None]
            if missing:
                ensure_secrets(layout.secrets_file(name), dict.fromkeys(missing, new_secret))
        except OSError as problem:
            yield f"{name} was given no {', '.join(service.secrets)}: {describe_file_error(problem)}"
        except HelmError as error:
            yield f"{name} was given no {', '.join(service.secrets)}: {error.sentence}"


def expand_settings(value: str, registry: Registry) -> str:
    """Return VALUE with the settings that it refers to, such as {core.url}; empty if a service is not in the suite."""
    names = {found[1] for found in _SETTING.finditer(value)}
    if any(name not in registry for name in names):
        return ""
    return _SETTING.sub(lambda found: str(getattr(registry[found[1]], found[2])), value)


def describe_file_error(problem: OSError) -> str:
    """Return why a file in a checkout can't be used, and for a symbolic link what to do."""
    hint = ", which is not followed; set path to the real directory" if problem.errno == errno.ELOOP else ""
    return f"{problem.filename}: {problem.strerror}{hint}"


def place_database_uri(service: Service, layout: Layout, uri: str, replaced: Callable[[str], bool]) -> str:
    """Set the URI in the service's configuration file, mode 0600; return a problem as a sentence, or an empty string.

    A present value is kept, unless REPLACED returns true for it.
    """
    config = service.database_config
    directory = file_directory(service, layout, config.file)
    if not config.file or not directory.is_dir():
        return ""
    file = directory / config.file
    kind = config.format or format_of(config.file)
    try:
        text = read_text(directory, config.file)
        present = value_in(text, kind, config.section, config.key)
        if present and not replaced(present):
            return (
                f"{file} names another database for {service.name}, which is kept; to use that of Helm, remove"
                f" {config.key} from it, then: helmctl apply"
            )
        _, _, rest = uri.partition(":")
        changed = with_value(text, kind, config.section, config.key, f"{config.scheme}:{rest}")
        write_below(directory, config.file, changed.encode("utf-8", "surrogateescape"), 0o600)
    except OSError as problem:
        return f"the database of {service.name} was not written to {file}: {describe_file_error(problem)}"
    except ValueError as problem:
        return f"the database of {service.name} was not written to {file}: {problem}"
    return ""


def read_text(directory: Path, name: str) -> str:
    """Read a file below a service's DIRECTORY; empty if it does not exist. Raises OSError, also for a symbolic link."""
    path = directory / name
    try:
        with opened_directory(path.parent) as folder:
            content = read_in(folder, path.name)
    except FileNotFoundError:
        return ""
    except OSError as problem:
        place = problem.filename if str(problem.filename).startswith("/") else str(path)
        raise OSError(problem.errno, problem.strerror, place) from None
    return (content or b"").decode("utf-8", "surrogateescape")
