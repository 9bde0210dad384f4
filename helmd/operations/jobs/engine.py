"""helmd's part of jobs: starts them, and records their results as systemd reports them.

Jobs run independently of it: helmd may be killed at any time, and looks up their states at the next start.
Files and systemd are asked in threads. No lock is held over either: whatever happens twice has the same result.
"""

import asyncio
import logging
import os
import time
from collections.abc import Callable
from functools import partial
from typing import ClassVar, NoReturn, TypeVar

from helmd.files.leftovers import tidy_account
from helmd.model.errors import BusError, HelmError
from helmd.model.jobs.record import (
    JobEnd,
    JobRecord,
    JobRequest,
    JobVerdict,
    Requester,
    job_id_at,
    job_id_for,
    job_unit,
)
from helmd.model.layout import Layout
from helmd.model.suite.names import RESERVED_PREFIX
from helmd.operations.jobs.directory import JobDirectory, UnknownJobError
from helmd.operations.jobs.states import JobView, cancel_job, look_up, look_up_all, newest_first
from helmd.operations.jobs.units import STOP_SECONDS, has_ended, remove_unit, start_unit
from helmd.systemd.bus import Manager

MAX_RUNNING = 32
"""Jobs that may run at once."""
_ATTEMPTS, _PAUSE = 3, 0.2
"""How often a start is tried while the manager does not answer, and the seconds in between."""
_LOOK_SECONDS, _RETRY_SECONDS = 5.0, 1.0
"""How often jobs are looked at without a signal of systemd's, also by who waits for the end of one."""
_TIDY_SECONDS = 3600.0

_log = logging.getLogger(__name__)

Found = TypeVar("Found")


class TooManyJobsError(HelmError):
    """The maximum number of running jobs is reached."""

    code: ClassVar[str] = "busy"


class KeyReusedError(HelmError):
    """An Idempotency-Key came again with another request."""

    code: ClassVar[str] = "idempotency_key_reused"


