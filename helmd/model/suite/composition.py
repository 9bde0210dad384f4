"""The suite as it runs: the registry's services and the PostgreSQL cluster that they share."""

from dataclasses import replace

from helmd.model.config.settings import Settings
from helmd.model.suite.dependencies import Graph
from helmd.model.suite.names import SUITE_CLUSTER
from helmd.model.suite.service import Health, Registry, Restart, Service

RECOVERY = 600.0
"""Start timeout of PostgreSQL in seconds: crash recovery replays the write-ahead log first."""


def uses_database(service: Service) -> bool:
    """Return whether the service has a database in the suite's PostgreSQL. Keycloak always has."""
    return not service.external and (service.database or service.type == "keycloak")


def whole_suite(registry: Registry, settings: Settings) -> Registry:
    """Return REGISTRY with the embedded PostgreSQL as its first service, if any service uses it."""
    users = {name for name, service in registry.services.items() if uses_database(service)}
    if not settings.suite_embedded or not users:
        return registry
    cluster = Service(
        name=SUITE_CLUSTER,
        type="postgres",
        description="PostgreSQL of the suite",
        port=settings.suite_database_port,
        visible=False,
        admin_only=True,
        hardening="strict",
        health=Health(check="port", start_timeout=RECOVERY),
        restart=Restart(stop_timeout=60.0),
    )
    services = {
        name: replace(service, depends_on=(SUITE_CLUSTER, *service.depends_on)) if name in users else service
        for name, service in registry.services.items()
    }
    return Registry({SUITE_CLUSTER: cluster, **services})


def dependencies(registry: Registry) -> Graph:
    """Return each service's dependencies."""
    return {name: service.depends_on for name, service in registry.services.items()}


def core_url(settings: Settings, registry: Registry) -> str:
    """Return Core's base URL: from SETTINGS, else from REGISTRY, else the default."""
    known = registry["core"].url if "core" in registry else ""
    return settings.core or known or "http://localhost:5000"
