"""For all tests: no child process and no asyncio task may outlive the test that started it."""

import asyncio
import inspect
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes says something about the machine, not about the code.
settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")


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
    if left:
        # Those that are about to end: a closed server's connections take another turn of the loop.
        _, left = await asyncio.wait(left, timeout=0.5)
    # aiohttp reads and drops the rest of a body for up to ten seconds (lingering_time), also after the client has gone.
    left = {task for task in left if getattr(task.get_coro(), "__qualname__", "") != "RequestHandler.start"}
    assert not left, f"tasks left on the event loop: {left}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`no_task_left` for every coroutine test: as an autouse fixture it would make an event loop for all."""
    for item in items:
        if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj):
            item.fixturenames.insert(0, "no_task_left")
