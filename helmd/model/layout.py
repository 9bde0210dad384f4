"""Where an account keeps its files (XDG Base Directory Specification), as plain facts."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

INSTALLED_SHARE = Path("/usr/share/hivematrix-helm")
INSTALLED_LIBEXEC = Path("/usr/libexec/hivematrix-helm")

CREDENTIALS = (".ssh", ".gnupg", ".password-store", ".config/systemd", ".config/autostart")
"""Directories below a home directory with which a program can act as the account."""


@dataclass(frozen=True, slots=True)
class ModulePlaces:
    """Where the files of one module are that Helm installs from git."""

    root: Path
    state: Path
    deploy_key: Path
    """The key of ssh that its repository is read with, if it has one of its own; mode 0600, seen by git alone."""

    @property
    def deploy_key_before(self) -> Path:
        """The key that was replaced, until the repository was read with the new one."""
        return self.deploy_key.with_suffix(".before")

    @property
    def mirror(self) -> Path:
        """Its repository: a bare one, whose configuration nobody but Helm writes."""
        return self.root / "mirror.git"

    @property
    def versions(self) -> Path:
        """A directory each for its installed versions, named by time and commit."""
        return self.root / "versions"

    def version(self, version: str) -> Path:
        return self.versions / version

    @property
    def shared(self) -> Path:
        """Its state, which outlives versions: each of these has links to it."""
        return self.root / "shared"

    @property
    def cache(self) -> Path:
        """What pip has downloaded and built for it; may be deleted at any time."""
        return self.root / "cache"

    def snapshot(self, stamp: str) -> Path:
        """Return the copy of its state that was made at a time, before a change of it."""
        return self.root / "snapshots" / stamp

    def failed_state(self, stamp: str) -> Path:
        """Return what its state was when a change was rolled back that began at a time."""
        return self.root / "failed" / stamp

    @property
    def reserve(self) -> Path:
        """Space that a change keeps for a rollback, when its own programs have filled the disk."""
        return self.root / "reserve"

    @property
    def record(self) -> Path:
        """What is known of it: see `helmd.model.modules.record`."""
        return self.root / "module.json"

    @property
    def declared(self) -> Path:
        """The settings that its active version declares in ``hivematrix.toml``, as a catalogue of its own."""
        return self.root / "declared.toml"

    def declared_by(self, version: str) -> Path:
        """Return the settings declared by one of its versions; the file does not exist if it declares none."""
        return self.versions / f"{version}.toml"

    @property
    def known_hosts(self) -> Path:
        """The host keys of its repository's server (ssh(1))."""
        return self.root / "known_hosts"

    @property
    def intent(self) -> Path:
        """The steps of the transaction that changes it, while there is one."""
        return self.state / "intent.ndjson"

    @property
    def check(self) -> Path:
        """The result of the last check for an update: see `helmd.model.modules.plan`."""
        return self.state / "plan.json"

    def check_for(self, ref: str) -> Path:
        """Return the result of a check of a branch, tag or commit that is not followed. REF is not trusted."""
        # Imported here: it loads OpenSSL, and every command this module.
        import hashlib

        return self.state / "plans" / f"{hashlib.sha256(ref.encode('utf-8', 'replace')).hexdigest()[:32]}.json"

    @property
    def start_block(self) -> Path:
        """While it exists its service does not start; its text says why (`helmd.systemd.prestart`)."""
        return self.state / "start.blocked"

    @property
    def logs(self) -> Path:
        """What building its versions has printed, a file each."""
        return self.state / "logs"

    @property
    def lock(self) -> Path:
        """Held while its files are changed."""
        return self.state / "module.lock"


