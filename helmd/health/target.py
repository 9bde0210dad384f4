"""Which probe a service wants, while it starts and while it runs."""

from urllib.parse import urlsplit

from helmd.model.suite.service import Service
from helmd.model.units.health import Probe


def _url(service: Service, path: str) -> str:
    """Return the URL of PATH of the service: an external one's is below its own URL, another's at the root of
    its host.
    """
    if service.external or service.port is None:
        return service.url.rstrip("/") + path
    parts = urlsplit(service.url)
    return f"{parts.scheme or 'http'}://{parts.netloc or f'localhost:{service.port}'}{path}"


def url_host(service: Service) -> str:
    """Return the host of the service's URL, without brackets around an IPv6 address."""
    return urlsplit(service.url).hostname or "localhost"


def probe_of(service: Service, starting: bool = False) -> Probe:
    """Return the probe of SERVICE; with STARTING the one that decides whether it has started."""
    health = service.health
    path = health.start_path if starting else health.path
    realm = ""
    if health.check == "realm":
        realm = service.realm
        path = f"{service.relative_path}/realms/{realm}/.well-known/openid-configuration"
    url = "" if health.check == "process" else _url(service, "" if health.check == "port" else path)
    port = 0 if service.external else service.port or 0
    # What it starts without can't keep it from starting.
    requires = () if starting else health.requires
    return Probe(health.check, url, health.expect, realm, health.verify_tls, health.timeout, port, requires)


def probe_words(service: Service) -> list[str]:
    """Return the arguments of the probe program for a starting SERVICE."""
    probe = probe_of(service, starting=True)
    words = [f"check={probe.check}", f"timeout={probe.timeout:g}", f"within={service.health.start_timeout:g}"]
    if probe.url:
        words += [f"url={probe.url}", f"port={probe.port}"]
    if probe.expect:
        words.append("expect=" + ",".join(map(str, probe.expect)))
    if probe.realm:
        words.append(f"realm={probe.realm}")
    if probe.verify:
        words.append("verify=yes")
    return words
