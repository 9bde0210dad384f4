"""Setting up a suite for an account; every step is reported, and can be repeated."""

import grp
import os
import pwd
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from helmd.files.durable import write_atomically, write_if_changed
from helmd.files.environment_file import ensure_secrets
from helmd.journal.keys import JournalKeys
from helmd.journal.lines import last_lines
from helmd.keycloak import launch
from helmd.keycloak.admin.api import MASTER
from helmd.keycloak.distribution.artefact import KEYCLOAK, DownloadCallback
from helmd.keycloak.distribution.fetch import fetch
from helmd.keycloak.distribution.maven import available
from helmd.keycloak.distribution.unpack import unpack, unpacked
from helmd.model.config.schema import HELM_SETTINGS
from helmd.model.config.settings import Settings
from helmd.model.config.toml_tables import ConfigSource
from helmd.model.config.validators import url as url_setting
from helmd.model.counted import counted
from helmd.model.errors import (
    BusError,
    ConfigurationError,
    DeniedError,
    Fault,
    NotSetUpError,
    StartFailedError,
    UsageError,
)
from helmd.model.identity.realm import GATEWAY
from helmd.model.layout import Layout
from helmd.model.suite.names import (
    HELM_UNITS,
    HELMD_UNIT,
    JOURNAL_UNIT,
    SOCKET_UNITS,
    STORE_CLUSTER_UNIT,
    TARGET,
    service_behind,
)
from helmd.model.suite.service import Registry, Service
from helmd.model.urls import origin_of
from helmd.operations.configuration.apply import apply, changes
from helmd.operations.configuration.databases import embedded_cluster, ensure_databases, keycloak_service
from helmd.operations.configuration.host_facts import remember_host
from helmd.operations.configuration.keys import install_certificate, make_keys
from helmd.operations.configuration.load import load_settings, load_suite
from helmd.operations.configuration.module_files import KEYS
from helmd.operations.configuration.registry_file import set_in_registry
from helmd.operations.setup.end_check import check_end_to_end
from helmd.postgres.cluster import account_name, create_cluster, store_cluster
from helmd.postgres.external import check_store
from helmd.postgres.roles import ensure_store
from helmd.systemd.bus import Manager, Signals
from helmd.systemd.log_limit import check_limit, raise_limit, reload_systemd
from helmd.systemd.user_manager import JOURNAL_GROUP, lingers

JOB_TIMEOUT = 120.0

Notify = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class SetupOptions:
    """Options: a registry to install, a Keycloak archive, the DSN of an existing log store, and the public URL of the
    gateway.
    """

    registry_file: Path | None = None
    keycloak_archive: Path | None = None
    database: str | None = None
    url: str | None = None
    certificate: tuple[Path, Path] | None = None
    """The gateway's certificate, with its chain, and its key."""
    coming: frozenset[str] = frozenset()
    """Services whose directories may be missing, since modules are installed next."""
    mode: str = ""
    """The value of ``suite.mode`` in a new ``helm.toml``; empty for its default."""


REGISTRY_TEMPLATE = """\
# The services of this account's suite; see services.toml(5). A table names a service that the package knows, or a new
# one. For example:
#
# [services.keycloak]
#
# [services.core]
# path = "~/hivematrix-core"
"""


SUITE_TEMPLATE = """\
# The services of this account's suite; see services.toml(5). Modules that helmctl installs have files of their own in
# services.d; what is set here for one of them wins over what the catalogue and the module itself say.

[services.keycloak]
"""


def settings_template(database: str | None, mode: str = "") -> str:
    """Return a ``helm.toml`` with every setting at its default, commented out, except those given."""
    given = {"store.database": database, "suite.mode": mode}
    lines = ["# Settings of HiveMatrix Helm; see helm.toml(5). What is commented out is the default."]
    table = ""
    for setting in HELM_SETTINGS:
        head, _, key = setting.key.rpartition(".")
        if head != table:
            lines += ["", f"[{head}]"]
            table = head
        lines.append(f"# {setting.meaning}")
        if value := given.get(setting.key):
            lines.append(f'{key} = "' + value.replace("\\", "\\\\").replace('"', '\\"') + '"')
        else:
            plain = setting.default.isdigit() or setting.default in ("true", "false", "[]")
            shown = setting.default if plain else f'"{setting.default}"'
            lines.append(f"#{key} = {shown}")
    return "\n".join(lines) + "\n"


