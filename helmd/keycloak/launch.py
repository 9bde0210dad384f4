"""How Keycloak is run: its Java command line and environment, in both modes, on the suite's PostgreSQL.

``kc.sh`` would stay behind as the parent of Java, take the signals and hide the exit code, so Java is started as it
would start it (version 26.4.0), and ``prepare.py`` has built it before.
"""

import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from helmd.model.suite.names import Mode

JAVA = Path("/usr/bin/java")
ADMIN = "admin"

_POOL = 20

SECRETS: Mapping[str, Callable[[], str]] = {
    "KC_DB_PASSWORD": lambda: secrets.token_urlsafe(32),
    "KC_BOOTSTRAP_ADMIN_USERNAME": lambda: ADMIN,
    "KC_BOOTSTRAP_ADMIN_PASSWORD": lambda: secrets.token_urlsafe(24),
}
"""What Keycloak's environment file holds, and how each is made when it is missing."""


def keycloak_environment(http_port: int, database: str, hostname: str | None = None) -> dict[str, str]:
    """The unit's environment without its secrets, the same in both modes, so that a mode switch keeps the data.

    DATABASE is HOST:PORT/NAME of its PostgreSQL. HOSTNAME is the URL under which browsers see Keycloak; without one it
    believes the gateway's X-Forwarded headers.
    """
    values = {
        "KC_DB": "postgres",
        "KC_DB_URL": f"jdbc:postgresql://{database}",
        "KC_DB_USERNAME": "keycloak",
        # Its default of 100 would be all the connections that the suite's cluster has.
        "KC_DB_POOL_MAX_SIZE": str(_POOL),
        "KC_HTTP_ENABLED": "true",
        "KC_HTTP_HOST": "127.0.0.1",
        "KC_HTTP_PORT": str(http_port),
        "KC_PROXY_HEADERS": "xforwarded",
        "KC_CACHE": "local",
        "KC_LOG": "console",
        "KC_LOG_CONSOLE_COLOR": "false",
    }
    if hostname:
        values |= {"KC_HOSTNAME": hostname, "KC_HOSTNAME_BACKCHANNEL_DYNAMIC": "true"}
    else:
        values["KC_HOSTNAME_STRICT"] = "false"
    return values


def command(home: Path, mode: Mode, java: Path = JAVA, heap: int = 512) -> Sequence[str]:
    """The command line of the server in HOME; HEAP is the most memory for its objects in MiB, of about twice in all."""
    return (
        str(java),
        # The build has been made: neither mode is to check for it, nor to make it and want to be started again.
        "-Dkc.config.built=true",
        # Started and stopped often: 26 % sooner up and 40 MB smaller, for less speed under load (2 cores, 26.4.0).
        *(("-XX:TieredStopAtLevel=1",) if mode == "development" else ()),
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
        "-Xms64m",
        f"-Xmx{heap}m",
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
        "-cp",
        str(home / "lib" / "quarkus-run.jar"),
        "io.quarkus.bootstrap.runner.QuarkusEntryPoint",
        *(("start", "--optimized") if mode == "production" else ("start-dev",)),
    )
