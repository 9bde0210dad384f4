"""The disk of the log store nearly full, and full: nothing is lost, and it goes on by itself once there is space."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.campaign import scaled
from tests.system import log_sources, printed_lines
from tests.system.booted import Sandbox, until
from tests.system.test_loss import health

CLUSTER = "/home/hive/.local/state/hivematrix/postgres-helm"
SETTINGS = "/home/hive/.config/hivematrix/helm.toml"
MARGIN = {"": scaled(1500, 200), "pg_wal": scaled(1000, 40)}
"""Which part of the cluster lies on a small disk, and how many megabytes that has besides what it takes: space for all
that comes once the ballast is gone."""
BURN = "SELECT count(pg_logical_emit_message(false, 'burn', repeat('x', 1000000))) FROM generate_series(1, 1000)"
"""Fills PostgreSQL's log with nothing."""
SECONDS = scaled(60.0, 6.0)
PATIENCE = scaled(300.0, 90.0)
RATE = 1000


@dataclass(frozen=True)
class SmallDisk:
    """A part of the store's cluster on a small file system of its own, in memory."""

    box: Sandbox
    part: str

    @property
    def place(self) -> str:
        return f"{CLUSTER}/{self.part}".rstrip("/")

    def move_there(self) -> None:
        self.box.shell(
            f"""set -e
            size=$(($(du -sm {self.place} | cut -f1) + {MARGIN[self.part]}))m
            mkdir /run/small
            mount -t tmpfs -o size=$size,mode=0700,uid=1000,gid=1000 tmpfs /run/small
            cp -a {self.place}/. /run/small/
            mount --bind /run/small {self.place}
            umount /run/small
            rmdir /run/small""",
            root=True,
        )

    def move_back(self) -> None:
        self.box.shell(
            f"""set -e
            rm -rf {self.place}/ballast {self.place}.whole
            cp -a {self.place} {self.place}.whole
            umount {self.place}
            rm -rf {self.place}
            mv {self.place}.whole {self.place}""",
            root=True,
        )

    def fill(self, leave_percent: float) -> None:
        """Leaves so much of it."""
        free, size, block = map(int, self.box("stat", "-f", "-c", "%a %b %S", self.place).out.split())
        ballast = int(free - size * leave_percent / 100) * block
        assert ballast > 0
        self.box("fallocate", "-l", str(ballast), f"{self.place}/ballast")

    def free(self) -> None:
        self.box("rm", f"{self.place}/ballast")


@pytest.fixture
def disk(box: Sandbox, request: pytest.FixtureRequest) -> Iterator[SmallDisk]:
    disk = SmallDisk(box, getattr(request, "param", ""))
    box("cp", SETTINGS, f"{SETTINGS}.kept")
    box("systemctl", "--user", "stop", "helmd-postgres")
    try:
        disk.move_there()
        box("systemctl", "--user", "start", "helmd-postgres")
        yield disk
    finally:
        box.shell("systemctl --user stop helmd-postgres; systemctl --user reset-failed helmd-postgres", check=False)
        box("mv", f"{SETTINGS}.kept", SETTINGS)
        box("systemctl", "--user", "reload", "helmd", "helmd-journal")
        disk.move_back()
        box("systemctl", "--user", "start", "helmd-postgres")


def status(box: Sandbox) -> str:
    return box("systemctl", "--user", "show", "-P", "StatusText", "helmd-journal").out.strip()


def test_below_the_bound_entries_wait_in_the_journal(disk: SmallDisk) -> None:
    """Both daemons leave the store alone, say so, and take all the same; with space again they go on."""
    box = disk.box
    seconds = SECONDS + 10
    (talker,) = log_sources.register_talkers(box, 1, int(RATE * seconds), RATE)
    until(lambda: health(box)["checks"]["database"]["status"] == "healthy", PATIENCE)
    box.helmctl("start", talker.name)
    began = time.monotonic()
    with log_sources.Poster(box, int(200 * seconds), 200) as posting:
        until(lambda: talker.stored() > 0 and posting.source.stored() > 0, PATIENCE)
        disk.fill(7)
        until(lambda: "less than 10 %" in status(box), 30)
        print(status(box))
        said_by_all(box)
        time.sleep(2)
        before = (talker.stored(), posting.source.stored())
        time.sleep(SECONDS / 2)
        assert (talker.stored(), posting.source.stored()) == before, "the store was to be left alone"
        assert "less than 10 %" in status(box)
        disk.free()
        until(lambda: talker.stored() > before[0], 30)
        repeated = posting.finish(PATIENCE)
    time.sleep(max(0.0, began + seconds - time.monotonic()))
    log_sources.check_each_stored_once([talker, posting.source], PATIENCE)
    print(f"paused at {before}, then all once; {repeated} batches posted again")


def said_by_all(box: Sandbox) -> None:
    """doctor, /health and logs give the reason for which nothing is stored."""
    doctor = box.helmctl("doctor", check=False)
    assert doctor.code == 1 and "no logs are stored" in doctor.out and "stores nothing at present" in doctor.out
    until(lambda: "min_free_percent" in health(box)["checks"]["journal"].get("message", ""), 30)
    until(lambda: "min_free_percent" in box.helmctl("logs", "-n", "1").err, 30)


@pytest.mark.parametrize("disk", MARGIN, indirect=True, ids=lambda part: part or "all")
def test_full_without_a_bound(disk: SmallDisk) -> None:
    """PostgreSQL itself runs out of space, and may end of it. With space again all comes back by itself."""
    box = disk.box
    setting = "s/^#\\?min_free_percent *=.*/min_free_percent = 0/"
    box("sed", "-i", setting, SETTINGS)
    box("systemctl", "--user", "reload", "helmd", "helmd-journal")
    seconds = SECONDS + 12
    talkers = log_sources.register_talkers(box, 2, int(2 * RATE * seconds), 2 * RATE)
    until(lambda: health(box)["checks"]["database"]["status"] == "healthy", PATIENCE)
    helm = {unit: printed_lines.main_pid(box, unit) for unit in ("helmd", "helmd-journal")}
    disk.fill(0.3)
    if disk.part:
        # Without space for its log PostgreSQL ends, and can't start again.
        notified = box.psql(BURN, check=False)
        assert notified.code, "the log was to fill its disk"
    box.helmctl("start", *(talker.name for talker in talkers))
    began = time.monotonic()
    with log_sources.Poster(box, int(200 * seconds), 200) as posting:
        said = until(lambda: (text := status(box)).startswith("waiting") and text, 60)
        print(said)
        if disk.part:
            # More often than systemd lets a unit start within a minute by default.
            until(lambda: printed_lines.restart_count(box, "helmd-postgres") > 5, 60)
        time.sleep(SECONDS)
        print(f"{status(box)}; PostgreSQL restarted {printed_lines.restart_count(box, 'helmd-postgres')} times")
        disk.free()
        repeated = posting.finish(PATIENCE)
    until(lambda: health(box)["checks"]["database"]["status"] == "healthy", PATIENCE)
    time.sleep(max(0.0, began + seconds - time.monotonic()))
    log_sources.check_each_stored_once([*talkers, posting.source], PATIENCE)
    print(f"all once; {repeated} batches posted again")
    assert {unit: printed_lines.main_pid(box, unit) for unit in helm} == helm, "Helm's daemons wait for their store"
