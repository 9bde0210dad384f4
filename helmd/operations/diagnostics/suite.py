"""Checks of the suite: configuration, units, ports, secrets, Java, PostgreSQL, Helm's own units."""

import socket
import stat
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from helmd.files.environment_file import misread_lines
from helmd.files.lock import locked
from helmd.health.listeners import USER_MANAGER, Holder, clients_of, conflict, holders_of
from helmd.health.target import url_host
from helmd.journal.keys import JournalKeys
from helmd.keycloak.launch import JAVA
from helmd.model.config.secrets import holds_password, password_files
from helmd.model.errors import BusError, ConfigurationError, Fault, LockedError
from helmd.model.logs.parsing.parsed import DISABLED
from helmd.model.suite.names import (
    HELM_UNITS,
    HELMD_UNIT,
    HTTP_SOCKET_UNIT,
    STORE_CLUSTER_UNIT,
    SUITE_CLUSTER,
    SUITE_CLUSTER_UNIT,
    TARGET,
    unit_of,
)
from helmd.model.units.diagnostics import Finding, bad, judge_java, ok, warn
from helmd.model.units.hardening import PROFILES, isolates
from helmd.model.units.unit_state import UnitFacts, condition, daemon_trouble, waiting_for
from helmd.modules.intent_log import interrupted_modules
from helmd.operations.configuration.apply import Change, changes
from helmd.operations.configuration.databases import database_services, embedded_cluster, remaining_mappings
from helmd.operations.configuration.host_facts import host_of
from helmd.operations.configuration.load import path_faults
from helmd.operations.configuration.ports import privileged_ports
from helmd.operations.diagnostics.context import DoctorContext
from helmd.operations.diagnostics.sandbox import hidden_from
from helmd.postgres.binaries import installed, major_of
from helmd.postgres.cluster import ClusterError, current_mappings, store_cluster
from helmd.postgres.configuration import ADMIN_FILE, SUPERUSER, Cluster
from helmd.postgres.distribution_upgrade import PackageFacts, package_facts, verdict
from helmd.postgres.sessions import sessions, trouble_of
from helmd.systemd.programs import exposing_paths
from helmd.systemd.render import render_sockets, template_environment

JAVA_NEEDED = 17
_LOGIN_SECONDS = 5.0


def is_set_up(context: DoctorContext) -> list[Finding]:
    if context.set_up:
        return [ok(f"the suite of {context.account} is configured in {context.layout.config}")]
    return [bad(f"{context.account} has no suite", "helmctl setup")]


def configuration(context: DoctorContext) -> list[Finding]:
    try:
        effective = context.effective
    except ConfigurationError as error:
        return [bad(str(fault), f"Correct {fault.file}") for fault in error.faults]
    suite = effective.registry
    found = [bad(str(fault), f"Correct {fault.file}") for fault in effective.faults]
    if held := [name for name in effective.refused.faults if name in suite]:
        sentence = f"what was last without a fault is in force for {', '.join(held)}"
        found.append(warn(sentence, "Correct the faults above, then: helmctl apply"))
    found += [bad(str(fault), _correction(fault)) for fault in path_faults(suite, context.layout)]
    return found or [ok(f"no faults; services: {', '.join(suite.names) or 'none'}")]


def _correction(fault: Fault) -> str:
    if fault.where.endswith(".schedule"):
        return f"Correct {fault.file}; what systemd makes of an expression: systemd-analyze calendar EXPRESSION"
    return "Create it, or correct the path"


def units(context: DoctorContext) -> list[Finding]:
    """Check whether installed and loaded units correspond to the configuration."""
    found = [
        finding
        for change in changes(context.suite, context.layout, context.settings, refused=context.effective.refused)
        for finding in _drift(change)
    ]
    for name, service in context.suite.services.items():
        for unit in () if service.external else dict.fromkeys((unit_of(name), service.enabled_unit)):
            if context.manager.facts(unit).need_reload:
                found.append(bad(f"{unit} has changed since systemd loaded it", "systemctl --user daemon-reload"))
        if not service.external and service.restart.policy != "no" and not service.gives_up(service.slowest_start):
            found.append(
                warn(
                    f"{name}: a start that times out is repeated again without end, since restart.burst ="
                    f" {service.restart.burst} starts do not fit in restart.within = {service.start_interval:g} s",
                    f"Leave restart.within of {name} out, which allows for such starts, or make it longer",
                )
            )
    return found or [ok("match the configuration")]


