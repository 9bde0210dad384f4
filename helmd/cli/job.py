"""helmctl as the process of a job (``helmctl --job ID ...``): what it does is written into the job's directory.

Imported by every command, so it imports nothing that only a job needs.
"""

from typing import TYPE_CHECKING, Any

from helmd.cli import output

if TYPE_CHECKING:
    from pathlib import Path

    from helmd.model.errors import HelmError
    from helmd.operations.jobs.process import JobProcess

_job: "JobProcess | None" = None
_cancelled = False


def current_job() -> "JobProcess | None":
    """Return the job that this process is, or None for a command of a person's."""
    return _job


def begin_job(jobs: "Path", job_id: str) -> None:
    """Make this process a job, whose directory is below JOBS. Raises HelmError when it has begun before."""
    global _job
    import signal

    from helmd.operations.jobs.directory import JobDirectory
    from helmd.operations.jobs.process import begin

    signal.signal(signal.SIGTERM, _cancel)
    _job = begin(JobDirectory(jobs), job_id)
    output.record_messages(_job.line)


def end_job(exit_code: int, error: "HelmError | None") -> None:
    """Record how this process ends, if it is a job."""
    if _job is not None:
        _job.ended(exit_code, _cancelled, error)


def _cancel(number: int, frame: Any) -> None:
    """End as by Ctrl-C, once: what follows writes down how it ended."""
    global _cancelled
    import signal

    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _cancelled = True
    raise KeyboardInterrupt
