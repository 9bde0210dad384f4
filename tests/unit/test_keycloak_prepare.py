"""When Keycloak is built, and from what; with a build program that only says what it was given."""

import subprocess
from pathlib import Path

import pytest

from helmd.keycloak import launch, prepare


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for name in ("bin", "conf", "data", "lib/quarkus", "providers"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "version.txt").write_text("Keycloak - Version 26.4.0\n")
    (tmp_path / "conf/keycloak.conf").write_text("#db=postgres\n")
    (tmp_path / "lib/quarkus/app.jar").write_text("shipped")
    builds(tmp_path, "exit 0")
    return tmp_path


def builds(home: Path, ending: str) -> None:
    """Notes arguments, environment and what jar it began from; then changes the jar, as a build does."""
    script = home / "bin/kc.sh"
    script.write_text(
        '#!/bin/sh\ncd "${0%/*}/.." || exit 9\n'
        'echo "$* from $(cat lib/quarkus/app.jar)" >>data/builds\nenv >data/environment\n'
        f"echo built >lib/quarkus/app.jar\necho half >lib/quarkus/rest.jar\n{ending}\n"
    )
    script.chmod(0o755)


ENVIRONMENT = {
    **launch.keycloak_environment(8080, "127.0.0.1:5499/keycloak"),
    "PATH": "/usr/bin:/bin",
    "KC_DB_PASSWORD": "secret one",
    "KC_BOOTSTRAP_ADMIN_PASSWORD": "secret two",
}


def run(home: Path, environment: dict[str, str] = ENVIRONMENT) -> int:
    """As the unit runs it."""
    program = ["/usr/bin/python3", "-I", "-S", prepare.__file__, str(home), "/usr/bin/java"]
    return subprocess.run(program, env=environment, check=False, timeout=20).returncode


def count(home: Path) -> int:
    return len((home / "data/builds").read_text().splitlines())


def test_built_once_for_both_modes_and_without_secrets(home: Path) -> None:
    assert run(home) == 0
    assert run(home, ENVIRONMENT | {"KC_HTTP_PORT": "8081", "KC_DB_PASSWORD": "new", "KC_LOG_LEVEL": "debug"}) == 0
    assert (home / "data/builds").read_text() == "build --db=postgres from shipped\n"
    seen = (home / "data/environment").read_text()
    assert "secret" not in seen and "JAVA=/usr/bin/java" in seen and "KC_DB=postgres" in seen


def test_built_again_when_something_that_goes_into_it_changed(home: Path) -> None:
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


def test_failed_or_killed_build_begins_anew_from_what_was_shipped(home: Path) -> None:
    builds(home, "exit 3")
    assert run(home) == 1
    builds(home, "kill -9 $PPID; kill -9 $$")
    assert run(home) == -9
    builds(home, "exit 0")
    assert run(home) == 0
    assert run(home) == 0
    assert (home / "data/builds").read_text() == "build --db=postgres from shipped\n" * 3


def test_both_modes_run_the_same_data_with_different_commands() -> None:
    home = Path("/srv/keycloak-26.4.0")
    development, production = launch.command(home, "development"), launch.command(home, "production")
    assert development[-1:] == ("start-dev",) and production[-2:] == ("start", "--optimized")
    quicker = "-XX:TieredStopAtLevel=1"
    assert [word for word in development[:-1] if word != quicker] == list(production[:-2])
    assert quicker not in production
    values = launch.keycloak_environment(8080, "127.0.0.1:5499/keycloak")
    assert values["KC_DB_URL"] == "jdbc:postgresql://127.0.0.1:5499/keycloak"
    assert not set(values) & set(launch.SECRETS)
    assert (
        launch.keycloak_environment(8080, "127.0.0.1:5499/keycloak", "https://sso.example")["KC_HOSTNAME"]
        == "https://sso.example"
    )