def _drift(change: Change) -> Iterator[Finding]:
    output = {
        "new": "is not installed",
        "changed": "differs from the configuration",
        "orphan": "belongs to a service, or a schedule, that is no longer configured",
    }
    if change.kind == "foreign":
        yield warn(
            f"{change.unit} was not written by Helm and is not changed",
            f"See systemctl --user cat {change.unit}; to let Helm install its own, move it away and run: helmctl apply",
        )
    elif change.kind in output:
        yield bad(f"{change.unit} {output[change.kind]}", "helmctl diff; helmctl apply")


def modules(context: DoctorContext) -> list[Finding]:
    """Check whether changes of modules were interrupted and could not be completed or rolled back automatically."""
    found = []
    for name in interrupted_modules(context.layout):
        places, fix = context.layout.module(name), f"helmctl modules recover {name}"
        with suppress(LockedError), locked(places.lock, f"{name} is being changed"):
            sentence = f"a change of {name} was interrupted"
            if places.start_block.exists():
                sentence += ", and it is not started until that is completed or rolled back"
            found.append(bad(sentence, f"{fix}; what it says is to be corrected first"))
    return found or [ok("no change of one was interrupted")]


def isolation(context: DoctorContext) -> list[Finding]:
    """Return which services are kept from the account's own files, and so from what other services may do."""
    namespaces = host_of(context.layout).user_namespaces
    open_ones, found = [], []
    for name, service in context.suite.services.items():
        if service.external or name == SUITE_CLUSTER:
            continue
        if not isolates(service.hardening, namespaces):
            open_ones.append(name)
        elif not isolated_now(name, context):
            sentence = f"the unit of {name} does not isolate it: it can act as the account until it is changed"
            found.append(warn(sentence, f"Remove what changes it (helmctl cat {name}), then: helmctl apply"))
        elif exposing := list(exposing_paths(service, context.layout)):
            sentence = f"{name} can act as the account through what its directories show it: {'; '.join(exposing)}"
            found.append(warn(sentence, f"Narrow path and writable_paths of {name} in services.toml"))
    if open_ones:
        names = ", ".join(open_ones)
        sentence = f"these services can act as the account, read every secret and be any role of PostgreSQL: {names}"
        fix = f'hardening = "{PROFILES[0]}" in their tables of services.toml'
        if not namespaces:
            fix = 'A host that allows user namespaces (see the check "hardening"); then: helmctl setup; helmctl apply'
        found.append(warn(sentence, fix))
    return found or [ok("no service can act as the account")]


def isolated_now(name: str, context: DoctorContext) -> bool:
    """Return whether the unit, as systemd has loaded it with its drop-ins, hides the account's secrets."""
    try:
        facts = context.manager.facts(unit_of(name))
        properties = context.manager.properties(unit_of(name)) if facts.exists else {}
    except BusError:
        # Reported by another check.
        return True
    if not properties:
        return True
    return bool(properties.get("PrivateUsers")) and hidden_from(properties, str(context.layout.secrets))


def ports(context: DoctorContext) -> list[Finding]:
    """Check whether each configured port is free or in use by its own service, and whether the account may use it."""
    wanted = [
        (service.port, unit_of(name), url_host(service))
        for name, service in context.suite.services.items()
        if service.port is not None and not service.external
    ]
    wanted.append((context.settings.port, HELMD_UNIT, context.settings.listen))
    wanted.sort()
    found = [bad(each.sentence, each.fix) for each in privileged_ports((port, unit) for port, unit, _ in wanted)]
    for port, unit, host in wanted:
        if any(_is(holder, unit, context) for holder in holders_of(port)):
            continue
        if holder := conflict(host, port):
            fix = f"{_end(holder, context.uid)}; or set another port for {unit}"
            found.append(bad(f"port {port} of {unit} is in use by {holder}", fix))
    return found or [ok("free, or in use by their own services")]


