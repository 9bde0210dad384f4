"""What ``helmctl doctor`` finds in the log store: what retention does not drop, and lines that are missing."""

import asyncio
from datetime import UTC, datetime, timedelta

from helmd.model.units.diagnostics import Finding, ok, warn
from helmd.operations.diagnostics.context import DoctorContext

_DAYS = 7
"""Time for which gaps are reported after detection."""
_ADVICE = {
    "unreadable": "See which files are damaged: sudo journalctl --verify; then move them away",
    "lost": "Give the journal more space: SystemMaxUse= in journald.conf(5)",
}


def log_store(context: DoctorContext) -> list[Finding]:
    found = asyncio.run(_findings(context.settings.store_conninfo(context.layout), datetime.now(UTC)))
    return found or [ok("no lines are missing, and what has expired is dropped")]


async def _findings(conninfo: str, now: datetime) -> list[Finding]:
    # Imported here: psycopg costs every helmctl command 60 ms.
    from helmd.store.logs.gaps import gaps_since
    from helmd.store.maintenance.expiry import retention_warnings
    from helmd.store.session import connect

    connection = await connect(conninfo, "helmctl doctor")
    try:
        clock = "If the clock is wrong: sudo timedatectl set-ntp true; if it is right, nothing has to be done"
        found = [warn(sentence, clock) for sentence in await retention_warnings(connection, now)]
        for gap in await gaps_since(connection, now - timedelta(days=_DAYS)):
            count = "an unknown number of" if gap.at_most is None else f"at most {gap.at_most:,}"
            times = f"{gap.since:%Y-%m-%d %H:%M:%S} and {gap.until:%Y-%m-%d %H:%M:%S} UTC"
            reason = "a journal file is damaged" if gap.why == "unreadable" else "the journal has lost them"
            found.append(warn(f"{count} lines are missing between {times}: {reason}", _ADVICE[gap.why]))
        return found
    finally:
        await connection.close()
