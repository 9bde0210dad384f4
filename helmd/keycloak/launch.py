"""Keycloak's Java command line and environment, in both modes, on the suite's PostgreSQL.

Java is started directly, with the arguments that ``kc.sh`` of 26.4.0 passes: ``kc.sh`` would remain as its parent,
receive the signals and hide the exit code. ``prepare.py`` runs the build beforehand.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from helmd.files.environment_file import new_secret
from helmd.model.suite.names import KEYCLOAK_PASSWORD, Mode

JAVA = Path("/usr/bin/java")
ADMIN = "admin"

WRITABLE = ("data", "lib/quarkus")
"""Directories of the distribution that Keycloak writes to: ``data`` at run time, ``lib/quarkus`` in a build."""

_POOL = 20

BOOTSTRAP_USERNAME = "KC_BOOTSTRAP_ADMIN_USERNAME"
BOOTSTRAP_PASSWORD = "KC_BOOTSTRAP_ADMIN_PASSWORD"

SECRETS: Mapping[str, Callable[[], str]] = {KEYCLOAK_PASSWORD: new_secret}
"""The variables in Keycloak's environment file, with the function that generates a missing value."""
BOOTSTRAP_SECRETS: Mapping[str, Callable[[], str]] = {
    BOOTSTRAP_USERNAME: lambda: ADMIN,
    BOOTSTRAP_PASSWORD: lambda: new_secret(24),
}
"""Those of the temporary admin that Keycloak makes with its realm master, until `helmctl keycloak setup` removes it."""


def keycloak_environment(http_port: int, database: str, hostname: str) -> dict[str, str]:
    """Return the unit's environment without secrets. It is the same in both modes, so a mode switch keeps the data.

    DATABASE is HOST:PORT/NAME of its PostgreSQL database. HOSTNAME is the URL under which browsers reach Keycloak.
    """
    return {
        "KC_DB": "postgres",
        "KC_DB_URL": f"jdbc:postgresql://{database}",
        "KC_DB_USERNAME": "keycloak",
        # The default of 100 would use up all connections of the suite's cluster.
        "KC_DB_POOL_MAX_SIZE": str(_POOL),
        "KC_HTTP_ENABLED": "true",
        "KC_HTTP_HOST": "127.0.0.1",
        "KC_HTTP_PORT": str(http_port),
        "KC_PROXY_HEADERS": "xforwarded",
        "KC_CACHE": "local",
        "KC_LOG": "console",
        "KC_LOG_CONSOLE_COLOR": "false",
        "KC_HOSTNAME": hostname,
        # Services of this machine ask it at its port.
        "KC_HOSTNAME_BACKCHANNEL_DYNAMIC": "true",
    }


def command(home: Path, mode: Mode, environment: Mapping[str, str], java: Path = JAVA) -> Sequence[str]:
    """Return the command line of the server installed in HOME.

    ENVIRONMENT is what the configuration sets. As with ``kc.sh``, Java's options in JAVA_OPTS_KC_HEAP replace those for
    the heap (512 MiB; the process as a whole takes about twice as much), and those in JAVA_OPTS_APPEND come last.
    """
    words = ("start", "--optimized") if mode == "production" else ("start-dev",)
    return _java(home, environment, java, mode == "development", words)


def bootstrap_command(home: Path, environment: Mapping[str, str], java: Path = JAVA) -> Sequence[str]:
    """Return the command line that makes a temporary admin of the realm master while the server is stopped.

    Name and password are read from the variables of `BOOTSTRAP_SECRETS`, so they are not in it.
    """
    words = ("--username:env", BOOTSTRAP_USERNAME, "--password:env", BOOTSTRAP_PASSWORD, "--no-prompt", "--optimized")
    return _java(home, environment, java, True, ("bootstrap-admin", "user", *words))


def _java(
    home: Path, environment: Mapping[str, str], java: Path, short_lived: bool, words: Sequence[str]
) -> Sequence[str]:
    heap = environment.get("JAVA_OPTS_KC_HEAP", "-Xms64m -Xmx512m").split()
    appended = environment.get("JAVA_OPTS_APPEND", "").split()
    return (
        str(java),
        # prepare.py has run the build. Without this, the server would build again and ask to be restarted.
        "-Dkc.config.built=true",
        # Starts 26 % faster and takes 40 MB less memory, but is slower under load (2 cores, 26.4.0).
        *(("-XX:TieredStopAtLevel=1",) if short_lived else ()),
        "-XX:MetaspaceSize=96M",
        "-XX:MaxMetaspaceSize=256m",
        "-Dfile.encoding=UTF-8",
        "-Dsun.stdout.encoding=UTF-8",
        "-Dsun.err.encoding=UTF-8",
        "-Dstdout.encoding=UTF-8",
        "-Dstderr.encoding=UTF-8",
        "-XX:+ExitOnOutOfMemoryError",
        "-Djava.security.egd=file:/dev/urandom",
        "-XX:+UseG1GC",
        *heap,
        "--add-opens=java.base/java.util=ALL-UNNAMED",
        "--add-opens=java.base/java.util.concurrent=ALL-UNNAMED",
        "--add-opens=java.base/java.security=ALL-UNNAMED",
        "-Duser.language=en",
        "-Duser.country=US",
        "-Djava.util.concurrent.ForkJoinPool.common.threadFactory="
        "io.quarkus.bootstrap.forkjoin.QuarkusForkJoinWorkerThreadFactory",
        f"-Dkc.home.dir={home}",
        f"-Djboss.server.config.dir={home / 'conf'}",
        "-Djava.util.logging.manager=org.jboss.logmanager.LogManager",
        "-Dpicocli.disable.closures=true",
        "-Dquarkus-log-max-startup-records=10000",
        *appended,
        "-cp",
        str(home / "lib" / "quarkus-run.jar"),
        "io.quarkus.bootstrap.runner.QuarkusEntryPoint",
        *words,
    )
