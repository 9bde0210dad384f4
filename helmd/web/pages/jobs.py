"""The pages about jobs: the list, with backups, and a job with its log."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from aiohttp import web

from helmd.model.api.backups import BackupList
from helmd.model.api.jobs import JobReply, JobStepReply
from helmd.model.counted import counted
from helmd.model.errors import HelmError
from helmd.model.jobs.record import JOB_ENDED
from helmd.operations.jobs.engine import JobEngine
from helmd.web.pages.overview import Tone
from helmd.web.pages.rendering import Renderer

JOB_LOOKS: Mapping[str, tuple[Tone, str]] = {
    "queued": ("off", "clock"),
    "running": ("warn", "loader-circle"),
    "succeeded": ("ok", "circle-check"),
    "failed": ("error", "circle-x"),
    "cancelled": ("off", "circle-stop"),
    "interrupted": ("error", "zap"),
}
"""By the state of a job: its colour and its icon."""
STEP_LOOKS: Mapping[str, tuple[Tone, str]] = {
    "in_progress": ("warn", "loader-circle"),
    "done": ("ok", "circle-check"),
    "already": ("ok", "check"),
    "failed": ("error", "circle-x"),
    "killed": ("error", "circle-x"),
    "skipped": ("off", "minus"),
    "queued": ("off", "clock"),
}


@dataclass(frozen=True, slots=True)
class JobRow:
    """A job for display. ``sentence`` is its step, or why it did not succeed."""

    job: JobReply
    tone: Tone
    icon: str
    seconds: float | None
    sentence: str
    ended: bool


@dataclass(frozen=True, slots=True)
class StepRow:
    """A step of a job."""

    step: JobStepReply
    tone: Tone
    icon: str


@dataclass(frozen=True, slots=True)
class JobsContext:
    """What the list's template is given. ``verified`` is the last backup that was restored on trial; ``trouble`` says
    why there are no ``backups``, ``hint`` what to do.
    """

    jobs: Sequence[JobRow]
    running: int
    backups: BackupList | None
    verified: str
    trouble: str = ""
    hint: str = ""


@dataclass(frozen=True, slots=True)
class JobContext:
    """What the template of one job is given."""

    row: JobRow
    steps: Sequence[StepRow]


class JobPages:
    """The handlers. BACKUPS reads the directory of backups."""

    def __init__(self, engine: JobEngine, backups: Callable[[], BackupList], renderer: Renderer) -> None:
        self._engine = engine
        self._backups = backups
        self._renderer = renderer

    async def list(self, request: web.Request) -> web.StreamResponse:
        """GET /jobs"""
        views = await self._engine.jobs()
        backups: BackupList | HelmError
        try:
            backups = await asyncio.to_thread(self._backups)
        except HelmError as error:
            backups = error
        return self._renderer.show(request, "jobs.html", jobs_context([view.reply for view in views], backups))

    async def job(self, request: web.Request) -> web.StreamResponse:
        """GET /jobs/{id}"""
        view = await self._engine.job(request.match_info["id"])
        return self._renderer.show(request, "job.html", job_context(view.reply))


def jobs_context(jobs: Sequence[JobReply], backups: BackupList | HelmError) -> JobsContext:
    """Return the JOBS, the newest first as they are given, and the BACKUPS, or why they can't be listed."""
    rows = [job_row(each) for each in jobs]
    running = sum(not row.ended for row in rows)
    if isinstance(backups, HelmError):
        return JobsContext(rows, running, None, "", backups.sentence, backups.hint)
    last = backups.last
    verified = last.name if last is not None and last.succeeded else ""
    return JobsContext(rows, running, backups, verified)


def job_context(job: JobReply) -> JobContext:
    """Return JOB with the last state of each of its steps."""
    last = {step.service: step for step in job.steps}
    return JobContext(job_row(job), [StepRow(step, *STEP_LOOKS[step.kind]) for step in last.values()])


def job_row(job: JobReply) -> JobRow:
    """Return JOB in a row."""
    ended = job.state in JOB_ENDED
    took = None
    if job.started_at is not None and job.ended_at is not None:
        took = (job.ended_at - job.started_at).total_seconds()
    failed = job.result.detail if job.result is not None else ""
    tone, icon = JOB_LOOKS[job.state]
    return JobRow(job, tone, icon, took, failed or job.step or _nothing_yet(job), ended)


def _nothing_yet(job: JobReply) -> str:
    if job.state == "queued":
        return "waits until it can begin"
    return counted(len(job.steps), "step") if job.steps else ""