def _is(holder: Holder, unit: str, context: DoctorContext) -> bool:
    if unit == HELMD_UNIT and holder.unit == USER_MANAGER and holder.uid == context.uid:
        # systemd listens for it, also while it does not run.
        return context.manager.facts(HTTP_SOCKET_UNIT).active
    if holder.pid:
        return holder.unit == unit
    # A process of ours that cannot be inspected; its unit runs, so it is the unit's.
    return holder.uid == context.uid and context.manager.facts(unit).active


def _end(holder: Holder, uid: int) -> str:
    if holder.unit.endswith(".service"):
        return f"systemctl --user stop {holder.unit}" if holder.uid == uid else f"sudo systemctl stop {holder.unit}"
    if holder.pid:
        return f"kill {holder.pid}" if holder.uid == uid else f"sudo kill {holder.pid}"
    return "Find the process: sudo ss -ltnp"


def secrets(context: DoctorContext) -> list[Finding]:
    """Check whether only the account can read its secrets, and whether systemd parses them as intended."""
    layout = context.layout
    own = [layout.secrets, *sorted(layout.secrets.glob("*"))] if layout.secrets.is_dir() else []
    machine = []
    for path in (layout.settings_file, layout.registry_file, *sorted(layout.registry_directory.glob("*.toml"))):
        own += _secret_files(path)
    for path in (layout.machine / "helm.toml", layout.machine / "services.toml"):
        machine += _secret_files(path)
    found = [finding for path in own for finding in _readable_by_others(path, context)]
    for path in machine:
        if path.stat().st_mode & 0o007:
            fix = f"sudo chgrp {context.account} {path}; sudo chmod 640 {path}"
            found.append(bad(f"{path} holds a password and everybody can read it", fix))
    found += [finding for path in own if path.suffix == ".env" and path.is_file() for finding in _misread(path)]
    keys = JournalKeys(layout.journal_keys)
    keys.keys()
    if keys.trouble:
        found.append(bad(keys.trouble, f"Correct the file, or move it away: {keys.path}"))
    return found or [ok("only this account can read them")]


def _misread(path: Path) -> Iterator[Finding]:
    """Yield lines of the environment file at PATH that do not do what they seem to."""
    try:
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
        yield from (
            warn(sentence, f"Edit {path}, then restart the service") for sentence in misread_lines(text, str(path))
        )
    except ConfigurationError as error:
        yield from (bad(str(fault), f"Edit {path}, then restart the service") for fault in error.faults)
    except OSError as error:
        yield bad(f"{path} can't be read: {error.strerror}", f"ls -l {path}")


def _secret_files(path: Path) -> list[Path]:
    """PATH, a configuration file, if it has a password in it, and the password files that it names."""
    if not path.is_file():
        return []
    text = path.read_text(errors="replace")
    named = [Path(name) for name in password_files(text)]
    return [*([path] if holds_password(text) else []), *(each for each in named if each.exists())]


def _readable_by_others(path: Path, context: DoctorContext) -> Iterator[Finding]:
    facts = path.lstat()
    right = "700" if stat.S_ISDIR(facts.st_mode) else "600"
    if facts.st_uid != context.uid:
        yield bad(f"{path} belongs to uid {facts.st_uid}", f"sudo chown {context.account}: {path}")
    if stat.S_ISLNK(facts.st_mode):
        yield warn(f"{path} is a symbolic link; check the mode of its target", f"ls -lL {path}")
    elif facts.st_mode & 0o077:
        mode = stat.S_IMODE(facts.st_mode)
        yield bad(f"{path} has mode {mode:04o}: other accounts can read it", f"chmod {right} {path}")


def java(context: DoctorContext) -> list[Finding]:
    if all(service.type != "keycloak" for service in context.suite.services.values()):
        return [ok("not needed: Helm runs no Keycloak")]
    try:
        output = subprocess.run([str(JAVA), "-version"], capture_output=True, text=True, timeout=30, check=False).stderr
    except FileNotFoundError:
        output = None
    return [judge_java(output, JAVA_NEEDED)]


