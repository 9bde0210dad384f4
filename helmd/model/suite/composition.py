"""The suite as it runs: the registry's services, plus the PostgreSQL that they share."""

from dataclasses import replace

from helmd.model.config.settings import Settings
from helmd.model.suite.dependencies import Graph
from helmd.model.suite.names import SUITE_CLUSTER
from helmd.model.suite.service import Health, Registry, Restart, Service

RECOVERY = 600.0
"""How long (seconds) a PostgreSQL may take to start: after a power cut it replays its log first."""


def uses_database(service: Service) -> bool:
    """Whether it keeps something in the suite's PostgreSQL. Keycloak always does, in both modes."""
    return not service.external and (service.database or service.type == "keycloak")


def whole_suite(registry: Registry, settings: Settings) -> Registry:
    """REGISTRY with the suite's embedded PostgreSQL as a service of its own, first, where anybody uses it."""
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
        health=Health(check="port", start_timeout=RECOVERY),
        restart=Restart(stop_timeout=60.0),
    )
    services = {
        name: replace(service, depends_on=(SUITE_CLUSTER, *service.depends_on)) if name in users else service
        for name, service in registry.services.items()
    }
    return Registry({SUITE_CLUSTER: cluster, **services})


def dependencies(registry: Registry) -> Graph:
    """Each service's dependencies."""
    return {name: service.depends_on for name, service in registry.services.items()}


def core_url(settings: Settings, registry: Registry) -> str:
    """Where Core is: as SETTINGS say, else as REGISTRY has it, else where the catalogue puts it."""
    known = registry["core"].url if "core" in registry else ""
    return settings.core or known or "http://localhost:5000"
