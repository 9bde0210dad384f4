"""Environment variables: what the configuration sets reaches the service, or is refused with the reason."""

import re
from pathlib import Path

import pytest

from helmd.health.target import probe_of
from helmd.keycloak.launch import keycloak_environment
from helmd.model.config.settings import Settings
from helmd.model.errors import ConfigurationError
from helmd.model.layout import layout
from helmd.model.suite.names import Mode
from helmd.systemd.host import Host
from helmd.systemd.render import Setup, render, template_environment
from tests.catalogue import suite

TOP = Path(__file__).resolve().parents[2]
TEMPLATES = template_environment(TOP / "units")


def environment(text: str, name: str, mode: Mode = "production") -> dict[str, str]:
    """Return the variables in the unit of service NAME, in a suite of TEXT."""
    registry = suite(text)
    given = {"keycloak": keycloak_environment(8080, "127.0.0.1:5499/keycloak", "https://localhost/keycloak")}
    setup = Setup(layout({}, Path("/home/hive"), 1000, TOP), Settings(), Host(252, True), "hive", given)
    unit = render(registry[name], registry, mode, setup, TEMPLATES)
    return dict(line.split("=", 1) for line in re.findall(r'^Environment="(.*)"$', unit, re.MULTILINE))


def refused(text: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        suite(text)
    return [f"{fault.where}: {fault.sentence}" for fault in caught.value.faults]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("KC_PROXY_HEADERS", "forwarded"),
        ("KC_DB_POOL_MAX_SIZE", "35"),
        ("KC_HTTP_HOST", "0.0.0.0"),
        ("KC_HOSTNAME", "https://login.example/sso"),
        ("KC_CACHE", "ispn"),
        ("KC_DB_URL", "jdbc:postgresql://db.example.org/logins"),
        ("KC_LOG_LEVEL", "debug"),
    ],
)
def test_what_is_set_for_keycloak_wins_over_what_is_computed(name: str, value: str) -> None:
    text = f'[services.keycloak.environment]\n{name} = "{value}"'
    assert environment(text, "keycloak")[name] == value
    only = f'[services.keycloak.production.environment]\n{name} = "{value}"'
    assert environment(only, "keycloak")[name] == value
    assert environment(only, "keycloak", "development").get(name) != value


def test_setting_a_variable_to_its_default_changes_no_unit() -> None:
    text = '[services.keycloak.environment]\nKC_DB_POOL_MAX_SIZE = "20"\nKC_CACHE = "local"\nHELLO = "1"'
    assert list(environment(text, "keycloak")) == sorted(environment(text, "keycloak"))
    assert {**environment("[services.keycloak]", "keycloak"), "HELLO": "1"} == environment(text, "keycloak")


@pytest.mark.parametrize("value", ["/auth", "/auth/", "/sso/login"])
def test_keycloak_is_asked_below_its_relative_path(value: str) -> None:
    registry = suite(f'[services.keycloak.environment]\nKC_HTTP_RELATIVE_PATH = "{value}"')
    path = value.rstrip("/")
    for starting in (True, False):
        asked = probe_of(registry["keycloak"], starting).url
        assert asked.endswith(f":8080{path}/realms/hivematrix/.well-known/openid-configuration")
    assert registry["keycloak"].url == f"http://localhost:8080{path}"


def test_a_url_of_keycloak_that_is_set_stays() -> None:
    text = '[services.keycloak]\nurl = "https://login.example.org:8080/auth"\n'
    text += 'environment = { KC_HTTP_RELATIVE_PATH = "/auth" }'
    assert suite(text)["keycloak"].url == "https://login.example.org:8080/auth"


def test_javas_options_reach_java() -> None:
    registry = suite('[services.keycloak.environment]\nJAVA_OPTS_KC_HEAP = "-Xmx2g"\nJAVA_OPTS_APPEND = "-Dx=1 -Dy=2"')
    setup = Setup(layout({}, Path("/home/hive"), 1000, TOP), Settings(), Host(252, True), "hive", {})
    unit = render(registry["keycloak"], registry, "production", setup, TEMPLATES)
    (command,) = re.findall(r"^ExecStart=(.*)$", unit, re.MULTILINE)
    assert " -Xmx2g " in command and " -Dx=1 -Dy=2 " in command
    assert "-Xmx512m" not in command and "-Xms64m" not in command


@pytest.mark.parametrize(
    ("table", "setting", "reason"),
    [
        ("keycloak", 'environment.KC_HTTP_PORT = "9000"', "the service's port is 8080; change port instead"),
        ("keycloak", 'environment.KC_HTTP_ENABLED = "false"', "must be true"),
        ("keycloak", 'environment.KC_DB = "mariadb"', "must be postgres"),
        ("keycloak", 'environment.KC_HTTP_RELATIVE_PATH = "auth"', "such as /auth"),
        ("keycloak", 'development.environment.KC_HTTP_RELATIVE_PATH = "/auth"', "the same in both modes"),
        ("keycloak", 'environment.JAVA_OPTS = "-Xmx2g"', "use JAVA_OPTS_APPEND or JAVA_OPTS_KC_HEAP"),
        ("codex", 'environment.DATABASE_URL = "postgresql://elsewhere/codex"', "set database = false to use another"),
        ("codex", 'production.environment.DATABASE_URL = "sqlite://"', "set database = false to use another"),
        ("core", "environment.PORT = 5999", "the service's port is 5000; change port, or set port_variable"),
        ("core", 'environment.HIVEMATRIX_MODE = "production"', "helmctl restart NAME --mode MODE"),
    ],
)
def test_what_cannot_be_set_is_refused(table: str, setting: str, reason: str) -> None:
    key, _, _ = setting.partition("environment")
    others = "".join(f"[services.{name}]\n" for name in ("keycloak", "core", "codex") if name != table)
    (fault,) = refused(f"{others}[services.{table}]\n{setting}\n")
    assert reason in fault
    if "both modes" not in reason:
        assert fault.startswith(f"services.{table}.{key}environment: ")


def test_the_port_is_in_the_environment() -> None:
    text = (
        '[services.tickets]\nport = 6001\n[services.mail]\ntype = "command"\nport = 6002\nstart_command = ["/bin/x"]\n'
    )
    text += 'port_variable = "MAIL_PORT"\nenvironment = { PORT = "25" }\n'
    assert environment(text, "tickets")["PORT"] == "6001"
    found = environment(text, "mail")
    assert (found["MAIL_PORT"], found["PORT"]) == ("6002", "25")


def test_a_database_variable_that_is_free_can_be_set() -> None:
    text = "[services.tickets]\nport = 6001\ndatabase = true\n"
    text += 'database_variable = "TICKETS_DSN"\nenvironment = { DATABASE_URL = "sqlite:///notes.db" }\n'
    assert environment(text, "tickets")["DATABASE_URL"] == "sqlite:///notes.db"
