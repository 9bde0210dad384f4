"""The JSON documents by which services find each other."""

import json

from helmd.model.config.settings import Settings
from helmd.model.suite.names import SUITE_CLUSTER
from helmd.model.suite.service import Registry


def discovery_document(registry: Registry, settings: Settings) -> str:
    """Return ``services.json``, which is written to every service's directory: the suite's services and Helm."""
    entries = {
        name: {
            "url": service.url,
            "visible": service.visible,
            "admin_only": service.admin_only,
            "billing_or_admin_only": service.billing_or_admin_only,
        }
        for name, service in registry.services.items()
        if name != SUITE_CLUSTER and service.url
    }
    entries["helm"] = {"url": settings.url, "visible": True, "admin_only": True, "billing_or_admin_only": False}
    return json.dumps(entries, indent=2, sort_keys=True) + "\n"


def master_document(registry: Registry, settings: Settings) -> str:
    """Return ``master_services.json``, which older tools read."""
    entries = {
        name: {"url": service.url, "port": service.port, "description": service.description}
        for name, service in registry.services.items()
        if name != SUITE_CLUSTER and service.url
    }
    entries["helm"] = {"url": settings.url, "port": settings.port, "description": "Helm: operations"}
    return json.dumps(entries, indent=2, sort_keys=True) + "\n"
