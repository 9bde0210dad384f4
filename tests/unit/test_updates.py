"""Updates that wait to be installed: what apt says, when it is asked, and what it costs those who ask."""

import asyncio
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from helmd.operations.monitoring import updates as updates_module
from helmd.operations.monitoring.updates import PendingUpdates, updates_in
from tests.waiting import WITHIN, eventually

SIMULATED = """Reading package lists...
The following packages will be upgraded:
  base-files libssl3 tzdata
3 upgraded, 1 newly installed, 0 to remove and 0 not upgraded.
Inst base-files [12.4+deb12u11] (12.4+deb12u15 Debian:12.15/oldstable [amd64])
Conf base-files (12.4+deb12u15 Debian:12.15/oldstable [amd64])
Inst libssl3 [3.0.15-1~deb12u1] (3.0.17-1~deb12u3 Debian:12.15/oldstable, Debian-Security:12/oldstable-security)
Inst linux-image-6.1.0-40-amd64 (6.1.153-1 Debian-Security:12/oldstable-security [amd64])
Inst tzdata [2025b-0+deb12u1] (2025b-0+deb12u2 Debian:12-updates/oldstable-updates [all])
"""
THEN = datetime(2026, 11, 28, tzinfo=UTC)


def test_what_apt_would_install() -> None:
    found = updates_in(SIMULATED, THEN)
    assert (found.total, found.security, found.listed_at) == (4, 2, THEN)
    assert [(each.package, each.installed, each.available, each.security) for each in found.packages] == [
        ("libssl3", "3.0.15-1~deb12u1", "3.0.17-1~deb12u3", True),
        ("linux-image-6.1.0-40-amd64", None, "6.1.153-1", True),
        ("base-files", "12.4+deb12u11", "12.4+deb12u15", False),
        ("tzdata", "2025b-0+deb12u1", "2025b-0+deb12u2", False),
    ]
    assert updates_in("", THEN).packages == ()


def a_root(directory: Path) -> Path:
    (directory / "var/lib/apt/lists").mkdir(parents=True)
    (directory / "var/lib/dpkg").mkdir(parents=True)
    (directory / "var/lib/dpkg/status").touch()
    (directory / "var/lib/apt/lists/archive_dists_oldstable_main_binary-amd64_Packages").touch()
    return directory


async def test_apt_is_asked_again_only_after_a_change(tmp_path: Path) -> None:
    root = a_root(tmp_path)
    (tmp_path / "said").write_text(SIMULATED)
    command = ("sh", "-c", f"echo x >> {tmp_path}/asked; cat {tmp_path}/said")
    updates = PendingUpdates(root, command)
    for _ in range(3):
        found = await updates.current()
        assert found is not None and found.total == 4
    assert (tmp_path / "asked").read_text() == "x\n"
    (tmp_path / "said").write_text("")
    os.utime(root / "var/lib/dpkg/status", (1, 1))
    found = await updates.current()
    assert found is not None and found.total == 0 and (tmp_path / "asked").read_text() == "x\nx\n"


async def test_without_lists_or_apt_nothing_is_known(tmp_path: Path) -> None:
    assert await PendingUpdates(tmp_path).current() is None
    assert await PendingUpdates(a_root(tmp_path), ("/nonexistent/apt-get",)).current() is None
    assert await PendingUpdates(tmp_path, ("sh", "-c", "echo 'Inst a (1 x [all])'; exit 100")).current() is None


async def test_nobody_waits_for_an_apt_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(updates_module, "APT_WAIT_SECONDS", 0.2)
    monkeypatch.setattr(updates_module, "_APT_SECONDS", 1.0)
    updates = PendingUpdates(a_root(tmp_path), ("sleep", "600"))
    async with asyncio.timeout(WITHIN):
        assert await updates.current() is None
        assert await updates.current() is None
    # Ended by its own limit: no process is left behind.
    await eventually(lambda: updates._stamp is not None)


async def test_the_real_apt_needs_no_rights(monkeypatch: pytest.MonkeyPatch) -> None:
    """It answers, whatever there is to install here; that takes seconds with a cold cache."""
    assert shutil.which("apt-get")
    monkeypatch.setattr(updates_module, "_APT_SECONDS", 10 * WITHIN)
    async with asyncio.timeout(10 * WITHIN):
        updates = PendingUpdates()
        while updates._stamp is None:
            await updates.current()
    assert updates._known is None or updates._known.security <= updates._known.total
