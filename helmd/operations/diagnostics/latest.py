"""What doctor found last, as helmd keeps it. It runs in a process of its own: its checks block, for seconds."""

import asyncio
import json
import time
from dataclasses import dataclass
from pathlib import Path

from helmd.model.errors import HelmError
from helmd.model.printable import printable
from helmd.operations.diagnostics.program_output import program_output

DOCTOR_SECONDS = 90.0
"""After which it is given up."""
_WAIT_SECONDS = 25.0
"""How long a request waits for it: the gateway ends it after 30 s."""
_KEPT_SECONDS = 300.0


class DoctorUnfinishedError(HelmError):
    """It has not finished."""

    code = "timeout"


@dataclass(frozen=True, slots=True)
class KnownFinding:
    """A finding as ``helmctl doctor --json`` prints it."""

    check: str
    verdict: str
    sentence: str
    fix: str


class LatestDoctor:
    """The last findings. HELMCTL is the program."""

    def __init__(self, helmctl: Path) -> None:
        self._command = ("nice", "-n", "10", str(helmctl), "doctor", "--json")
        self._found: tuple[KnownFinding, ...] = ()
        self._at: float | None = None
        self._running: asyncio.Task[None] | None = None

    async def findings(self) -> tuple[KnownFinding, ...]:
        """At most five minutes old. Raises DoctorUnfinishedError when it takes longer than a request may."""
        if self._at is None or time.monotonic() - self._at > _KEPT_SECONDS:
            self._running = self._running or asyncio.create_task(self._run())
            await asyncio.wait([self._running], timeout=_WAIT_SECONDS)
            if self._running is not None and not self._running.done():
                raise DoctorUnfinishedError("the checks have not finished", hint="Run: helmctl doctor")
            running, self._running = self._running, None
            if running is not None:
                running.result()
        return self._found

    async def _run(self) -> None:
        try:
            printed = await program_output(self._command, DOCTOR_SECONDS)
            found = json.loads(printed.out)["findings"]
        except (TimeoutError, OSError, ValueError, KeyError) as problem:
            raise HelmError(
                f"the checks gave no result: {printable(str(problem), 200)}", hint="Run: helmctl doctor"
            ) from None
        self._found = tuple(
            KnownFinding(each["check"], each["verdict"], each["sentence"], each.get("fix") or "") for each in found
        )
        self._at = time.monotonic()
