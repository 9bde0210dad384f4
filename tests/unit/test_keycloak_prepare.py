"""When Keycloak is built and from which input, with a build script that records its arguments and environment."""

import subprocess
from pathlib import Path

import pytest

from helmd.keycloak import launch, prepare
from tests.waiting import WITHIN


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for name in ("bin", "conf", "data", "lib/quarkus", "providers"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "version.txt").write_text("Keycloak - Version 26.4.0\n")
    (tmp_path / "conf/keycloak.conf").write_text("#db=postgres\n")
    (tmp_path / "lib/quarkus/app.jar").write_text("shipped")
    write_build_script(tmp_path, "exit 0")
    return tmp_path


def write_build_script(home: Path, ending: str) -> None:
    """Write a kc.sh that records arguments, environment and the original jar, changes the jar and runs ENDING."""
    script = home / "bin/kc.sh"
    script.write_text(
        '#!/bin/sh\ncd "${0%/*}/.." || exit 9\n'
        'echo "$* from $(cat lib/quarkus/app.jar)" >>data/builds\nenv >data/environment\n'
        f"echo built >lib/quarkus/app.jar\necho half >lib/quarkus/rest.jar\n{ending}\n"
    )
    script.chmod(0o755)


ENVIRONMENT = {
    **launch.keycloak_environment(8080, "127.0.0.1:5499/keycloak", "https://desk.example/keycloak"),
    "PATH": "/usr/bin:/bin",
    "KC_DB_PASSWORD": "secret one",
    "KC_BOOTSTRAP_ADMIN_PASSWORD": "secret two",
}


def run(home: Path, environment: dict[str, str] = ENVIRONMENT) -> int:
    """Run prepare.py as the unit does; return its exit status."""
    program = ["/usr/bin/python3", "-I", "-S", prepare.__file__, str(home), "/usr/bin/java"]
    return subprocess.run(program, env=environment, check=False, timeout=WITHIN).returncode


def count(home: Path) -> int:
    return len((home / "data/builds").read_text().splitlines())


def test_one_build_serves_both_modes_and_gets_no_secrets(home: Path) -> None:
    assert run(home) == 0
    assert run(home, ENVIRONMENT | {"KC_HTTP_PORT": "8081", "KC_DB_PASSWORD": "new", "KC_LOG_LEVEL": "debug"}) == 0
    assert (home / "data/builds").read_text() == "build --db=postgres from shipped\n"
    seen = (home / "data/environment").read_text()
    assert "secret" not in seen and "JAVA=/usr/bin/java" in seen and "KC_DB=postgres" in seen


def test_build_is_repeated_when_its_input_changes(home: Path) -> None:
    run(home)
    (home / "conf/keycloak.conf").write_text("metrics-enabled=true\n")
    run(home)
    assert count(home) == 2
    (home / "providers/theirs.jar").write_text("x")
    run(home)
    assert count(home) == 3
    run(home, ENVIRONMENT | {"KC_FEATURES": "passkeys"})
    assert count(home) == 4
    (home / "version.txt").write_text("Keycloak - Version 26.4.1\n")
    run(home, ENVIRONMENT | {"KC_FEATURES": "passkeys"})
    assert count(home) == 5


def test_failed_or_killed_build_restarts_from_the_shipped_jars(home: Path) -> None:
    write_build_script(home, "exit 3")
    assert run(home) == 1
    write_build_script(home, "kill -9 $PPID; kill -9 $$")
    assert run(home) == -9
    write_build_script(home, "exit 0")
    assert run(home) == 0
    assert run(home) == 0
    assert (home / "data/builds").read_text() == "build --db=postgres from shipped\n" * 3


def test_both_modes_share_the_data_but_not_the_command() -> None:
    home = Path("/srv/keycloak-26.4.0")
    development, production = launch.command(home, "development", {}), launch.command(home, "production", {})
    assert development[-1:] == ("start-dev",) and production[-2:] == ("start", "--optimized")
    c1_only = "-XX:TieredStopAtLevel=1"
    assert [word for word in development[:-1] if word != c1_only] == list(production[:-2])
    assert c1_only not in production
    values = launch.keycloak_environment(8080, "127.0.0.1:5499/keycloak", "https://desk.example/keycloak")
    assert values["KC_DB_URL"] == "jdbc:postgresql://127.0.0.1:5499/keycloak"
    assert not set(values) & {*launch.SECRETS, *launch.BOOTSTRAP_SECRETS}
    assert values["KC_HOSTNAME"] == "https://desk.example/keycloak"


def test_a_temporary_admin_is_made_without_a_secret_in_the_command() -> None:
    home = Path("/srv/keycloak-26.4.0")
    words = launch.bootstrap_command(home, {"JAVA_OPTS_APPEND": "-Dx=1"})
    assert words[0] == "/usr/bin/java" and "-Dx=1" in words
    assert words[words.index("bootstrap-admin") :] == (
        *("bootstrap-admin", "user", "--username:env", launch.BOOTSTRAP_USERNAME),
        *("--password:env", launch.BOOTSTRAP_PASSWORD, "--no-prompt", "--optimized"),
    )
