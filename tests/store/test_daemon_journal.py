"""helmd-journal as a process: what it notifies systemd of, with PostgreSQL away and there, and how it ends."""

import asyncio
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.store.conftest import Database
from tests.waiting import WITHIN

ROOT = Path(__file__).parents[2]
JOURNAL = ("/usr/bin/python3", "-m", "helmd.daemon", "journal")


class Manager:
    """The end of NOTIFY_SOCKET where systemd would listen."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)
        self.received: list[str] = []

    async def receive(self, *parts: str, seconds: float = WITHIN) -> str:
        """Return the next message that has one of PARTS in it."""
        async with asyncio.timeout(seconds):
            while True:
                message = (await asyncio.get_running_loop().sock_recv(self._socket, 4096)).decode()
                self.received.append(message)
                if any(part in message for part in parts):
                    return message

    def close(self) -> None:
        self._socket.close()


@asynccontextmanager
async def started(
    home: Path, *command: str, **environment: str
) -> AsyncIterator[tuple[Manager, asyncio.subprocess.Process]]:
    manager = Manager(home / "notify")
    variables = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "XDG_RUNTIME_DIR": str(home / "run"),
        "NOTIFY_SOCKET": str(manager.path),
        **environment,
    }
    process = await asyncio.create_subprocess_exec(
        *command, env=variables, cwd=ROOT, stderr=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    try:
        yield manager, process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()
        manager.close()


@pytest.fixture
def home() -> Iterator[Path]:
    """Yield a directory with a short path: that of a unix socket has at most 107 bytes (unix(7)); tmp_path may be
    longer.
    """
    with tempfile.TemporaryDirectory(prefix="helm-") as made:
        yield Path(made)


async def test_ready_without_a_store_then_with_it_and_a_clean_end(database: Database, home: Path) -> None:
    sockets = home / "run/hivematrix/postgres-helm"
    sockets.mkdir(parents=True)
    async with started(home, *JOURNAL, WATCHDOG_USEC="4000000") as (manager, process):
        await manager.receive("READY=1")
        assert "can't be reached" in await manager.receive("STATUS=waiting")
        await manager.receive("WATCHDOG=1")
        (sockets / ".s.PGSQL.5432").symlink_to(database.cluster.directory / ".s.PGSQL.5432")
        # The latter on a machine with a journal that has entries of this account.
        await manager.receive("STATUS=the journal has nothing of this account yet", "STATUS=stored up to")
        assert database.query("SELECT count(*) > 0 FROM schema_migrations") == [(True,)]
        asked = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        process.send_signal(signal.SIGHUP)
        usec = int((await manager.receive("RELOADING=1")).partition("MONOTONIC_USEC=")[2])
        assert asked <= usec <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        await manager.receive("READY=1")
        process.send_signal(signal.SIGTERM)
        await manager.receive("STOPPING=1")
        _, errors = await process.communicate()
        assert process.returncode == 0
        assert errors.decode().count("can't be reached") == 1
        assert "Traceback" not in errors.decode()


async def test_faulty_settings_end_it_at_once_with_the_place(tmp_path: Path) -> None:
    config = tmp_path / ".config/hivematrix"
    config.mkdir(parents=True)
    (config / "helm.toml").write_text("[store]\ndatabas = 3\n")
    async with started(tmp_path, *JOURNAL) as (_, process):
        _, errors = await process.communicate()
    assert process.returncode == 78
    assert f"{config}/helm.toml:2" in errors.decode()


async def test_a_loop_that_hangs_gets_no_watchdog_message(tmp_path: Path) -> None:
    hanging = (
        "import asyncio, os\n"
        "from systemd import daemon\n"
        "from helmd.lifecycle import Lifecycle, watchdog_seconds\n"
        "life = Lifecycle(daemon.notify, watchdog_seconds(os.environ, os.getpid()))\n"
        "async def work():\n"
        "    life.ready('at work')\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(life.run(work()))\n"
    )
    async with started(tmp_path, sys.executable, "-c", hanging, WATCHDOG_USEC="400000") as (manager, process):
        await manager.receive("READY=1")
        begun = time.monotonic()
        try:
            while time.monotonic() - begun < 1.5:
                await manager.receive("WATCHDOG=1", seconds=1)
        except TimeoutError:
            pass
        assert manager.received.count("WATCHDOG=1") <= 3
        process.send_signal(signal.SIGINT)
        await process.communicate()
        assert process.returncode == 0


def configured(home: Path, name: str, text: str) -> Path:
    """Return a file of the account's configuration."""
    file = home / ".config/hivematrix" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


async def test_faulty_services_do_not_stop_it(tmp_path: Path) -> None:
    file = configured(tmp_path, "services.toml", "[services.core]\nprot = 5000\n")
    async with started(tmp_path, *JOURNAL) as (manager, process):
        await manager.receive("STATUS=waiting")
        process.send_signal(signal.SIGTERM)
        _, errors = await process.communicate()
    assert process.returncode == 0
    assert f"{file}:2" in errors.decode()


async def test_faulty_formats_end_it_at_once_with_the_place(tmp_path: Path) -> None:
    file = configured(tmp_path, "formats.toml", '[formats.mine]\nfirst = "x"\npattern = "(x"\n')
    async with started(tmp_path, *JOURNAL) as (_, process):
        _, errors = await process.communicate()
    assert process.returncode == 78
    assert f"{file}:3" in errors.decode()
    assert "Traceback" not in errors.decode()


MINE = '[formats.mine]\norder = 1\nfirst = "@"\npattern = "@(?P<message>.*)"\n'


async def test_changed_formats_have_it_start_again(tmp_path: Path) -> None:
    """systemd starts it again, as its unit says."""
    async with started(tmp_path, *JOURNAL) as (manager, process):
        await manager.receive("STATUS=waiting")
        process.send_signal(signal.SIGHUP)
        await manager.receive("RELOADING=1")
        await manager.receive("READY=1")
        file = configured(tmp_path, "formats.toml", MINE.replace("(?P<", "(?P["))
        process.send_signal(signal.SIGHUP)
        await manager.receive("STATUS=reload failed")
        assert process.returncode is None
        file.write_text(MINE)
        process.send_signal(signal.SIGHUP)
        await manager.receive("STOPPING=1")
        _, errors = await process.communicate()
    assert process.returncode == 0
    assert f"{file}:4" in errors.decode()
    assert "the formats have changed" in errors.decode()
