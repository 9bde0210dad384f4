"""Helm's own settings (``helm.toml``) as a fact."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Literal

from helmd.model.config.schema import HELM_SETTINGS
from helmd.model.config.toml_tables import ConfigSource, Given, SettingsReader, parse_toml
from helmd.model.errors import ConfigurationError, Fault
from helmd.model.layout import Layout
from helmd.model.suite.names import Mode

EMBEDDED = "embedded"


DEFAULT_URL = "http://localhost:5004"
"""Where helmd is reached unless ``http.port`` or ``http.url`` say otherwise."""


@dataclass(frozen=True, slots=True)
class Settings:
    """``helm.toml`` with defaults. Database URIs can contain passwords: never print them."""

    listen: str = "127.0.0.1"
    port: int = 5004
    url: str = DEFAULT_URL
    store: str = field(default=EMBEDDED, repr=False)
    suite_database: str = field(default=EMBEDDED, repr=False)
    suite_database_port: int = 5499
    mode: Mode = "development"
    monitor_interval: float = 15.0
    retention: int = 90
    min_free_percent: int = 10
    min_free_size: int = 10 << 30
    """Bytes; on a large disk, this bounds ``min_free_percent``."""
    core: str = ""
    """Core's URL, if it differs from the registry's; see `helmd.model.suite.composition.core_url`."""
    ingest_anonymous: Literal["no", "loopback"] = "no"
    ingest_rate: int = 20_000
    """Entries a second that each caller may post; ``ingest_burst`` of them at once."""
    ingest_burst: int = 200_000
    billing_services: tuple[str, ...] = ()
    trusted_units: tuple[str, ...] = ()
    """Patterns of names of the account's service units whose requests may change something."""
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = ()
    session_read_only: float = 30 * 60.0
    """Seconds, as the two below; see `helmd.model.identity.sessions.SessionLimits`."""
    session_idle: float = 8 * 3600.0
    session_longest: float = 12 * 3600.0
    backup_directory: str = ""
    """Empty for `Layout.backups`."""
    backup_keep: int = 7
    backup_keep_days: int = 30
    backup_schedule: str = "daily"
    """A calendar event expression (systemd.time(7)), or "never"."""
    backup_logs: bool = False
    backup_recipients: tuple[str, ...] = ()
    """Public keys (age) besides that of ``helmctl backup key``."""
    module_files: bool = False
    """Whether modules may be installed from repositories on this machine."""
    module_max_size: int = 2 << 30
    """Bytes of a module's repository, and of a version."""
    module_build_timeout: float = 20 * 60.0
    module_gate: float = 60.0
    """Seconds for which a new version is watched before an update is final."""
    module_check: bool = True
    """Whether it is looked once a day for updates of modules."""

    @property
    def store_embedded(self) -> bool:
        return self.store == EMBEDDED

    @property
    def suite_embedded(self) -> bool:
        return self.suite_database == EMBEDDED

    def min_free(self, total: int) -> int:
        """Return bytes that must be free, of TOTAL of the disk of the embedded store, for entries to be stored; 0 for
        none.
        """
        return min(-(-total * self.min_free_percent // 100), self.min_free_size) if self.store_embedded else 0

    def taken_ports(self) -> dict[int, str]:
        """Return ports that no service may have, with their users."""
        taken = {self.port: "helmd"}
        if self.suite_embedded:
            taken[self.suite_database_port] = "the suite's PostgreSQL"
        return taken

    def store_conninfo(self, layout: Layout, owner: bool = False) -> str:
        """Return how helmd reaches the log store: as the role that inserts and selects, or as the one that owns the
        schema.
        """
        if not self.store_embedded:
            return self.store
        user = "helm_owner" if owner else "helm"
        return f"host={layout.store_socket} port=5432 dbname=helm user={user}"


_ATTRIBUTES = {
    "http.listen": "listen",
    "http.port": "port",
    "http.url": "url",
    "store.database": "store",
    "suite.database": "suite_database",
    "suite.database_port": "suite_database_port",
    "suite.mode": "mode",
    "monitor.interval": "monitor_interval",
    "logs.retention": "retention",
    "logs.min_free_percent": "min_free_percent",
    "logs.min_free_size": "min_free_size",
    "core.url": "core",
    "ingest.anonymous": "ingest_anonymous",
    "ingest.rate": "ingest_rate",
    "ingest.burst": "ingest_burst",
    "roles.billing.services": "billing_services",
    "http.trusted_units": "trusted_units",
    "http.trusted_proxies": "trusted_proxies",
    "session.read_only": "session_read_only",
    "session.idle": "session_idle",
    "session.longest": "session_longest",
    "backup.directory": "backup_directory",
    "backup.keep": "backup_keep",
    "backup.keep_days": "backup_keep_days",
    "backup.schedule": "backup_schedule",
    "backup.include_logs": "backup_logs",
    "backup.recipients": "backup_recipients",
    "modules.files": "module_files",
    "modules.max_size": "module_max_size",
    "modules.build_timeout": "module_build_timeout",
    "modules.check": "module_check",
    "modules.gate": "module_gate",
}


def read_settings_files(sources: Sequence[ConfigSource]) -> Settings:
    """Return the settings that SOURCES give, later ones overriding. Raises ConfigurationError with every fault."""
    faults: list[Fault] = []
    given: dict[str, Given] = {}
    reader = SettingsReader(HELM_SETTINGS)
    for source in sources:
        tables, lines = parse_toml(source, faults)
        given |= reader.read(tables, (), source.file, lines, faults)
    if faults:
        raise ConfigurationError(faults)
    values = {_ATTRIBUTES[key]: item.value for key, item in given.items()}
    if "listen" in values and not _is_loopback(values["listen"]) and not values.get("trusted_proxies"):
        place = given["http.listen"]
        raise ConfigurationError([Fault(place.file, place.line, "http.listen", _NO_TLS.format(values["listen"]))])
    if "url" not in values and "port" in values:
        values["url"] = f"http://localhost:{values['port']}"
    return Settings(**values)


_NO_TLS = (
    "{} is reached from other hosts, and helmd has no TLS of its own: set http.trusted_proxies to the address of the "
    "reverse proxy that has, or use 127.0.0.1"
)


def _is_loopback(address: str) -> bool:
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"
