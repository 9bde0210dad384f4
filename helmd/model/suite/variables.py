"""Environment variables of a service that Helm depends on, and which its configuration therefore can't set."""

from collections.abc import Iterator

from helmd.model.suite.names import MODES
from helmd.model.suite.service import Service

_NOT_READ = ("JAVA_OPTS", "JAVA_ADD_OPENS", "JAVA_HOME", "JAVA")
"""What ``kc.sh`` reads and Java itself, which Helm starts directly, does not."""


def refused_variables(service: Service) -> Iterator[tuple[str, str]]:
    """Yield the settings of SERVICE that set such variables, each with the reason as a sentence."""
    tables = {"environment": service.environment}
    tables |= {f"{mode}.environment": override.environment for mode, override in service.modes.items()}
    for key, variables in tables.items():
        for name, value in variables.items():
            if sentence := _reason(service, name, value):
                yield key, f"{name} {sentence}"
    by_mode = {service.environment_in(mode).get("KC_HTTP_RELATIVE_PATH", "") for mode in MODES}
    if service.type == "keycloak" and len(by_mode) > 1:
        yield "environment", "KC_HTTP_RELATIVE_PATH must be the same in both modes: it is part of Keycloak's url"


def _reason(service: Service, name: str, value: str) -> str:
    """Return why the variable can't have this value; empty if it can."""
    if name == "HIVEMATRIX_MODE":
        return "is set to the mode in which the service runs; to switch, run: helmctl restart NAME --mode MODE"
    if service.database and name == service.database_variable:
        return (
            "is where Helm puts the URI of the service's database; set database = false to use another one, or"
            " database_variable to another name"
        )
    if service.port is None:
        return ""
    if service.type == "keycloak":
        return _keycloak(service.port, name, value)
    if service.type in ("python", "command") and name == service.port_variable and value != str(service.port):
        return (
            f"is {value!a}, but the service's port is {service.port}; change port, or set port_variable to the name of"
            " the variable that has the port"
        )
    return ""


def _keycloak(port: int, name: str, value: str) -> str:
    if name == "KC_HTTP_PORT" and value != str(port):
        return f"is {value!a}, but the service's port is {port}; change port instead"
    if name == "KC_HTTP_ENABLED" and value.lower() != "true":
        return "must be true: Helm asks for Keycloak's health over HTTP"
    if name == "KC_DB" and value != "postgres":
        return "must be postgres; Keycloak's data is in PostgreSQL in both modes"
    if name == "KC_HOSTNAME" and not value.startswith(("http://", "https://")):
        return "must be a URL, such as https://desk.example/keycloak; without it, the URL of the gateway is used"
    if name == "KC_HTTP_RELATIVE_PATH" and (not value.startswith("/") or any(c in value for c in ' ?#%"')):
        return "must be the path of a URL, such as /auth"
    if name in _NOT_READ:
        return "is not read, since Helm starts Java itself; use JAVA_OPTS_APPEND or JAVA_OPTS_KC_HEAP"
    return ""
