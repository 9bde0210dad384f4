"""The check of ``helmctl doctor`` for what the gateway adds to Helm's pages."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime

from helmd.model.counted import counted
from helmd.model.identity.injected import LearnedPage, learned_in
from helmd.model.identity.realm import GATEWAY
from helmd.model.suite.names import unit_of
from helmd.model.units.diagnostics import Finding, ok, warn
from helmd.model.units.unit_state import UnitFacts
from helmd.operations.diagnostics.context import DoctorContext

_SOON_SECONDS = 120.0
"""Time in seconds after the start of the gateway that helmd may take; it waits until the gateway is healthy."""
_UNKNOWN = "what the gateway adds to pages is not known, so its scripts do not run on those of Helm"


def pages(context: DoctorContext) -> list[Finding]:
    """Return what helmd has learned of the gateway's pages, when, and what of them its policy does not allow."""
    suite = context.suite
    if GATEWAY not in suite:
        return [ok("the suite has no gateway")]
    if suite[GATEWAY].external:
        return [ok("the gateway is not of this host; what it adds to pages does not run on those of Helm")]
    facts = context.manager.facts(unit_of(GATEWAY))
    if not facts.active:
        return [ok("the gateway is not running")]
    try:
        page = learned_in(context.layout.gateway_page.read_text())
    except FileNotFoundError:
        page = LearnedPage()
    return [*_of(page, facts, time.time())]


def _of(page: LearnedPage, facts: UnitFacts, now: float) -> Iterator[Finding]:
    if page.run != facts.invocation:
        if now - facts.active_since < _SOON_SECONDS:
            yield ok("helmd is about to look at what the gateway, which has just started, adds to pages")
        else:
            yield warn(
                f"{_UNKNOWN}: helmd has not looked at one since the gateway started", "helmctl status helm nexus"
            )
        return
    if page.trouble:
        yield warn(f"{_UNKNOWN}: {page.trouble}", page.hint)
        return
    count = len(page.injected.scripts) + len(page.injected.script_paths)
    when = datetime.fromtimestamp(page.learned, UTC)
    yield ok(
        f"{counted(count, 'script')} that the gateway adds may run on Helm's pages (learned {when:%Y-%m-%d %H:%M} UTC)"
    )
    for each in page.injected.blocked:
        yield warn(f"the gateway adds to pages what does not work on those of Helm: {each}", _CHANGE)


_CHANGE = "Correct the gateway; SECURITY.md says what pages allow"
