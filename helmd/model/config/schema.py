"""Every setting of ``helm.toml``, declared once: key, meaning, default, reader. `service_schema` beside it has those of
``services.toml``.

The parser, the manual pages and the tests of the documentation all read these tables.
"""

from helmd.model.config import validators as values
from helmd.model.config.backup_schema import BACKUP_SETTINGS
from helmd.model.config.install_schema import MODULE_SETTINGS
from helmd.model.config.setting import Setting

_seconds = "duration"

HELM_SETTINGS = (
    Setting(
        "http.listen",
        values.text,
        "address",
        "127.0.0.1",
        "The address on which helmd serves. One that other hosts reach needs http.trusted_proxies: helmd has no TLS.",
    ),
    Setting("http.port", values.integer(1, 65535), "port", "5004", "The port on which helmd serves."),
    Setting(
        "http.url",
        values.url,
        "URL",
        "http://localhost:PORT",
        "The URL at which other services reach helmd, and browsers log in.",
    ),
    Setting(
        "http.trusted_units",
        values.service_units,
        "list of units",
        "[]",
        "Services of the account's user manager from which requests may change something, besides the gateway; a name "
        'may be a pattern (glob(7)): ["backup.service", "app-firefox@*.service"]. See PEERS in helmd(8).',
    ),
    Setting(
        "http.trusted_proxies",
        values.networks,
        "list of addresses",
        "[]",
        "Addresses and networks of reverse proxies (192.0.2.7, 2001:db8::/64). Of them X-Forwarded headers are "
        "believed, browsers may log in at helmd itself through them, and from other hosts they may pass on requests of "
        "users that change something. They must set X-Forwarded-For and X-Forwarded-Proto, and keep Host.",
    ),
    Setting(
        "store.database",
        values.dsn,
        "DSN",
        "embedded",
        "Where logs, states and metrics are kept: embedded (a private PostgreSQL), or a postgresql:// URI.",
    ),
    Setting(
        "logs.retention",
        values.retention,
        "7 | 30 | 90 | 365",
        "90",
        "How many days log entries are kept, for services that do not set their own retention.",
    ),
    Setting(
        "logs.min_free_percent",
        values.integer(0, 50),
        "percent",
        "10",
        "Free space on the disk of the embedded store below which entries wait in the journal; 0 disables this.",
    ),
    Setting(
        "logs.min_free_size",
        values.size,
        "size",
        "10G",
        "As much free space is enough on a large disk, where logs.min_free_percent would be more.",
    ),
    Setting(
        "suite.database",
        values.dsn,
        "DSN",
        "embedded",
        "Where services with database = true get theirs: embedded, or the postgresql:// URI of an admin role.",
    ),
    Setting(
        "suite.database_port",
        values.integer(1024, 65535),
        "port",
        "5499",
        "The port of the suite's embedded PostgreSQL: in the name of its socket, and on 127.0.0.1 for Keycloak.",
    ),
    Setting(
        "suite.mode",
        values.choice("development", "production"),
        "choice",
        "development",
        "The mode in which a service is first rendered.",
    ),
    Setting("monitor.interval", values.duration, _seconds, "15s", "How often metrics are taken."),
    Setting(
        "core.url",
        values.url,
        "URL",
        "that of the service core",
        "The URL at which helmd gets Core's keys and checks whether sessions are still valid.",
    ),
    Setting(
        "ingest.anonymous",
        values.choice("no", "loopback"),
        "choice",
        "no",
        "Whether log entries and metrics are accepted without a token: from nobody, or from programs on this machine. "
        "A proxy on this machine must add X-Forwarded-For; otherwise its clients count as such programs.",
    ),
    Setting(
        "ingest.rate",
        values.integer(1, 10_000_000),
        "entries a second",
        "20000",
        "How many log entries and measurements each caller (a service, a user, all those without a token together) may "
        "post on average, under whatever names. Above that, requests with an Idempotency-Key are refused with status "
        "429, and others are delayed.",
    ),
    Setting(
        "ingest.burst",
        values.integer(1, 100_000_000),
        "entries",
        "200000",
        "How many it may post at once after a pause.",
    ),
    Setting(
        "roles.billing.services",
        values.names,
        "list of names",
        "[]",
        "The services whose logs users with the role billing may read.",
    ),
    Setting(
        "session.read_only",
        values.duration,
        _seconds,
        "30min",
        "After how long without activity the session of a browser that has logged in at helmd may only read. What a "
        "page fetches by itself does not count.",
    ),
    Setting("session.idle", values.duration, _seconds, "8h", "After how long without activity such a session ends."),
    Setting("session.longest", values.duration, _seconds, "12h", "How long after its login such a session ends."),
    *BACKUP_SETTINGS,
    *MODULE_SETTINGS,
)
