"""URLs are put out and compared in their normal form, however they were written."""

import pytest

from helmd.model.config.settings import Settings
from helmd.model.config.toml_tables import ConfigSource
from helmd.model.identity.realm import wanted_realm
from helmd.model.suite.discovery import discovery_document
from helmd.model.suite.registry import read_registry
from helmd.model.urls import is_host_of, normal_url, origin_of


@pytest.mark.parametrize(
    ("url", "normal", "origin"),
    [
        ("https://localhost:443", "https://localhost", "https://localhost"),
        ("https://localhost:443/", "https://localhost", "https://localhost"),
        ("HTTPS://Desk.Example:443/Base/?x=A#y", "https://desk.example/Base?x=A#y", "https://desk.example"),
        ("http://desk.example:80/x", "http://desk.example/x", "http://desk.example"),
        ("http://desk.example:", "http://desk.example", "http://desk.example"),
        ("http://desk.example:443", "http://desk.example:443", "http://desk.example:443"),
        ("https://desk.example:08443/", "https://desk.example:8443", "https://desk.example:8443"),
        ("https://[2001:DB8::1]:443//", "https://[2001:db8::1]", "https://[2001:db8::1]"),
    ],
)
def test_a_url_has_one_form(url: str, normal: str, origin: str) -> None:
    assert normal_url(url) == normal
    assert normal_url(normal) == normal
    assert origin_of(url) == origin


@pytest.mark.parametrize(
    ("host", "url", "same"),
    [
        ("desk.example", "https://desk.example:443/x", True),
        ("Desk.Example:443", "https://desk.example", True),
        ("desk.example:443", "http://desk.example", False),
        ("desk.example:8443", "https://desk.example:8443/", True),
        ("desk.example:8443", "https://desk.example", False),
        ("[::1]:5004", "http://[::1]:5004", True),
        ("evil@desk.example", "https://desk.example", False),
        ("desk.example/evil", "https://desk.example", False),
        ("desk.example#", "https://desk.example", False),
        ("desk.example:99999", "https://desk.example", False),
        ("", "https://desk.example", False),
        ("null", "null", False),
        ("desk.example", "//desk.example:x", False),
    ],
)
def test_a_host_is_that_of_a_url_with_or_without_the_default_port(host: str, url: str, same: bool) -> None:
    assert is_host_of(host, url) is same


@pytest.mark.parametrize("written", ["https://Desk.example:443/", "https://desk.example", "HTTPS://DESK.EXAMPLE:443"])
def test_a_gateway_is_the_same_however_its_url_was_written(written: str) -> None:
    text = f'[services.keycloak]\ntype = "keycloak"\nport = 8080\n[services.nexus]\nport = 443\nurl = "{written}"\n'
    registry = read_registry([ConfigSource("services.toml", text)], {})
    assert registry["nexus"].url == "https://desk.example"
    assert '"url": "https://desk.example"' in discovery_document(registry, Settings())
    realm = wanted_realm(registry["keycloak"], registry, Settings())
    assert realm.client("core-client").uris["redirectUris"] == ("https://desk.example/keycloak-callback",)


def test_another_file_may_move_a_service_to_the_default_port() -> None:
    catalogue = ConfigSource("catalogue", '[services.web]\nport = 8080\nurl = "http://[::1]:8080/a"\n', catalogue=True)
    own = ConfigSource("services.toml", "[services.web]\nport = 80\n")
    assert read_registry([catalogue, own], {})["web"].url == "http://[::1]/a"
    plain = ConfigSource("services.toml", "[services.web]\nport = 80\n")
    assert read_registry([plain], {})["web"].url == "http://localhost"
