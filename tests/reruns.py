"""More tries for tests: one late reaction of a loaded machine should not fail a run of 10,000.

A plugin, registered by tests/conftest.py. A second try finds what the first has left; before a third, fixtures of
the module are torn down and set up again. The summary lists what was run again, and why. HIVEMATRIX_TEST_RERUNS=0 gives
no other try. pytest-rerunfailures 10.2, which Debian 12 has, never tears down fixtures of modules and of the
session that were set up before a failure (with its pytest 7.2).
"""

import os
from typing import Any

import pytest
from _pytest.fixtures import FixtureDef
from _pytest.runner import CallInfo, runtestprotocol
from _pytest.terminal import TerminalReporter

_RERUN = "rerun"

_tried: set[FixtureDef[Any]] = set()
"""Fixtures of modules and of the session that have failed, and been set up, a second time."""


def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool:
    """Run ITEM, three times while it fails."""
    hook = item.ihook
    hook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    reports = runtestprotocol(item, log=False, nextitem=nextitem)
    for again in (_second, _third):
        failed = [report for report in reports if report.failed]
        if not failed or os.environ.get("HIVEMATRIX_TEST_RERUNS") == "0" or not again(item):
            break
        for report in failed:
            report.outcome = _RERUN  # type: ignore[assignment]
            hook.pytest_runtest_logreport(report=report)
        reports = runtestprotocol(item, log=False, nextitem=nextitem)
    for report in reports:
        hook.pytest_runtest_logreport(report=report)
    hook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def _second(item: pytest.Item) -> bool:
    """Have fixtures set up again whose set-up failed; once, not for each test that needs them."""
    assert isinstance(item, pytest.Function)
    known = item._fixtureinfo.name2fixturedefs.values()
    failed = {each for found in known for each in found if each.cached_result and each.cached_result[2] is not None}
    if failed & _tried:
        return False
    for each in failed:
        each.cached_result = None
    _tried.update(failed)
    return True


def _third(item: pytest.Item) -> bool:
    """Tear down all fixtures but those of the session. Not if the set-up of one has failed twice."""
    assert isinstance(item, pytest.Function)
    known = item._fixtureinfo.name2fixturedefs.values()
    if any(each.cached_result and each.cached_result[2] is not None for found in known for each in found):
        return False
    state = item.session._setupstate
    # A failure of it is one of the test that needs what was not cleared away.
    CallInfo.from_call(
        lambda: state.teardown_exact(item.session),  # type: ignore[arg-type]
        when="teardown",
        reraise=(pytest.exit.Exception,),
    )
    return True


def pytest_report_teststatus(report: pytest.CollectReport | pytest.TestReport) -> tuple[str, str, str] | None:
    """Report a failure that was followed by another try as a category of its own, not as a failure."""
    return (_RERUN, "R", "RERUN") if report.outcome == _RERUN else None


def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    """What was run again, with what failed the first time."""
    reports = terminalreporter.stats.get(_RERUN, [])
    if reports:
        terminalreporter.section("run again (CONTRIBUTING.md: look into each)")
    for report in reports:
        terminalreporter.line(f"RERUN {report.nodeid} ({report.when})", yellow=True)
        for line in report.longreprtext.splitlines()[-30:]:
            terminalreporter.line(f"    {line}")