class JobEngine:
    """The jobs of one account. BOOT is the id of this boot; CONNECT opens a connection to the user manager."""

    def __init__(self, layout: Layout, boot: str, connect: Callable[[], Manager] = Manager) -> None:
        self.directory = JobDirectory(layout.jobs)
        self._layout = layout
        self._boot = boot
        self._connect = connect
        self._starting: set[str] = set()
        self._running: set[str] = set()
        self._ended: dict[str, asyncio.Future[JobView]] = {}
        """Futures for the ends of jobs that are waited for."""
        self._known: dict[str, JobView] = {}
        """Jobs whose end is recorded, as they were read: they do not change any more."""
        self._wake = asyncio.Event()
        self.trouble = ""
        """Why the results of jobs are currently not recorded, as a sentence; empty if they are."""

    def changed(self) -> None:
        """The unit of some job has changed."""
        self._wake.set()

    async def submit(
        self, kind: str, targets: tuple[str, ...], words: tuple[str, ...], by: Requester, reason: str,
        key: tuple[str, str] | None = None,
    ) -> JobView:  # fmt: skip
        """Start a job that runs helmctl with the arguments WORDS. KEY is who sent an Idempotency-Key, and the key: the
        same again is the same job.

        Raises TooManyJobsError, KeyReusedError, BusError and OSError; then there is no such job.
        """
        now = time.time()
        job_id = job_id_for(*key) if key else job_id_at(now, os.urandom(3).hex())
        request = JobRequest(job_id, kind, targets, words, by, reason, now, self._boot)
        if len(self._running | self._starting) >= MAX_RUNNING:
            raise TooManyJobsError(f"{MAX_RUNNING} jobs are running", hint="Wait for one of them: helmctl jobs list")
        # Before the first pause, so that the limit holds.
        self._starting.add(job_id)
        try:
            return await self._submitted(request)
        finally:
            self._starting.discard(job_id)

    async def _submitted(self, request: JobRequest) -> JobView:
        job_id = request.id
        if not await asyncio.to_thread(self.directory.create, request):
            return await self._repeated(request)
        self._running.add(job_id)
        self._known.pop(job_id, None)
        # From now on it is looked at in intervals, also without signals.
        self._wake.set()
        try:
            await self._start(request)
        except BusError:
            end = JobEnd(time.time(), "failed", "systemd did not start it")
            if await asyncio.to_thread(self.directory.abandon, job_id, end):
                await asyncio.to_thread(self.directory.discard, job_id)
                self._running.discard(job_id)
                raise
        return JobView(JobRecord(request), JobVerdict("queued"))

    async def _repeated(self, request: JobRequest) -> JobView:
        found = await self.job(request.id)
        if (found.record.request.kind, found.record.request.words) != (request.kind, request.words):
            raise KeyReusedError(
                "Idempotency-Key: it was sent before, with another request", hint="Send each request a key of its own."
            )
        return found

    async def _start(self, request: JobRequest) -> None:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                await self._ask(partial(start_unit, layout=self._layout, request=request))
                return
            except BusError as error:
                # It may have been started nevertheless; then the next attempt finds it.
                if attempt == _ATTEMPTS:
                    raise
                _log.warning("job %s: %s; trying again", request.id, error.sentence)
            await asyncio.sleep(_PAUSE)

    async def job(self, job_id: str) -> JobView:
        """Return a job and its state. Raises UnknownJobError."""
        if not await asyncio.to_thread(self.directory.has_ended, job_id):
            try:
                return await self._ask(lambda manager: look_up(self.directory, manager, job_id, self._boot))
            except BusError:
                # Its end may be recorded, but its unit still be there.
                self._wake.set()
        return await asyncio.to_thread(look_up, self.directory, None, job_id, self._boot)

    async def jobs(self) -> list[JobView]:
        """Return all jobs, the newest first. Those that have ended are read once."""
        ids = set(await asyncio.to_thread(self.directory.ids))
        known = {job_id: view for job_id, view in self._known.items() if job_id in ids}
        if others := ids - known.keys():
            try:
                found = await self._ask(lambda manager: look_up_all(self.directory, manager, others, self._boot))
            except BusError:
                found = await asyncio.to_thread(look_up_all, self.directory, None, others, self._boot)
            known |= {view.record.request.id: view for view in found}
        self._known = {job_id: view for job_id, view in known.items() if view.record.end is not None}
        return newest_first(known.values())

    async def wait(self, view: JobView, given_up: Callable[[], bool]) -> JobView:
        """Return a job and its state once it has ended, or once GIVEN_UP. Raises UnknownJobError."""
        job_id = view.record.request.id
        looked = time.monotonic()
        while not (view.ended or given_up()):
            if job_id in self._running and time.monotonic() - looked < _LOOK_SECONDS:
                ended = self._ended.setdefault(job_id, asyncio.get_running_loop().create_future())
                done, _ = await asyncio.wait({ended}, timeout=_RETRY_SECONDS / 2)
                view = ended.result() if done else view
            else:
                looked = time.monotonic()
                view = await self.job(job_id)
                if not view.ended:
                    self._running.add(job_id)
        return view

    async def cancel(self, job_id: str, by: Requester) -> JobView:
        """Cancel a job, and wait for its end. Raises UnknownJobError, JobEndedError and BusError."""
        await self._ask(lambda manager: cancel_job(self.directory, manager, job_id, by, self._boot))
        until = time.monotonic() + STOP_SECONDS
        return await self.wait(await self.job(job_id), lambda: time.monotonic() > until)

    async def main_pid(self, unit: str) -> int | None:
        """Return the main process of UNIT now, or None if there is none, or systemd can't be asked."""
        try:
            return (await self._ask(lambda manager: manager.facts(unit))).main_pid or None
        except BusError:
            return None

    async def run(self) -> NoReturn:
        """Record the results of jobs until cancelled."""
        tidied = -_TIDY_SECONDS
        while True:
            self._wake.clear()
            try:
                if time.monotonic() - tidied >= _TIDY_SECONDS:
                    self._running |= set(await asyncio.to_thread(self.directory.unended))
                    await asyncio.to_thread(self.directory.prune, time.time())
                    await asyncio.to_thread(tidy_account, self._layout)
                    tidied = time.monotonic()
                await self._record_ends()
                self.trouble = ""
                pause = _LOOK_SECONDS if self._running else _TIDY_SECONDS
            except (BusError, OSError) as error:
                sentence = error.sentence if isinstance(error, BusError) else str(error)
                if sentence != self.trouble:
                    _log.warning("results of jobs are not recorded: %s", sentence)
                self.trouble, pause = sentence, _RETRY_SECONDS
            try:
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def _record_ends(self) -> None:
        running = sorted(self._running)
        for job_id, view in (await self._ask(lambda manager: self._ends(manager, running))).items():
            self._running.discard(job_id)
            if view is None:
                continue
            if (waited_for := self._ended.pop(job_id, None)) is not None:
                waited_for.set_result(view)
            _log.info("job %s (%s %s) has ended: %s", job_id, *_described(view))

    def _ends(self, manager: Manager, running: list[str]) -> dict[str, JobView | None]:
        """Return those of the RUNNING jobs that have ended, or None for one without a directory, which was refused,
        or removed by another process. All others cost one call together.

        Units of other jobs that have ended are removed: their end is recorded, but the process was killed, or the
        manager did not answer, before that was done.
        """
        states = manager.unit_states(f"hivematrix-{RESERVED_PREFIX}*.service")
        at_work = {unit for unit, state in states.items() if not has_ended(*state)}
        found: dict[str, JobView | None] = {}
        for job_id in running:
            if job_unit(job_id) in at_work:
                continue
            try:
                view = look_up(self.directory, manager, job_id, self._boot)
            except UnknownJobError:
                found[job_id] = None
                continue
            if view.ended:
                found[job_id] = view
        leftovers = states.keys() - at_work - {job_unit(job_id) for job_id in running}
        if leftovers:
            unended = {job_unit(job_id) for job_id in self.directory.unended()}
            for unit in leftovers - unended:
                remove_unit(manager, manager.facts(unit))
        return found

    async def _ask(self, what: Callable[[Manager], Found]) -> Found:
        """Return what a function gives that asks the manager, in a thread with a connection of its own."""

        def asked() -> Found:
            with self._connect() as manager:
                return what(manager)

        return await asyncio.to_thread(asked)


def _described(view: JobView) -> tuple[str, str, str]:
    request, end = view.record.request, view.verdict.end
    return request.kind, request.target, f"{view.verdict.state}{f' ({end.detail})' if end and end.detail else ''}"
