"""The home directories of services: HOME in their environment. Each is visible to its own service only."""

import shutil

from helmd.model.layout import Layout
from helmd.model.suite.names import SUITE_CLUSTER, service_of
from helmd.model.suite.service import Registry
from helmd.model.units.hardening import ISOLATED


def make_homes(registry: Registry, layout: Layout) -> None:
    """Create the home directories that units bind-mount; without its own, a service cannot start. Raises OSError."""
    for name, service in registry.services.items():
        if service.hardening in ISOLATED and not service.external and name != SUITE_CLUSTER:
            layout.home_of(name).mkdir(parents=True, exist_ok=True, mode=0o700)


def remove_home(unit: str, layout: Layout) -> None:
    """Remove the home directory of the service of UNIT, with all its files. Raises OSError."""
    name = service_of(unit)
    if name and layout.home_of(name).is_dir():
        shutil.rmtree(layout.home_of(name))
