"""Which probe a service wants, while it starts and while it runs."""

from helmd.health.probe import Probe
from helmd.model.suite.service import Service


def _url(service: Service, path: str) -> str:
    """Where PATH of the service is asked: on this host for our own, at its own URL for an external one."""
    scheme = service.url.partition("://")[0] or "http"
    if service.external or service.port is None:
        return service.url.rstrip("/") + path
    return f"{scheme}://127.0.0.1:{service.port}{path}"


def probe_of(service: Service, starting: bool = False) -> Probe:
    """The probe of SERVICE; with STARTING the one that decides whether it has started."""
    health = service.health
    path = health.start_path if starting else health.path
    realm = ""
    if health.check == "realm":
        realm = service.realm
        path = f"{service.relative_path}/realms/{realm}/.well-known/openid-configuration"
    url = "" if health.check == "process" else _url(service, "" if health.check == "port" else path)
    return Probe(health.check, url, health.expect, realm, health.verify_tls, health.timeout)


def probe_words(service: Service) -> list[str]:
    """The arguments of the probe program for a starting SERVICE."""
    probe = probe_of(service, starting=True)
    words = [f"check={probe.check}", f"timeout={probe.timeout:g}", f"within={service.health.start_timeout:g}"]
    if probe.url:
        words.append(f"url={probe.url}")
    if probe.expect:
        words.append("expect=" + ",".join(map(str, probe.expect)))
    if probe.realm:
        words.append(f"realm={probe.realm}")
    if probe.verify:
        words.append("verify=yes")
    return words
