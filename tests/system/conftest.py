"""The sandbox that most system tests share. It is started by `scripts/demo`, which is thereby tested itself.

With pytest-xdist there are two, each with half of the tests.

Tests add services by files in ``services.d`` and remove them. HIVEMATRIX_TEST_SANDBOX is the sandbox's name. If it is
already up with the demo, it is used and not stopped, for working on one test.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.booted import RELEASE, TOP, Sandbox, run
from tests.system.dashboard import Dashboard, dashboard_in
from tests.system.packaged import build

HERE = Path(__file__).parent
GIVEN = os.environ.get("HIVEMATRIX_TEST_SANDBOX")
DEMOS = ("demo", "demo-2")
"""Groups of the tests in the demo, one for each sandbox; that of the first shares this machine's network."""
SECOND_FROM = "test_n"
"""The first file name of the second group; both groups take about the same time."""
LONGEST = ("test_machine_loss", "test_upgrade")
FIRST = pytest.StashKey[str]()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Set the groups for pytest-xdist (--dist loadgroup), and the order in which its processes run them.

    Two processes run the tests in the demo, each in a sandbox; the third runs the unit tests, then those with sandboxes
    of their own, the longest first; each process that has finished runs the next of these. Of those in the demo, tests
    that measure time are first, when other processes soon finish a test; those that reboot the sandbox, or change it
    permanently, are last, so that they do not affect others.
    """

    def rank(item: pytest.Item) -> tuple[int, bool, bool]:
        last, alone = (item.get_closest_marker(name) is not None for name in ("runs_last", "alone"))
        if "PYTEST_XDIST_WORKER" not in os.environ:
            return 0, last, False
        group = item.get_closest_marker("xdist_group")
        if group is None:
            return len(DEMOS), last, False
        if group.args[0] in DEMOS:
            return DEMOS.index(group.args[0]), last, not alone
        return len(DEMOS) + (1 if group.args[0] in LONGEST else 2), last, False

    for item in items:
        if item.path.is_relative_to(HERE):
            assert isinstance(item, pytest.Function)
            item.add_marker(pytest.mark.xdist_group(group_of(item)))
    items.sort(key=rank)


def group_of(item: pytest.Function) -> str:
    """Return the xdist group of a test: one of DEMOS for tests in the demo, the first without xdist, else its file."""
    if "demo" not in item.fixturenames:
        return item.path.stem
    return DEMOS["PYTEST_XDIST_WORKER" in os.environ and not GIVEN and item.path.stem >= SECOND_FROM]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Record the group of the first test in the demo, which a fixture of the session can't find out."""
    if isinstance(item, pytest.Function) and "demo" in item.fixturenames:
        item.config.stash.setdefault(FIRST, group_of(item))


@pytest.fixture(scope="session")
def dashboard(demo: Sandbox) -> Iterator[Dashboard]:
    """Yield the dashboard of the demo in one browser for all tests of pages."""
    with dashboard_in(demo) as made:
        yield made


@pytest.fixture(scope="session")
def demo(pytestconfig: pytest.Config) -> Iterator[Sandbox]:
    """Yield the sandbox with the demo, as started by `scripts/demo`."""
    name = pytestconfig.stash[FIRST].replace("demo", "helm")
    box = Sandbox(GIVEN or name, checks_replies=True)
    if GIVEN and box.script("status").code == 0:
        yield box
        return
    demo = [str(TOP / "scripts/demo"), "--name", box.name]
    try:
        done = run([*demo, *RELEASE], timeout=900)
        box.demo_seconds, box.demo_output, box.demo_code = done.seconds, done.text, done.code
        done.check(demo)
        yield box
    finally:
        run([*demo, "--stop"], timeout=120)


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the package of this checkout, built once for all sandboxes that it is installed in."""
    return Path(shutil.copy(build(), tmp_path_factory.mktemp("package")))


@pytest.fixture
def box(demo: Sandbox) -> Iterator[Sandbox]:
    """Yield the sandbox for a test that registers services, and remove these afterwards."""
    try:
        yield demo
    finally:
        demo.unregister()