@dataclass(frozen=True, slots=True)
class Layout:
    """The directories of one account's suite. Nothing here touches the disk."""

    home: Path
    uid: int
    config: Path
    """``helm.toml``, ``services.toml``, ``services.d/``, ``secrets/``."""
    data: Path
    """Checkouts and Keycloak."""
    state: Path
    """PostgreSQL clusters, keys, backups."""
    runtime: Path
    """Sockets; gone when the account's user manager ends."""
    units: Path
    """Rendered units (systemd.unit(5), user unit search path)."""
    admin_units: Path
    """The admin's own units and drop-ins; never written."""
    share: Path
    """The package's files: unit templates, default registry, migrations."""
    machine: Path
    """Machine-wide defaults of the admin."""

    @property
    def libexec(self) -> Path:
        """The programs that units execute; their names stay when modules move (packaging/libexec)."""
        return INSTALLED_LIBEXEC if self.share == INSTALLED_SHARE else self.share / "packaging/libexec"

    @property
    def helmctl(self) -> Path:
        """The program that jobs run."""
        return Path("/usr/bin/helmctl") if self.share == INSTALLED_SHARE else self.share / "helmctl.py"

    def resolve(self, path: str) -> Path:
        """Return a configured path: absolute, below the home directory, or relative to where checkouts are."""
        return self.home / path[2:] if path.startswith("~/") else self.data / path

    def resolve_in(self, directory: Path, path: str) -> Path:
        """Return a path of a service in DIRECTORY: absolute, below the home directory, or relative to DIRECTORY."""
        return self.home / path[2:] if path.startswith("~/") else directory / path

    @property
    def modules(self) -> Path:
        """The modules that Helm installs from git, a directory each."""
        return self.data / "modules"

    def module(self, name: str) -> ModulePlaces:
        """Return where the files of the module NAME are. The name must be that of a service."""
        return ModulePlaces(
            self.modules / name, self.state / "modules" / name, self.secrets / "deploy-keys" / f"{name}.key"
        )

    def module_of(self, directory: Path) -> ModulePlaces | None:
        """Return the places of the module of which DIRECTORY is a version, or None for any other directory."""
        versions = directory.parent
        known = versions.name == "versions" and versions.parent.parent == self.modules
        return self.module(versions.parent.name) if known else None

    def state_directory(self, directory: Path, name: str, shared: Collection[str]) -> Path:
        """Return the directory below which a service in DIRECTORY has its file NAME. Of a module's version, what is at
        SHARED paths is beside it, and only linked into it.
        """
        module = self.module_of(directory)
        held = any(name == path or name.startswith(f"{path}/") for path in shared)
        return module.shared if module is not None and held else directory

    @property
    def settings_file(self) -> Path:
        return self.config / "helm.toml"

    @property
    def registry_file(self) -> Path:
        return self.config / "services.toml"

    @property
    def registry_directory(self) -> Path:
        return self.config / "services.d"

    @property
    def secrets(self) -> Path:
        return self.config / "secrets"

    @property
    def journal_keys(self) -> Path:
        """The keys by which Helm signs what it writes into the journal."""
        return self.secrets / "journal.keys"

    @property
    def admin_client_secret(self) -> Path:
        """The secret of the client by which Helm administers Keycloak's realm; mode 0600, seen by no service."""
        return self.secrets / "helm-admin.secret"

    @property
    def first_password(self) -> Path:
        """The password of the suite's first admin, until it was printed; mode 0600."""
        return self.secrets / "first-admin.password"

    @property
    def probe_password(self) -> Path:
        """The password of the account by which helmd sees pages through the gateway; mode 0600, seen by no service."""
        return self.secrets / "page-probe.password"

    @property
    def gateway_page(self) -> Path:
        """What was learned of the gateway's pages; mode 0600, seen by no service."""
        return self.state / "gateway-page.json"

    @property
    def machine_tokens(self) -> Path:
        """The hashes of the tokens that Helm issued; mode 0600, seen by no service."""
        return self.secrets / "tokens.json"

    @property
    def token_uses(self) -> Path:
        """When these tokens were last used."""
        return self.state / "token-uses.json"

    @property
    def token_lock(self) -> Path:
        return self.state / "tokens.lock"

    @property
    def accepted_findings(self) -> Path:
        """Findings of the security audit that were accepted; mode 0600, seen by no service."""
        return self.secrets / "accepted-findings.json"

    @property
    def accepted_findings_lock(self) -> Path:
        return self.state / "accepted-findings.lock"

    @property
    def sessions(self) -> Path:
        """The sessions of browsers that have logged in; mode 0700, seen by no service."""
        return self.state / "sessions"

    @property
    def backup_key(self) -> Path:
        """The public key that backups are encrypted for, and the key that they are signed with; mode 0600."""
        return self.secrets / "backup.key"

    @property
    def backup_identity(self) -> Path:
        """What opens backups, until the admin has moved it elsewhere; mode 0600, never part of a backup."""
        return self.secrets / "backup-identity.txt"

    @property
    def backups(self) -> Path:
        """Where backups are kept unless the settings say otherwise."""
        return self.state / "backups"

    @property
    def last_backup(self) -> Path:
        """How the last run of a backup ended."""
        return self.state / "last-backup.json"

    def last_check(self, check: str) -> Path:
        """Return the last result of a check (``helmd.model.suite.names.UNIT_CHECKS``).

        Mode 0600, seen by no service.
        """
        return self.state / f"last-{check}.json"

    @property
    def backup_lock(self) -> Path:
        return self.state / "backup.lock"

    @property
    def backup_scratch(self) -> Path:
        """The cluster into which a backup is restored to check it."""
        return self.state / "backup-check"

    @property
    def restore_mark(self) -> Path:
        """There while a restore is not finished: which archive it is of."""
        return self.state / "restore.json"

    @property
    def keycloak_lock(self) -> Path:
        return self.state / "keycloak.lock"

    @property
    def user_lock(self) -> Path:
        """Held while users of Keycloak's realm are changed."""
        return self.state / "users.lock"

    @property
    def user_imports(self) -> Path:
        """Files with users that jobs are to import; mode 0700."""
        return self.state / "user-imports"

    @property
    def keycloak_upgrade(self) -> Path:
        """What an upgrade of Keycloak that is not finished goes back to."""
        return self.state / "keycloak-upgrade.json"

    @property
    def placed_variables(self) -> Path:
        """What Helm has put into ``.flaskenv`` of services."""
        return self.state / "flaskenv.json"

    @property
    def restored_views(self) -> Path:
        """Saved views of the log page that a restore has put here, for helmd to store."""
        return self.state / "log-views.json"

    @property
    def discovery_file(self) -> Path:
        """What every service's ``services.json`` is copied from before it starts."""
        return self.data / "services.json"

    @property
    def apply_lock(self) -> Path:
        return self.state / "apply.lock"

    @property
    def adoption(self) -> Path:
        """What is kept of an installation that was taken over, so that it can be given back; mode 0700."""
        return self.state / "adoption"

    @property
    def jobs(self) -> Path:
        """The directories of jobs, one each."""
        return self.state / "jobs"

    @property
    def socket(self) -> Path:
        return self.runtime / "helm.sock"

    @property
    def store_cluster(self) -> Path:
        return self.state / "postgres-helm"

    @property
    def store_socket(self) -> Path:
        return self.runtime / "postgres-helm"

    @property
    def suite_cluster(self) -> Path:
        return self.state / "postgres-suite"

    @property
    def suite_certificate(self) -> Path:
        """The certificate of the suite's PostgreSQL (``helmd.postgres.configuration.CERTIFICATE``)."""
        return self.suite_cluster / "server.crt"

    @property
    def suite_socket(self) -> Path:
        return self.runtime / "postgres-suite"

    @property
    def suite_passfile(self) -> Path:
        """The passwords of the roles of the suite's PostgreSQL (libpq); mode 0600, seen by no service but that."""
        return self.secrets / "postgres.pgpass"

    def secrets_file(self, service: str) -> Path:
        """Environment variables of a service that are secret; mode 0600, written by the admin and by set-up."""
        return self.secrets / f"{service}.env"

    def home_of(self, service: str) -> Path:
        """Return the home directory of a service: HOME in its environment, seen by no other service."""
        return self.state / "homes" / service

    def exposed(self, place: Path) -> Path | None:
        """Return what a service that sees PLACE could use to act as the account, or None if there is nothing.

        PLACE, which must be free of symbolic links, is one of those directories, lies in one, or contains one.
        """
        guarded = [self.config, self.state, self.runtime.parent, self.units, self.admin_units]
        for guard in (*guarded, *(self.home / name for name in CREDENTIALS)):
            if place.is_relative_to(guard) or guard.is_relative_to(place):
                return guard
        # One checkout may be shown, all of them may not: Core's signing key is in one.
        return self.data if self.data.is_relative_to(place) else None

    def timer_stamp(self, timer: str) -> Path:
        """Return where the account's manager notes when a persistent TIMER last elapsed (systemd.timer(5),
        Persistent=).
        """
        return self.units.parent / "timers" / f"stamp-{timer}"

    def unit_file(self, unit: str) -> Path:
        """Return where a rendered unit is installed."""
        return self.units / unit


def layout(environment: Mapping[str, str], home: Path, uid: int, share: Path) -> Layout:
    """Return the layout of the account with this HOME and uid; XDG variables that hold absolute paths are honoured."""

    def base(variable: str, default: Path) -> Path:
        value = environment.get(variable, "")
        return Path(value) if value.startswith("/") else default

    config = base("XDG_CONFIG_HOME", home / ".config")
    data = base("XDG_DATA_HOME", home / ".local/share")
    state = base("XDG_STATE_HOME", home / ".local/state")
    runtime = base("XDG_RUNTIME_DIR", Path(f"/run/user/{uid}"))
    return Layout(
        home=home,
        uid=uid,
        config=config / "hivematrix",
        data=data / "hivematrix",
        state=state / "hivematrix",
        runtime=runtime / "hivematrix",
        units=data / "systemd/user",
        admin_units=config / "systemd/user",
        share=share,
        machine=Path("/etc/hivematrix"),
    )
