"""The booted Debian that most system tests share: `scripts/demo` brings it up once, so that it is tested itself.

Tests add services by files in ``services.d`` and take them away again. HIVEMATRIX_TEST_SANDBOX is the sandbox's name.
One of that name that is already up, with the demo in it, is used and left up, for working on one test.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.reruns import pytest_report_teststatus, pytest_runtest_protocol, pytest_terminal_summary
from tests.system.booted import RELEASE, TOP, Sandbox, run
from tests.system.dashboard import Dashboard, dashboard_in
from tests.system.packaged import build

__all__ = ["pytest_report_teststatus", "pytest_runtest_protocol", "pytest_terminal_summary"]
"""Hooks by which each system test has a second try."""

HERE = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Groups for pytest-xdist (--dist loadgroup), and the order in which its processes take them.

    One process runs all tests in the demo, meanwhile another the unit tests, then those with sandboxes of their own.
    Tests that measure time are the demo's first: then it does not take long until the other process has ended a test.
    Those that reboot the sandbox, or change it for good, come last, so that the others have had their results.
    """

    def rank(item: pytest.Item) -> tuple[int, bool, bool]:
        last, alone = (item.get_closest_marker(name) is not None for name in ("runs_last", "alone"))
        if "PYTEST_XDIST_WORKER" not in os.environ:
            return 0, last, False
        group = item.get_closest_marker("xdist_group")
        turn = 1 if group is None else 0 if group.args == ("demo",) else 2
        return turn, last, turn == 0 and not alone

    for item in items:
        if item.path.is_relative_to(HERE):
            assert isinstance(item, pytest.Function)
            item.add_marker(pytest.mark.xdist_group("demo" if "demo" in item.fixturenames else item.path.stem))
    items.sort(key=rank)


@pytest.fixture(scope="session")
def dashboard(demo: Sandbox) -> Iterator[Dashboard]:
    """The dashboard of the demo in one browser for all tests of pages."""
    with dashboard_in(demo) as made:
        yield made


@pytest.fixture(scope="session")
def demo() -> Iterator[Sandbox]:
    """The sandbox with the demo in it, as `scripts/demo` leaves it."""
    name = os.environ.get("HIVEMATRIX_TEST_SANDBOX")
    box = Sandbox(name or "helm", checks_replies=True)
    if name and box.script("status").code == 0:
        yield box
        return
    demo = [str(TOP / "scripts/demo"), "--name", box.name]
    done = run([*demo, *RELEASE], timeout=900)
    box.demo_seconds, box.demo_output, box.demo_code = done.seconds, done.text, done.code
    try:
        done.check(demo)
        yield box
    finally:
        run([*demo, "--stop"], timeout=120)


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package of this checkout, built once for the sandboxes that it is installed in."""
    return Path(shutil.copy(build(), tmp_path_factory.mktemp("package")))


@pytest.fixture
def box(demo: Sandbox) -> Iterator[Sandbox]:
    """The sandbox, for a test that adds services of its own."""
    try:
        yield demo
    finally:
        demo.unregister()
