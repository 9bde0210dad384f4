"""Bodies about backups."""

from dataclasses import dataclass, field
from datetime import datetime

from helmd.model.api.jobs import MAX_REASON
from helmd.model.json_fields import described


@dataclass(frozen=True, slots=True)
class BackupBody:
    """An archive in the directory of backups."""

    name: str = field(metadata=described("its file name", example="hivematrix-20261128T020000Z.tar.gz.age"))
    made_at: datetime = field(metadata=described("when it was made"))
    size: int = field(metadata=described("bytes", example=48_120_331))


@dataclass(frozen=True, slots=True)
class BackupRunBody:
    """How the last run of a backup ended."""

    at: datetime = field(metadata=described("when it ended"))
    succeeded: bool = field(metadata=described("whether it was made and restored on trial", example=True))
    name: str = field(metadata=described("the archive; empty if it failed"))
    detail: str = field(metadata=described("why it failed; empty if it succeeded", example=""))


@dataclass(frozen=True, slots=True)
class BackupList:
    """The backups of the suite. Their content is not served: whoever has the files and the identity can open them."""

    backups: tuple[BackupBody, ...] = field(metadata=described("the newest first"))
    directory: str = field(metadata=described("where they are", example="/home/hive/.local/state/hivematrix/backups"))
    recipient: str | None = field(metadata=described("the public key that they are encrypted for; null without one"))
    schedule: str = field(metadata=described("when they are made: a calendar event, or never", example="daily"))
    last: BackupRunBody | None = field(metadata=described("the last run; null before the first"))


@dataclass(frozen=True, slots=True)
class BackupRequest:
    """A backup to be made now."""

    reason: str = field(
        default="",
        metadata=described(
            "why, for the log: one line", maxLength=MAX_REASON, pattern=r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]*$"
        ),
    )
