"""Routes about backups."""

from http import HTTPStatus

from helmd.model.api.backups import BackupList, BackupRequest
from helmd.model.api.jobs import JobAcceptedReply
from helmd.web.api.backups import Backups
from helmd.web.auth.roles import Role
from helmd.web.reply import Reply
from helmd.web.route import Route


def backup_routes(backups: Backups) -> tuple[Route, ...]:
    """Return the routes."""
    path = "/api/backups"
    accepted = Reply(JobAcceptedReply, HTTPStatus.ACCEPTED)
    return (
        Route("GET", path, backups.list, Role.ADMIN, "The backups of the suite", reply=Reply(BackupList)),
        Route(
            "POST",
            path,
            backups.create,
            Role.ADMIN,
            "Make a backup, as a job",
            recent_login=True,
            request=BackupRequest,
            reply=accepted,
        ),
    )
