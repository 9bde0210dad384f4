"""For all tests: each has further tries, none leaves a child process or an asyncio task, those that measure time run
alone, and helmd's replies are as documented.
"""

import asyncio
import fcntl
import inspect
import os
import sys
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests import reruns

# How long an example takes says something about the machine, not about the code.
settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")

TURN = os.open(Path(__file__).parent, os.O_RDONLY | os.O_CLOEXEC)
"""On it each process of a test run (pytest-xdist) holds a flock(2): shared, or exclusive while a test measures time."""
GATE = os.open(Path(__file__), os.O_RDONLY | os.O_CLOEXEC)
"""Who waits for the exclusive lock holds this one, so that no other test begins meanwhile: of several processes, one
always has a shared lock.
"""


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(reruns)


@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_runtest_protocol() -> Generator[None, None, None]:
    fcntl.flock(GATE, fcntl.LOCK_SH)
    fcntl.flock(TURN, fcntl.LOCK_SH)
    fcntl.flock(GATE, fcntl.LOCK_UN)
    yield
    # For a child process that shares the descriptor as well.
    fcntl.flock(TURN, fcntl.LOCK_UN)


@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Before a test that measures time, waits until the others have ended theirs. The set-up is not measured."""
    if item.get_closest_marker("alone"):
        fcntl.flock(TURN, fcntl.LOCK_UN)  # for another one that waits to measure
        fcntl.flock(GATE, fcntl.LOCK_EX)
        fcntl.flock(TURN, fcntl.LOCK_EX)
        fcntl.flock(GATE, fcntl.LOCK_UN)
    yield
    if item.get_closest_marker("alone"):
        fcntl.flock(TURN, fcntl.LOCK_SH)


def children() -> set[int]:
    """Pids of this process's living children."""
    found = set()
    for task in Path("/proc/self/task").iterdir():
        for word in read_proc(task / "children").split():
            state = read_proc(Path(f"/proc/{word}/stat")).rpartition(")")[2].split()
            if state and state[0] != "Z":
                found.add(int(word))
    return found


def read_proc(path: Path) -> str:
    """What stands there; nothing for a thread or process that has ended meanwhile."""
    try:
        return path.read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


@pytest.fixture(autouse=True)
def no_child_left() -> Iterator[None]:
    """Fails a test that leaves a child process running.

    Fixtures of a wider scope are set up before this one, so their processes count as having been there.
    """
    before = children()
    yield
    kept = children() - before
    names = [f"{pid} {read_proc(Path(f'/proc/{pid}/cmdline')).replace(chr(0), ' ')[:100]}" for pid in kept]
    assert not kept, f"left running: {names} (this is {os.getpid()})"


@pytest.fixture
async def no_task_left() -> AsyncIterator[None]:
    """Fails a coroutine test that leaves a task on the event loop."""
    before = asyncio.all_tasks()
    yield
    # Set-up and tear-down of a fixture are tasks of their own.
    left = {task for task in asyncio.all_tasks() - before if task is not asyncio.current_task()}
    # aiohttp reads and drops the rest of a body for up to ten seconds (lingering_time), also after the client has gone.
    left = {task for task in left if getattr(task.get_coro(), "__qualname__", "") != "RequestHandler.start"}
    # Those that are about to end: a closed server's connections take some more turns of the loop, of whatever length.
    for _ in range(100):
        if left:
            _, left = await asyncio.wait(left, timeout=0.01)
    assert not left, f"tasks left on the event loop: {left}"


@pytest.fixture(autouse=True, scope="session")
def replies_noted() -> Iterator[None]:
    """The replies of helmd in this process are noted, for `replies_as_documented`."""
    if "helmd.web.server" not in sys.modules:
        # No test of this run has a server.
        yield
        return
    from tests.replies import noted

    with noted():
        yield


@pytest.fixture(autouse=True)
def replies_as_documented() -> Iterator[None]:
    """Fails a test in which helmd gave a reply that its OpenAPI document does not allow."""
    yield
    if "tests.replies" in sys.modules:
        from tests.replies import faults

        assert faults() == []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`no_task_left` for every coroutine test: as an autouse fixture it would make an event loop for all."""
    for item in items:
        if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj):
            item.fixturenames.insert(0, "no_task_left")