def postgres(context: DoctorContext) -> list[Finding]:
    """Return the private clusters: whether their programs are installed, get updates, and whether servers answer."""
    clusters: dict[str, Cluster] = {}
    if context.settings.store_embedded:
        clusters[STORE_CLUSTER_UNIT] = store_cluster(context.layout, context.account)
    if SUITE_CLUSTER in context.suite:
        clusters[unit_of(SUITE_CLUSTER)] = embedded_cluster(context.suite, context.layout, context.settings)
    versions = [each.major for each in installed()]
    packages: dict[int, PackageFacts | None] = {}
    found = []
    for unit, cluster in clusters.items():
        major = major_of(cluster.directory)
        if major is None:
            found.append(bad(f"{unit}: no cluster in {cluster.directory}", "helmctl setup"))
            continue
        if major not in packages:
            packages[major] = package_facts(f"postgresql-{major}")
        for concern in verdict(major, versions, packages[major]):
            judge = bad if concern.broken else warn
            found.append(judge(f"{unit}: {concern.sentence}", concern.hint))
        found += _answers(unit, cluster, major, context)
        found += _logins(cluster, context)
    if not context.settings.store_embedded:
        found.append(_external_store(context.settings.store))
    if not context.settings.suite_embedded:
        found.append(_external("the suite", context.settings.suite_database))
    return found or [ok("no database is used")]


def _logins(cluster: Cluster, context: DoctorContext) -> Iterator[Finding]:
    """Yield which roles of the suite's PostgreSQL the account can still be without a password, as in earlier
    releases.
    """
    if cluster.passfile is None:
        return
    known = current_mappings(cluster)
    if SUPERUSER in known:
        yield bad("every service can be the superuser of the suite's PostgreSQL", "helmctl apply")
        return
    pending = remaining_mappings(known, database_services(context.suite), context.manager.facts)
    if pending:
        yield warn(
            f"still logging in to PostgreSQL without a password, until restarted: {', '.join(pending)}",
            f"helmctl restart {' '.join(pending)}",
        )
    elif known:
        yield warn(f"PostgreSQL does not yet ask these for a password: {', '.join(known)}", "helmctl apply")


def _answers(unit: str, cluster: Cluster, major: int, context: DoctorContext) -> Iterator[Finding]:
    if not context.manager.facts(unit).active:
        if unit == STORE_CLUSTER_UNIT:
            yield bad(f"{unit} is not running; no logs are stored", f"systemctl --user start {unit}")
        else:
            yield ok(f"{unit}: PostgreSQL {major}, stopped")
        return
    try:
        with socket.socket(socket.AF_UNIX) as tried:
            tried.settimeout(5)
            tried.connect(str(cluster.socket_file))
    except OSError as problem:
        sentence = f"{unit} is running, but {cluster.socket_file} does not answer: {problem.strerror or problem}"
        yield bad(sentence, f"systemctl --user restart {unit}")
        return
    try:
        found = sessions(cluster, _LOGIN_SECONDS)
    except ClusterError as error:
        yield bad(f"{unit} lets nobody log in: {error.sentence}{_tcp_clients(cluster)}", _end_connections(unit))
        return
    trouble = trouble_of(found)
    if trouble:
        judge = bad if trouble.full else warn
        said = f"{trouble.sentence}; connections: {found.holders}{_tcp_clients(cluster)}"
        yield judge(f"{unit}: {said}", _end_connections(unit))
    else:
        yield ok(f"{unit}: PostgreSQL {major} answers")
    # The admin's own file may have set it on purpose.
    if found.max_connections < cluster.max_connections and not (cluster.directory / ADMIN_FILE).exists():
        yield warn(
            f"{unit}: max_connections is still {found.max_connections}; services may hold {cluster.max_connections}",
            f"helmctl restart {SUITE_CLUSTER}" if unit == SUITE_CLUSTER_UNIT else f"systemctl --user restart {unit}",
        )


def _tcp_clients(cluster: Cluster) -> str:
    """Return which units hold TCP connections to CLUSTER, also those that have not logged in."""
    found = clients_of(cluster.port) if cluster.tcp else Counter()
    parts = [f"{unit or 'a process that cannot be inspected'} {count}" for unit, count in found.most_common(5)]
    return f"; over TCP: {', '.join(parts)}" if parts else ""


