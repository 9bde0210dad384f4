"""Every setting of ``services.toml``, declared once, as those of ``helm.toml`` in `helmd.model.config.schema`."""

from helmd.model.config import validators as values
from helmd.model.config.backup_schema import SHARED_SETTINGS
from helmd.model.config.file_format import FORMATS
from helmd.model.config.install_schema import INSTALL_SETTINGS
from helmd.model.config.setting import Setting
from helmd.model.suite.names import DATABASE_CONNECTIONS, KEYCLOAK_START_SECONDS

_seconds = "duration"

SERVICE_SETTINGS = (
    Setting(
        "type",
        values.choice("python", "keycloak", "command", "oneshot", "external"),
        "choice",
        "python",
        "What kind of service it is: python (a checkout with run.py and a virtual environment), keycloak, command "
        "(any program that stays in the foreground), oneshot (a program that runs to its end; see ONESHOT SERVICES), "
        "or external (probed and shown, never controlled).",
    ),
    Setting(
        "schedule",
        values.schedule,
        "calendar event",
        "none",
        'When a oneshot runs: "daily", "Mon..Fri 03:00", or another calendar event of systemd.time(7) (OnCalendar=).',
    ),
    Setting(
        "run_timeout",
        values.duration,
        _seconds,
        "no limit",
        "How long a run of a oneshot may take, and its pre_start besides (TimeoutStartSec=).",
    ),
    Setting("description", values.text, "text", "the name", "A description on one line."),
    Setting("url", values.url, "URL", "http://localhost:PORT", "The URL at which other services reach it."),
    Setting("port", values.integer(1, 65535), "port", "none", "The TCP port it listens on."),
    Setting(
        "path",
        values.path,
        "path",
        "hivematrix-NAME",
        "Its directory: absolute, below ~/, or relative to ~/.local/share/hivematrix.",
    ),
    Setting("python_bin", values.path, "path", "pyenv/bin/python", "Its interpreter, relative to path or below ~/."),
    Setting("run_script", values.path, "path", "run.py", "What the interpreter runs, relative to path."),
    Setting(
        "start_command",
        values.words,
        "words",
        "none",
        "The command line of a service that is not python; a program with a slash is relative to path, or below ~/. No "
        "shell reads it, so $NAME, && and > are words like others.",
    ),
    Setting(
        "pre_start",
        values.words,
        "words",
        "none",
        "A command that runs before each start, in the same sandbox and environment; if it fails, so does the start "
        "(ExecStartPre=).",
    ),
    Setting(
        "reload_command",
        values.words,
        "words",
        "none",
        "The command of helmctl reload (ExecReload=), which ends once the service has reloaded. The word $MAINPID is "
        'the pid of the service: ["kill", "-HUP", "$MAINPID"].',
    ),
    Setting(
        "stop_signal",
        values.stop_signal,
        "signal",
        "SIGTERM",
        "The signal that asks its main process to end (KillSignal=): SIGQUIT for nginx and php-fpm, which finish their "
        "requests then, SIGWINCH for Apache, SIGINT for PostgreSQL. Also SIGHUP, SIGUSR1 and SIGUSR2.",
    ),
    Setting("visible", values.boolean, "boolean", "true", "Whether the gateway shows it to users."),
    Setting("admin_only", values.boolean, "boolean", "false", "Whether the gateway shows it to admins only."),
    Setting(
        "billing_or_admin_only",
        values.boolean,
        "boolean",
        "false",
        "Whether the gateway shows it to billing and admins only.",
    ),
    Setting(
        "depends_on",
        values.names,
        "list of names",
        "[]",
        "Services that must be healthy, or in the case of a oneshot must have succeeded, before it starts.",
    ),
    Setting(
        "database",
        values.boolean,
        "boolean",
        "false",
        "Whether it gets a PostgreSQL database and role of its own, and their URI in its environment; see DATABASES.",
    ),
    Setting(
        "database_variable",
        values.variable,
        "variable",
        "DATABASE_URL",
        "The environment variable that holds that URI.",
    ),
    Setting(
        "database_name",
        values.database_name,
        "name",
        "the service's name",
        "The name of that database. Its role always has the service's name.",
    ),
    Setting(
        "database_config.file",
        values.path,
        "path",
        "none",
        "A configuration file below path that gets the URI as well, for a program that reads no environment variable.",
    ),
    Setting(
        "database_config.format",
        values.choice(*FORMATS),
        "choice",
        "by the file's name",
        "What kind of file it is: ini, env (lines VARIABLE=value), json or toml.",
    ),
    Setting(
        "database_config.section",
        values.section,
        "text",
        "none",
        "The section or table of the setting; of nested ones, their names with dots between.",
    ),
    Setting("database_config.key", values.key, "text", "none", "The setting that gets the URI."),
    Setting(
        "database_config.scheme",
        values.database_scheme,
        "text",
        "postgresql",
        "The scheme of the URI there. SQLAlchemy takes the driver from it (postgresql+psycopg2); without, 2.1 wants "
        "psycopg, earlier versions psycopg2.",
    ),
    Setting(
        "secrets",
        values.variables,
        "list of variables",
        "[]",
        "Variables that get a random value in secrets/NAME.env, unless .flaskenv in its directory sets them.",
    ),
    Setting(
        "flaskenv",
        values.flaskenv,
        "table",
        "{}",
        "Variables that are added to .flaskenv in its directory where it does not set them. {NAME.url} and "
        "{NAME.realm} stand for settings of the service NAME; without such a service, the variable is left out. "
        "{keycloak.client_secret} stands for what helmctl keycloak setup puts there.",
    ),
    Setting(
        "services_json",
        values.boolean,
        "boolean",
        "true for python",
        "Whether services.json, the URLs of all services, is put into its directory.",
    ),
    Setting(
        "database_connections",
        values.integer(1, 1000),
        "number",
        str(DATABASE_CONNECTIONS),
        "How many connections to the embedded PostgreSQL it may hold at once (CONNECTION LIMIT). Helm sets "
        "max_connections so that all services get theirs; that takes effect with the next restart of postgres.",
    ),
    Setting(
        "port_variable",
        values.variable,
        "variable",
        "PORT",
        "The environment variable in which a service with a port finds it.",
    ),
    Setting(
        "realm", values.realm, "text", "hivematrix", "For keycloak: the realm whose discovery document is requested."
    ),
    Setting(
        "streams",
        values.choice("split", "merged"),
        "choice",
        "split",
        "Whether stdout and stderr are kept apart (then lines of the two can be out of order by one) or merged.",
    ),
    Setting(
        "on_unhealthy",
        values.choice("show", "restart"),
        "choice",
        "show",
        "What helmd does when the health check of a running service keeps failing: show it, or restart the service.",
    ),
    Setting(
        "unhealthy_after",
        values.integer(1, 1000),
        "number",
        "4",
        "After how many failed checks in a row it is restarted.",
    ),
    Setting(
        "retention",
        values.retention,
        "7 | 30 | 90 | 365",
        "logs.retention in helm.toml",
        "How many days its log entries are kept.",
    ),
    Setting(
        "success_exit_status",
        values.numbers(0, 255),
        "list of numbers",
        "[] (keycloak: [143])",
        "Exit codes other than 0 that count as success (SuccessExitStatus=).",
    ),
    Setting(
        "hardening",
        values.choice("default", "strict", "basic", "off"),
        "choice",
        "default",
        "The sandbox of its unit: default, strict, basic (only what needs no user namespace), or off; see HARDENING.",
    ),
    Setting(
        "writable_paths", values.paths, "list of paths", "[]", "Paths that it may write to, besides its own directory."
    ),
    Setting(
        "readable_paths",
        values.paths,
        "list of paths",
        "[]",
        "Paths below home directories that it may read. Interpreters, virtual environments and what they are based on "
        "are found without this. Refused are directories with which a program can act as the account, such as ~/.ssh.",
    ),
    Setting(
        "environment",
        values.environment,
        "table",
        "{}",
        "Environment variables. Secrets belong in secrets/NAME.env instead.",
    ),
    Setting(
        "health.check",
        values.choice("http", "realm", "port", "process"),
        "choice",
        "http with a port, process without, realm for keycloak",
        "The health check: an HTTP request, the realm's discovery document, a TCP connection, or a running process.",
    ),
    Setting("health.path", values.url_path, "path", "/health", "The path that is requested while it runs."),
    Setting("health.start_path", values.url_path, "path", "health.path", "The path that is requested while it starts."),
    Setting(
        "health.expect", values.numbers(100, 599), "list of numbers", "any 2xx", "HTTP status codes that mean healthy."
    ),
    Setting(
        "health.requires",
        values.check_names,
        "list of names",
        "[]",
        "Checks that its answer must name; without one it is degraded. For what a program does not check where it is "
        "not set up, although its users get errors then.",
    ),
    Setting(
        "health.verify_tls", values.boolean, "boolean", "false", "Whether an https check verifies the certificate."
    ),
    Setting("health.timeout", values.duration, _seconds, "2s", "How long one check may take."),
    Setting(
        "health.start_timeout",
        values.duration,
        _seconds,
        f"60s (keycloak: {KEYCLOAK_START_SECONDS:g}s)",
        "How long a start may take.",
    ),
    Setting(
        "health.interval",
        values.duration,
        _seconds,
        "15s",
        "How often helmd checks it; the checks of all services are spread over the time. Checks that keep failing are "
        "made less and less often, down to once a minute.",
    ),
    Setting("limits.memory_high", values.size, "size", "none", "Memory above which it is throttled (MemoryHigh=)."),
    Setting("limits.memory_max", values.size, "size", "none", "Memory above which it is killed (MemoryMax=)."),
    Setting("limits.cpu_percent", values.percent, "percent", "none", "Share of one CPU (CPUQuota=)."),
    Setting("limits.tasks", values.integer(1, 1_000_000), "number", "none", "Threads and processes (TasksMax=)."),
    Setting("limits.open_files", values.integer(16, 10_000_000), "number", "none", "Open files (LimitNOFILE=)."),
    Setting(
        "restart.policy",
        values.choice("no", "on-failure", "always"),
        "choice",
        "on-failure (oneshot: no)",
        "When systemd restarts it (Restart=).",
    ),
    Setting("restart.delay", values.duration, _seconds, "1s", "Delay before a restart (RestartSec=)."),
    Setting(
        "restart.burst",
        values.integer(1, 1000),
        "number",
        "5",
        "Number of starts that are allowed in restart.within (StartLimitBurst=).",
    ),
    Setting(
        "restart.within",
        values.duration,
        _seconds,
        "long enough for restart.burst starts that time out",
        "The interval in which starts are counted (StartLimitIntervalSec=). Starts that fail more slowly than "
        "restart.within / restart.burst are repeated without end.",
    ),
    Setting(
        "restart.stop_timeout",
        values.duration,
        _seconds,
        "10s",
        "How long it may take to stop before it is killed (TimeoutStopSec=).",
    ),
    *SHARED_SETTINGS,
    *INSTALL_SETTINGS,
    Setting(
        "development.start_command", values.words, "words", "start_command", "The command line in development mode."
    ),
    Setting("development.environment", values.environment, "table", "{}", "Variables added in development mode."),
    Setting("production.start_command", values.words, "words", "start_command", "The command line in production mode."),
    Setting("production.environment", values.environment, "table", "{}", "Variables added in production mode."),
)