def prepare_account(layout: Layout, notify: Notify) -> None:
    """Enable lingering, so that the suite survives the logout and starts at boot; check access to the journal."""
    name = account_name()
    if lingers(name):
        notify("lingering is enabled")
    else:
        tried = subprocess.run(["loginctl", "enable-linger"], capture_output=True, text=True, timeout=30, check=False)
        if tried.returncode:
            raise DeniedError(
                "lingering is off and could not be enabled", hint=f"Run: sudo loginctl enable-linger {name}"
            )
        notify("lingering enabled: the suite runs without a login and starts at boot")
    account = pwd.getpwuid(os.getuid())
    members = os.getgrouplist(name, account.pw_gid)
    if account.pw_uid < 1000 and grp.getgrnam(JOURNAL_GROUP).gr_gid not in members:
        raise DeniedError(
            f"{name} is a system account and must be in group {JOURNAL_GROUP} to read its journal",
            hint=f"Run: sudo usermod -aG {JOURNAL_GROUP} {name} && sudo systemctl restart user@{account.pw_uid}",
        )


def prepare_files(layout: Layout, options: SetupOptions, notify: Notify) -> None:
    """Create directories, and missing configuration files."""
    try:
        for directory in (layout.config, layout.secrets, layout.data, layout.state):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            directory.chmod(0o700)
        layout.registry_directory.mkdir(exist_ok=True)
        JournalKeys(layout.journal_keys).create()
    except OSError as problem:
        raise NotSetUpError(
            f"could not create {problem.filename}: {problem.strerror}",
            hint="The account that owns a suite needs a home directory that it can write to.",
        ) from None
    if not layout.settings_file.exists():
        write_atomically(layout.settings_file, settings_template(options.database, options.mode), 0o600)
        notify(f"wrote {layout.settings_file}" + (f", mode {options.mode}" if options.mode else ""))
    elif options.database is not None and load_settings(layout).store != options.database:
        raise UsageError(
            f"{layout.settings_file} already exists and sets another log store",
            hint="Set database in its table [store], then run: helmctl setup",
        )
    elif options.mode and load_settings(layout).mode != options.mode:
        raise UsageError(
            f"{layout.settings_file} already exists and sets another mode of services",
            hint=f'Set mode = "{options.mode}" in its table [suite], and that of a service by: '
            f"helmctl restart NAME --mode {options.mode}",
        )
    if options.registry_file is not None:
        _install_registry(layout, options.registry_file, notify)
    elif not layout.registry_file.exists():
        write_atomically(layout.registry_file, REGISTRY_TEMPLATE)
        notify(f"wrote {layout.registry_file}; add your services to it")


def _install_registry(layout: Layout, given: Path, notify: Notify) -> None:
    try:
        text = given.read_text()
    except UnicodeDecodeError:
        raise ConfigurationError([Fault(str(given), 0, "", "is not UTF-8 text")]) from None
    if layout.registry_file.exists() and layout.registry_file.read_text() not in (
        text,
        REGISTRY_TEMPLATE,
        SUITE_TEMPLATE,
    ):
        raise NotSetUpError(
            f"{layout.registry_file} already exists and differs from {given}",
            hint="Move it away, or edit it and run helmctl setup without --registry.",
        )
    load_suite(layout, load_settings(layout), ConfigSource(str(layout.registry_file), text))
    if write_if_changed(layout.registry_file, text, 0o644):
        notify(f"wrote {layout.registry_file}, as given")


def prepare_keycloak(
    registry: Registry, layout: Layout, options: SetupOptions, notify: Notify, progress: DownloadCallback
) -> None:
    """Fetch, check and unpack the suite's Keycloak, and generate its secrets."""
    name = keycloak_service(registry)
    if name is None:
        return
    directory = layout.resolve(registry[name].path)
    if directory == layout.data / KEYCLOAK.directory and unpacked(layout.data) is None:
        notify(f"fetching Keycloak {KEYCLOAK.version}")
        archive = fetch(layout.data / "downloads", options.keycloak_archive, progress, mvn=available())
        notify(f"unpacking {KEYCLOAK.file} (checksum verified)")
        unpack(archive, layout.data)
        if options.keycloak_archive is None:
            archive.unlink()
    for place in launch.WRITABLE:
        (directory / place).mkdir(parents=True, exist_ok=True)
    fresh = not layout.secrets_file(name).exists()
    # Once Helm has its own client there, the temporary admin is not needed any more.
    needed = {} if layout.admin_client_secret.exists() else launch.BOOTSTRAP_SECRETS
    ensure_secrets(layout.secrets_file(name), {**launch.SECRETS, **needed})
    if fresh:
        notify(f"created the passwords of Keycloak's first admin and database ({layout.secrets_file(name)}, mode 0600)")