def _end_connections(unit: str) -> str:
    return f"Stop or restart the service that holds most of them; see also: journalctl --user-unit {unit} -n 20"


def _external_store(dsn: str) -> Finding:
    # Imported here: psycopg costs every helmctl command 60 ms.
    from helmd.postgres.cluster import ClusterError
    from helmd.postgres.external import check_store

    try:
        return ok(f"the PostgreSQL {check_store(dsn)} of the log store answers")
    except ClusterError as problem:
        fix = problem.hint or "Check the server and store.database in helm.toml"
        return bad(f"logs can't be stored in the PostgreSQL of the log store: {problem.sentence}", fix)


def _external(what: str, dsn: str) -> Finding:
    # Imported here: psycopg costs every helmctl command 60 ms.
    from helmd.postgres.cluster import ClusterError
    from helmd.postgres.external import OLDEST, major_version

    try:
        version = major_version(dsn)
    except ClusterError as problem:
        sentence = f"could not connect to the PostgreSQL of {what}: {problem.sentence}"
        return bad(sentence, "Check the server and its DSN in helm.toml")
    if version < OLDEST:
        return bad(
            f"the PostgreSQL {version} of {what} is too old; {OLDEST} or newer is required", "Upgrade the server"
        )
    return ok(f"the PostgreSQL {version} of {what} answers")


def _down(facts: UnitFacts) -> Finding:
    """Return a unit of Helm's own that is not running."""
    now = time.time()
    fix = f"systemctl --user enable --now {facts.unit}"
    if condition(facts, now) in ("failed", "flapping"):
        fix = f"See: journalctl --user-unit {facts.unit} -n 20; then: systemctl --user restart {facts.unit}"
    return bad(daemon_trouble(facts, now), fix)


def _sockets(context: DoctorContext) -> Iterator[Finding]:
    """Check whether systemd listens for helmd, so that its restarts refuse nobody."""
    for unit in render_sockets(context.layout, context.settings, template_environment(context.layout.share / "units")):
        facts = context.manager.facts(unit)
        if not facts.exists:
            yield warn(f"{unit} is not installed: clients are refused whenever helmd restarts", "helmctl apply")
        elif not facts.active:
            why = f" ({facts.result})" if facts.result != "success" else ""
            fix = f"systemctl --user restart {HELMD_UNIT}; see why: systemctl --user status {unit}"
            yield warn(f"{unit} is {facts.active_state}{why}: clients are refused whenever helmd restarts", fix)
        elif facts.file_state not in ("enabled", "enabled-runtime"):
            yield warn(f"{unit} listens, but only once helmd has started", f"systemctl --user enable {unit}")


def helm(context: DoctorContext) -> list[Finding]:
    """Check whether Helm's own units run, and start at boot as the suite does."""
    found = []
    for unit in HELM_UNITS:
        if unit == STORE_CLUSTER_UNIT and not context.settings.store_embedded:
            continue
        facts = context.manager.facts(unit)
        if not facts.exists:
            found.append(bad(f"{unit} is not installed", "helmctl setup"))
        elif not facts.active:
            found.append(_down(facts))
        elif facts.file_state not in ("enabled", "enabled-runtime"):
            found.append(warn(f"{unit} is running, but does not start at boot", f"systemctl --user enable {unit}"))
        if reason := waiting_for(facts):
            fix = "Correct this, and the lines that wait in the journal are stored; see: helmctl logs --journal"
            found.append(bad(f"{unit} stores nothing at present: {reason}", fix))
        if DISABLED in facts.status_text:
            formats = facts.status_text.partition(f"{DISABLED}: ")[2].partition(";")[0]
            fix = f"Correct their patterns in formats.toml, then: systemctl --user reload {unit}"
            found.append(warn(f"{unit} does not use these formats, {DISABLED}: {formats}", fix))
    found += _sockets(context)
    target = context.manager.facts(TARGET)
    if not target.exists:
        found.append(bad(f"{TARGET} is not installed", "helmctl setup"))
    elif target.file_state not in ("enabled", "enabled-runtime"):
        found.append(warn("the suite does not start at boot", f"systemctl --user enable {TARGET}"))
    return found or [ok("helmd and helmd-journal are running and start at boot")]
