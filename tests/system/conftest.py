"""The booted Debian that most system tests share: `scripts/demo` brings it up, so that it is tested itself.

With pytest-xdist there are two, each with half of the tests.

Tests add services by files in ``services.d`` and take them away again. HIVEMATRIX_TEST_SANDBOX is the sandbox's name.
One of that name that is already up, with the demo in it, is used and left up, for working on one test.
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
"""Groups of the tests in the demo, and by them the sandboxes: the first one's shares this machine's network."""
SECOND_FROM = "test_n"
"""Of the tests in the demo, the files from here on take as long as those before."""
LONGEST = ("test_machine_loss", "test_upgrade")
FIRST = pytest.StashKey[str]()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Groups for pytest-xdist (--dist loadgroup), and the order in which its processes take them.

    Two processes run the tests in the demo, each in one of its own, meanwhile the third the unit tests, then those with
    sandboxes of their own, the longest first; whoever has ended takes the next of these. Tests that measure time are
    the demo's first: then it does not take long until the other processes have ended a test. Those that reboot the
    sandbox, or change it for good, come last, so that the others have had their results.
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
    """Of the tests in the demo, half are in one sandbox and half in another; one process has them all in the first."""
    if "demo" not in item.fixturenames:
        return item.path.stem
    return DEMOS["PYTEST_XDIST_WORKER" in os.environ and not GIVEN and item.path.stem >= SECOND_FROM]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Notes what a fixture of the session can't ask for: in whose sandbox the first test is."""
    if isinstance(item, pytest.Function) and "demo" in item.fixturenames:
        item.config.stash.setdefault(FIRST, group_of(item))


@pytest.fixture(scope="session")
def dashboard(demo: Sandbox) -> Iterator[Dashboard]:
    """The dashboard of the demo in one browser for all tests of pages."""
    with dashboard_in(demo) as made:
        yield made


@pytest.fixture(scope="session")
def demo(pytestconfig: pytest.Config) -> Iterator[Sandbox]:
    """The sandbox with the demo in it, as `scripts/demo` leaves it."""
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
    """The package of this checkout, built once for the sandboxes that it is installed in."""
    return Path(shutil.copy(build(), tmp_path_factory.mktemp("package")))


@pytest.fixture
def box(demo: Sandbox) -> Iterator[Sandbox]:
    """The sandbox, for a test that adds services of its own."""
    try:
        yield demo
    finally:
        demo.unregister()