def realm_service(registry: Registry) -> Service | None:
    """Return the Keycloak that the suite runs and whose realm is the suite's own, if it has one."""
    name = keycloak_service(registry)
    return registry[name] if name is not None and registry[name].realm != MASTER else None


def public_origin(url: str) -> str:
    """Return scheme, host and port of a URL that the caller gives for the suite as a whole. Raises UsageError."""
    try:
        wanted = url_setting(url)
    except ValueError as problem:
        raise UsageError(f"the URL {problem}", hint="Give one such as https://desk.example.org") from None
    if wanted != (origin := origin_of(wanted)):
        raise UsageError(f"{url} has more than a host", hint=f"The suite is at the top of it: --url {origin}")
    return origin


def set_public_url(layout: Layout, settings: Settings, wanted: str, notify: Notify) -> None:
    """Set the gateway's url in services.toml to the origin WANTED.

    Raises UsageError if there is no gateway, or another file sets it.
    """
    registry = load_suite(layout, settings)
    if GATEWAY not in registry:
        sentence = f"the suite has no gateway ({GATEWAY}) that users could reach at {wanted}"
        raise UsageError(sentence, hint=f"Add [services.{GATEWAY}] to {layout.registry_file}, then: helmctl setup")
    if origin_of(registry[GATEWAY].url) == wanted:
        return
    set_in_registry(layout, settings, GATEWAY, "url", wanted)
    notify(f"set url of {GATEWAY} to {wanted} ({layout.registry_file})")


def prepare_keys(registry: Registry, layout: Layout, notify: Notify) -> None:
    """Create Core's signing key and the gateway's certificate, if missing or expiring soon."""
    for name in KEYS:
        if name in registry and not registry[name].external and layout.resolve(registry[name].path).is_dir():
            made = make_keys(name, registry, layout)
            if made:
                notify(made)


def prepare_clusters(registry: Registry, layout: Layout, settings: Settings, notify: Notify) -> None:
    """Create the private PostgreSQL clusters that the settings require."""
    if settings.store_embedded and create_cluster(store_cluster(layout, account_name())):
        notify("created the PostgreSQL cluster of the log store")
    if "postgres" in registry and create_cluster(embedded_cluster(registry, layout, settings)):
        notify("created the PostgreSQL cluster of the suite")


def run_unit(manager: Manager, signals: Signals, unit: str, restart: bool = False, stop: bool = False) -> None:
    """Start UNIT, restart or stop it, and wait for it. Raises StartFailedError with its last lines."""
    begun = time.time()
    job = manager.stop(unit) if stop else manager.restart(unit) if restart else manager.start(unit)
    deadline = time.monotonic() + JOB_TIMEOUT
    ended = ""
    while not ended and time.monotonic() < deadline:
        ended = next((finished.result for finished in signals.wait(deadline) if finished.job == job), "")
    if ended != "done":
        sentence = f"{unit} did not {'stop' if stop else 'start'} ({ended or f'not finished after {JOB_TIMEOUT:g} s'})"
        lines = [line.message for line in last_lines(unit, 10, begun)]
        raise StartFailedError(sentence, hint=f"See: journalctl --user-unit {unit}", lines=lines)


def start_helm(layout: Layout, settings: Settings, manager: Manager, notify: Notify) -> None:
    """Enable and start Helm's own units: store, helmd-journal, helmd."""
    units = [unit for unit in HELM_UNITS if unit != STORE_CLUSTER_UNIT or settings.store_embedded]
    manager.enable([*units, *(unit for unit in SOCKET_UNITS if layout.unit_file(unit).exists())])
    manager.daemon_reload()
    with Signals() as signals:
        manager.subscribe()
        if settings.store_embedded:
            # A start job in progress may be that of an older unit; systemd would merge ours with it.
            run_unit(manager, signals, STORE_CLUSTER_UNIT, restart=not manager.facts(STORE_CLUSTER_UNIT).active)
            ensure_store(store_cluster(layout, account_name()))
            notify("the log store is running")
        for unit, what in ((JOURNAL_UNIT, "helmd-journal is running"), (HELMD_UNIT, "helmd is running")):
            run_unit(manager, signals, unit, restart=True)
            notify(what)


