"""Checks of the services themselves: whether they run, are healthy, and have what they need; their certificates."""

import socket
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from helmd.health.address import addresses, local_addresses
from helmd.health.probe import unverified_context
from helmd.model.api.host import HostCertificate
from helmd.model.counted import counted
from helmd.model.identity.realm import GATEWAY
from helmd.model.layout import Layout
from helmd.model.suite.composition import dependencies
from helmd.model.suite.names import unit_of
from helmd.model.suite.service import Registry
from helmd.model.units.diagnostics import Finding, bad, judge_certificate, ok, warn
from helmd.model.units.unit_state import UnitFacts, condition, explain
from helmd.operations.configuration.module_files import GATEWAY_CERTIFICATE, file_directory
from helmd.operations.diagnostics.context import DoctorContext
from helmd.operations.monitoring.status import View, observe_services
from helmd.systemd.bus import Manager

_HANDSHAKE_SECONDS = 3.0


def services(context: DoctorContext) -> list[Finding]:
    """Check whether the services run and are healthy, and none runs without one that it needs."""
    suite = context.suite
    views = {view.service.name: view for view in observe_services(suite, suite.names, context.manager, context.layout)}
    ours = [view for view in views.values() if not view.service.external]
    if ours and all(view.word == "stopped" for view in ours):
        return [warn("the suite is stopped", "helmctl up")]
    found = [finding for view in views.values() for finding in (*_of_one(view), *_schedule(view, context))]
    return [*found, *_without_needed(suite, views)] or [ok(f"{counted(len(views), 'service')}: all are healthy")]


def _of_one(view: View) -> Iterator[Finding]:
    name, sentence = view.service.name, view.verdict.sentence
    if view.service.external:
        if not view.good:
            yield bad(f"{name} (external) is {view.word}: {sentence}", f"Check {view.service.url}")
    elif view.word in ("failed", "flapping"):
        fix = f"helmctl why {name}; correct the cause; helmctl restart {name}"
        yield bad(f"{name} is {view.word}: {explain(view.facts, name, view.service.pre_start)}", fix)
    elif view.word == "unhealthy":
        yield bad(f"{name} is unhealthy: {sentence}", f"helmctl why {name}; helmctl restart {name}")
    elif view.word == "degraded":
        yield warn(f"{name} is degraded: {sentence}", f"helmctl why {name}")
    elif view.word == "stopped" and _to_start(view):
        yield warn(f"{name} is stopped, though it is to start with the suite", f"helmctl start {name}")


def _to_start(view: View) -> bool:
    return view.facts.exists and view.facts.file_state != "disabled" and not view.service.schedule


def _schedule(view: View, context: DoctorContext) -> Iterator[Finding]:
    """Check whether a service with a schedule will be started by it."""
    if not view.service.schedule or not view.facts.exists:
        return
    name = view.service.name
    timer = context.manager.facts(view.service.enabled_unit)
    if not timer.active and timer.exists and timer.file_state != "disabled":
        yield warn(
            f"the schedule of {name} is off, though it is to begin with the suite", f"helmctl enable --now {name}"
        )
    elif timer.sub_state == "elapsed":
        yield warn(f"{name} is not run any more: its schedule has no further time", f"Correct schedule of {name}")


def _without_needed(suite: Registry, views: dict[str, View]) -> Iterator[Finding]:
    """Yield a service that is down while others that need it run."""
    needs = dependencies(suite)
    for name, view in views.items():
        if view.word not in ("stopped", "failed") or view.service.external:
            continue
        users = [other for other, needed in needs.items() if name in needed and views[other].facts.runs]
        if users:
            yield bad(f"{name} is {view.word}, and these run and need it: {', '.join(users)}", f"helmctl start {name}")


def certificates(context: DoctorContext) -> list[Finding]:
    """Check whether the certificates that running services show are valid, and for how long."""
    now = datetime.now(UTC)
    found = [
        judge_certificate(each.service, each.valid_from, each.valid_until, now)
        if not each.replaced
        else warn(
            f"{each.service} still shows a certificate that was replaced, until {each.valid_until:%Y-%m-%d} valid",
            f"helmctl restart {each.service}",
        )
        for each in shown_certificates(context.suite, context.manager.facts, context.layout)
    ]
    return found or [ok("no running service shows one")]


