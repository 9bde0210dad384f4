"""The booted Debian that all system tests share: `scripts/demo` brings it up once, so that it is tested itself.

Tests add services by files in ``services.d`` and take them away again. HIVEMATRIX_TEST_SANDBOX=NAME uses a sandbox that
is already up with the demo in it (and leaves it up), for working on one test.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.booted import RELEASE, TOP, Sandbox, run

HERE = Path(__file__).parent


def pytest_itemcollected(item: pytest.Item) -> None:
    """One process runs all system tests (pytest-xdist, --dist loadgroup): there is one demo, and some measure time."""
    if item.path.is_relative_to(HERE):
        item.add_marker(pytest.mark.xdist_group("system"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that reboot the sandbox, or change it for good, come last, so that the others have had their results."""
    items.sort(key=lambda item: item.get_closest_marker("runs_last") is not None)


@pytest.fixture(scope="session")
def demo() -> Iterator[Sandbox]:
    """The sandbox with the demo in it, as `scripts/demo` leaves it."""
    if name := os.environ.get("HIVEMATRIX_TEST_SANDBOX"):
        yield Sandbox(name)
        return
    done = run([str(TOP / "scripts/demo"), *RELEASE], timeout=900)
    box = Sandbox("helm", done.seconds, done.text, done.code)
    try:
        if done.code:
            pytest.fail(f"scripts/demo: exit code {done.code}\n{done.text}")
        yield box
    finally:
        run([str(TOP / "scripts/demo"), "--stop"], timeout=120)


@pytest.fixture
def box(demo: Sandbox) -> Iterator[Sandbox]:
    """The sandbox, for a test that adds services of its own."""
    try:
        yield demo
    finally:
        demo.unregister()
