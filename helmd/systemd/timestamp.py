"""Times in systemd's own words ("10 min ago", "yesterday", "-1h"; systemd.time(7)), read by systemd itself."""

import re
import subprocess
from decimal import Decimal

from helmd.model.logs.timestamps import iso_timestamp

_AGO = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|[dhms]))+")
_SECONDS = re.compile(r"^\s*UNIX seconds: @(\d+(?:\.\d+)?)$", re.MULTILINE)


def parse_timestamp(text: str) -> int:
    """Return microseconds since 1970. ISO 8601 with T, Z or an offset, which systemd 252 can't read, is read here.

    Raises ValueError with a sentence.
    """
    if (timestamp := iso_timestamp(text)) is not None:
        return timestamp
    if _AGO.fullmatch(text):
        # As docker logs --since has it.
        text = f"-{text}"
    if text and "\0" not in text:
        done = subprocess.run(
            ["systemd-analyze", "timestamp", "--", text],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=10,
            check=False,
        )
        if done.returncode == 0 and (found := _SECONDS.search(done.stdout)):
            return int(Decimal(found.group(1)) * 1_000_000)
    raise ValueError(
        f'{text[:60]!a} is not a time; examples: "10 min ago", "yesterday", "09:30", "2026-11-23 09:30" or "-1h"'
    )
