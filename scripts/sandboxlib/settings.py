"""What a sandbox was started with: its network, its base and layers, and its limits.

Not in place.py: `exec`, of which a test run has thousands, loads that and not what is needed here.
"""

import json
import os
import re
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from .place import TASKS, SandboxError

MEMORY = 4 << 30
DISK = 20 << 30  # the image is sparse: it takes what was written
LEAST_DISK = 1 << 30
LEAST_MEMORY = 256 << 20  # systemd, its journal and a user manager take about 60 MB
LEAST_TASKS = 100


@dataclass(frozen=True)
class Limits:
    """What all processes of a sandbox may have together.

    ``memory`` is in bytes, swap included, ``tasks`` are processes and threads, ``disk`` is the disk's size in bytes.
    """

    memory: int
    tasks: int = TASKS
    disk: int = DISK


def default_memory() -> int:
    """Return the default limit in bytes: 4 GiB, and less on a machine that would have too little left."""
    return min(MEMORY, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * 3 // 4)


def parse_size(option: str, word: str, least: int) -> int:
    """Parse the value WORD of OPTION, such as `4G` or `512M`; return bytes. Raises SandboxError below LEAST."""
    found = re.fullmatch(r"([1-9][0-9]{0,8})([MG])", word)
    number = int(found[1]) << (30 if found[2] == "G" else 20) if found else 0
    if number < least:
        raise SandboxError(f"{option} {word}: not a size of at least {least >> 20}M", "use M or G, for example 6G")
    return number


@dataclass(frozen=True)
class Settings:
    """The settings of a sandbox, stored in its directory for reboot and powercut."""

    network: str
    base: str
    release: str
    limits: Limits
    publish: tuple[tuple[int, int], ...] = ()
    layers: tuple[str, ...] = ()
    started: float = field(default_factory=time.time)

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> "Settings":
        raw = json.loads(path.read_text())
        return cls(
            network=str(raw["network"]),
            base=str(raw["base"]),
            # One that an older version of this script has started, of the one release and without limits.
            release=str(raw.get("release", "bookworm")),
            limits=Limits(**raw["limits"]) if "limits" in raw else Limits(default_memory()),
            publish=tuple((int(host), int(inside)) for host, inside in raw["publish"]),
            layers=tuple(str(layer) for layer in raw["layers"]),
            started=float(raw["started"]),
        )