def shown_certificates(suite: Registry, facts_of: Callable[[str], UnitFacts], layout: Layout) -> list[HostCertificate]:
    """Return the certificates that running and external services show. Blocks, for some seconds a service at most."""
    found = []
    for shown in certificates_shown(suite, facts_of):
        service = suite[shown.service]
        gateway = service.name == GATEWAY and not service.external
        found.append(
            _facts(
                service.name,
                shown.encoded,
                file_directory(service, layout, GATEWAY_CERTIFICATE[0]) if gateway else None,
            )
        )
    return found


class ShownCertificate(NamedTuple):
    """A certificate, in DER form, that a service shows to those who ask for HOST."""

    service: str
    host: str
    encoded: bytes


def certificates_shown(suite: Registry, facts_of: Callable[[str], UnitFacts]) -> Iterator[ShownCertificate]:
    """As `shown_certificates`, as they are."""
    for name, service in suite.services.items():
        url = urlsplit(service.url)
        if url.scheme != "https" or not url.hostname:
            continue
        local = not service.external
        if local and condition(facts_of(unit_of(name)), time.time()) != "running":
            continue
        port = service.port if local and service.port is not None else url.port or 443
        shown = _shown(url.hostname, port, local)
        if shown is not None:
            yield ShownCertificate(name, url.hostname, shown)


def certificates_now(suite: Registry, layout: Layout) -> list[HostCertificate]:
    """As `shown_certificates`, for callers without a connection to the manager. Raises BusError."""
    with Manager() as manager:
        return shown_certificates(suite, manager.facts, layout)


def _facts(service: str, encoded: bytes, directory: Path | None) -> HostCertificate:
    """About a certificate in DER form; DIRECTORY is that of the gateway, where its next one may be."""
    # Imported here: few commands need it.
    from cryptography import x509

    from helmd.files.key_pair import Folder, KeyFileError, public_pem, valid_from, valid_until

    parsed = x509.load_der_x509_certificate(encoded)
    replaced = False
    if directory is not None:
        file = directory / GATEWAY_CERTIFICATE[0]
        folder = Folder(file.parent)
        try:
            present, before = (
                content and x509.load_pem_x509_certificate(content)
                for content in (folder.read(file.name), folder.read(f"{file.name}.before"))
            )
            # Not one that the gateway has from elsewhere.
            known = parsed == before or bool(present and public_pem(present) == public_pem(parsed))
            replaced = present is not None and parsed != present and known
        except (KeyFileError, ValueError):
            # A file that can't be used is named by set-up, and by the gateway at its start.
            replaced = False
    return HostCertificate(service, valid_from(parsed), valid_until(parsed), parsed.issuer == parsed.subject, replaced)


def _shown(name: str, port: int, local: bool) -> bytes | None:
    """Return the certificate, in DER form, that a server shows for NAME, or None if it completes no handshake.

    LOCAL: it is a service of this host, to which its name need not lead.
    """
    deadline = time.monotonic() + _HANDSHAKE_SECONDS
    try:
        found = local_addresses(name, port, deadline) if local else addresses(name, port, deadline)
        return next(filter(None, (_certificate(each[4], name, deadline) for each in found)), None)
    except (OSError, UnicodeError):  # the name can't be resolved
        return None


def _certificate(address: tuple[Any, ...], name: str, deadline: float) -> bytes | None:
    """Return what the server at ADDRESS shows for NAME, in DER form, or None if it completes no handshake by
    DEADLINE.
    """
    remaining = max(0.001, deadline - time.monotonic())
    try:
        with (
            socket.create_connection(address[:2], timeout=remaining) as connection,
            unverified_context().wrap_socket(connection, server_hostname=name) as secured,
        ):
            return secured.getpeercert(binary_form=True)
    except OSError:  # ssl.SSLError among them; the check of services reports what does not answer
        return None
