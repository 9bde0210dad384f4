"""Starting, stopping and restarting over the API: what may be requested, and what a job's steps mean for the reply."""

from helmd.model.api.jobs import Action, ActionsBody, ControlReply, RestartDetails, RestartPartReply, RestartReply
from helmd.model.errors import HelmError, UsageError
from helmd.model.jobs.record import JobRecord, JobStep, JobVerdict
from helmd.model.jobs.replies import ControlFailure, job_failure
from helmd.model.suite.names import HELM_SERVICE, Mode

CONFIRMED = frozenset({"keycloak", "core", "nexus"})
"""Services that a user's session may run through: stopping one ends the means to start it again."""

_STARTED, _STOPPED = "Service started successfully", "Service stopped successfully"


class ConfirmationError(HelmError):
    """The caller must say that they know what they stop."""

    code = "confirmation_required"


def check_mode(body: ActionsBody) -> None:
    """Raise UsageError for an action that has no mode."""
    if body.action in ("stop", "reload") and body.mode is not None:
        raise UsageError(f"mode: a {body.action} has none")


def check_confirmed(action: Action, names: tuple[str, ...], confirm: bool) -> None:
    """Raise ConfirmationError for a stop of services that the caller's own session may run through."""
    touched = [name for name in names if name in CONFIRMED or name == "all"]
    if action == "stop" and touched and not confirm:
        raise ConfirmationError(
            f"stopping {', '.join(touched)} may end the session that this request came through",
            hint='To stop it nevertheless, send "confirm": true. To start it again without a login, use helmctl.',
        )


def check_controlled(names: tuple[str, ...]) -> None:
    """Raise UsageError for Helm itself, which is not one of the services that it starts and stops."""
    if HELM_SERVICE in names:
        raise UsageError("helm: Helm itself is not started or stopped here", hint="Use: systemctl --user restart helmd")


def helmctl_words(action: Action, names: tuple[str, ...], mode: Mode | None) -> tuple[str, ...]:
    """Return the arguments of helmctl that do the same."""
    return (action, *names, "--json", *(("--mode", mode) if mode else ()))


def control_result(
    action: Action, name: str, record: JobRecord, verdict: JobVerdict, pid: int | None, port: int | None
) -> ControlReply | RestartReply | ControlFailure:
    """Return the reply to a request about one service whose job has ended. PID and PORT are those it has now."""
    step = _last_step(record, name)
    if verdict.state != "succeeded":
        return _failure(record, verdict, step)
    if step is not None and step.kind == "already" and action != "restart":
        if action == "stop":
            return ControlFailure("not_running", "Service not running or PID unknown")
        return ControlFailure("already_running", f"Service already running (PID: {pid})" if pid else step.sentence)
    job = record.request.id
    if action == "stop":
        return ControlReply(True, _STOPPED, None, None, job)
    if action == "start":
        return ControlReply(True, _STARTED, pid, port, job)
    details = RestartDetails(RestartPartReply(True, _STOPPED), RestartPartReply(True, _STARTED, pid, port))
    return RestartReply(True, f"Stop: {_STOPPED}. Start: {_STARTED}", pid, port, details, job)


def _last_step(record: JobRecord, name: str) -> JobStep | None:
    ended = [step for step in record.events.steps if step.service == name and step.kind != "in_progress"]
    return ended[-1] if ended else None


def _failure(record: JobRecord, verdict: JobVerdict, step: JobStep | None) -> ControlFailure:
    """Return why it failed: the service's own step, or that of the service whose failure is the cause."""
    failure = job_failure(record, verdict)
    if step is None or step.kind not in ("failed", "skipped") or verdict.state != "failed":
        return failure
    if step.kind == "skipped":
        return ControlFailure(step.code, f"{step.service}: {step.sentence}: {failure.detail}", step.hint, failure.lines)
    return ControlFailure(step.code or "failed", f"{step.service}: {step.sentence}", step.hint, step.lines)
