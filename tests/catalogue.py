"""The catalogue of the package, for tests of registries that are read after it."""

from pathlib import Path

from helmd.model.config.toml_tables import ConfigSource
from helmd.model.suite.registry import read_registry
from helmd.model.suite.service import Registry

CATALOGUE = ConfigSource(
    "catalogue", (Path(__file__).resolve().parents[1] / "services.toml").read_text(), catalogue=True
)


SUITE = "[services.keycloak]\n[services.core]\n[services.nexus]\n"


def suite(text: str = SUITE) -> Registry:
    """Return the services that TEXT, an admin's services.toml, names; what it does not say is the catalogue's."""
    return read_registry([CATALOGUE, ConfigSource("mine", text)], {})