def set_up(layout: Layout, options: SetupOptions, notify: Notify, progress: DownloadCallback) -> Registry:
    """Set up everything but Keycloak's realm, for the account that runs this. The suite itself is not started."""
    prepare_account(layout, notify)
    manager = _manager(layout)
    prepare_files(layout, options, notify)
    settings = load_settings(layout)
    if not settings.store_embedded:
        check_store(settings.store)
    if options.url is not None:
        set_public_url(layout, settings, options.url, notify)
    registry = load_suite(layout, settings)
    prepare_keycloak(registry, layout, options, notify, progress)
    if options.certificate is not None and (said := install_certificate(*options.certificate, registry, layout)):
        notify(said)
    prepare_keys(registry, layout, notify)
    prepare_clusters(registry, layout, settings, notify)
    host = remember_host(layout)
    if not host.user_namespaces:
        notify("user namespaces are not available on this host; hardening is limited to what works without them")
    done, refused, notices = apply(changes(registry, layout, settings), registry, layout, settings, manager)
    notify(f"{counted(len(done), 'unit')} installed")
    for change in refused:
        for fault in change.faults if service_behind(change.unit) not in options.coming else ():
            notify(f"warning: {fault}")
    for notice in notices:
        notify(f"warning: {notice}")
    ensure_databases(registry, layout, settings, manager.facts)
    start_helm(layout, settings, manager, notify)
    manager.enable([TARGET])
    manager.daemon_reload()
    notify("the suite will start at boot")
    _report_log_limit(layout, notify)
    check_end_to_end(layout, settings.store_conninfo(layout), manager, account_name())
    notify("a line written to the journal was found in the log store")
    return registry


def _report_log_limit(layout: Layout, notify: Notify) -> None:
    """Print the command that raises journald's limit of log lines, if root has not done that for this account."""
    try:
        limit = check_limit(layout.uid, layout.libexec)
    except (OSError, subprocess.SubprocessError) as error:
        notify(f"journald's limit of log lines could not be checked: {error}")
        return
    if limit.fix:
        notify(f"{limit.sentence}; to raise the limit, run: {limit.fix}")


def _manager(layout: Layout) -> Manager:
    try:
        return Manager()
    except BusError as error:
        name = account_name()
        raise BusError(
            error.sentence,
            hint=f"Log in as {name} again (su starts no session), or run: sudo systemctl start user@{layout.uid}",
        ) from None


def create_account(name: str, notify: Notify) -> None:
    """As root: create the system account that owns the suite, with home below /var/lib, lingering, journal access.

    An existing account is used, unless it is unsuitable: root, or one without its own home.
    """
    if os.geteuid() != 0:
        raise DeniedError("only root can create an account", hint=f"Run: sudo helmctl setup --account {name}")
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        words = ["--system", "--group", "--home", f"/var/lib/{name}", "--shell", "/bin/bash", name]
        _run(["adduser", "--quiet", "--gecos", "HiveMatrix suite", "--disabled-password", *words])
        entry = pwd.getpwnam(name)
        notify(f"created account {name} (home {entry.pw_dir})")
    if fault := _unfit(entry):
        raise UsageError(
            f"{name} can't own a suite: {fault}", hint="Use another account: helmctl setup --account hivematrix"
        )
    # Both before lingering, since the user manager keeps the limit and groups with which it was started.
    try:
        raise_limit(entry.pw_uid)
        reload_systemd()
    except (OSError, subprocess.SubprocessError) as error:
        raise NotSetUpError(f"journald's limit of log lines for {name} could not be raised: {error}") from None
    if name not in grp.getgrnam(JOURNAL_GROUP).gr_mem:
        _run(["usermod", "-aG", JOURNAL_GROUP, name])
        if Path(f"/run/user/{entry.pw_uid}/bus").exists():
            _run(["systemctl", "restart", f"user@{entry.pw_uid}.service"])
        notify(f"added {name} to group {JOURNAL_GROUP}")
    _run(["loginctl", "enable-linger", name])
    deadline = time.monotonic() + 30
    while not Path(f"/run/user/{entry.pw_uid}/bus").exists():
        if time.monotonic() > deadline:
            raise NotSetUpError(
                f"the user manager of {name} did not start", hint=f"See: systemctl status user@{entry.pw_uid}"
            )
        time.sleep(0.05)


def _unfit(entry: pwd.struct_passwd) -> str:
    """Return why an account can't own a suite; empty if it can."""
    if entry.pw_uid == 0:
        return "root should not run services"
    try:
        owner = Path(entry.pw_dir).stat().st_uid
    except OSError as problem:
        return f"its home directory {entry.pw_dir} is not usable: {problem.strerror}"
    return "" if owner == entry.pw_uid else f"its home directory {entry.pw_dir} belongs to another account"


def _run(words: list[str]) -> None:
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        raise NotSetUpError(f"{words[0]} failed: {(done.stderr or done.stdout).strip()[:300]}")
