"""Pages that lose their network for half a minute: each says so, and has what came meanwhile."""

from datetime import UTC, datetime

from tests.system.booted import Sandbox, until
from tests.system.dashboard import Dashboard
from tests.system.test_page_logs import ids, loaded
from tests.system.test_page_lost import add, new_tab, one_tab, service, shows_exactly_what_is_stored, tab
from tests.system.test_page_overview import live

__all__ = ["one_tab", "service"]
CUT = 30.0


def offline(page: Dashboard, cut: bool) -> None:
    """The network of the tab that is looked at."""
    facts = {"offline": cut, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    driver = page.browser.driver
    page.browser.do(lambda: driver.execute_cdp_cmd("Network.enable", {}))
    page.browser.do(lambda: driver.execute_cdp_cmd("Network.emulateNetworkConditions", facts))


def test_a_network_that_is_away_is_said_and_what_came_meanwhile_is_there(
    dashboard: Dashboard, demo: Sandbox, service: str
) -> None:
    browser = dashboard.browser
    dashboard.open(f"logs?query=service:{service}", "owner")
    loaded(dashboard)
    new_tab(dashboard, "")
    browser.run("window.same = true")
    until(lambda: live(dashboard) == "live", within=30)
    try:
        for number in (0, 1):
            tab(dashboard, number)
            offline(dashboard, True)
        began = datetime.now(UTC)
        demo.helmctl("stop", "ticker")
        add(demo, service, 20, 10)
        until(lambda: live(dashboard).startswith("stale since "), within=30)
        assert browser.run("return document.body.classList.contains('helm--stale')")
        tab(dashboard, 0)
        until(lambda: live(dashboard).startswith("stale since "), within=30)
        until(lambda: (datetime.now(UTC) - began).total_seconds() > CUT, within=CUT + 5)
        add(demo, service, 30, 10)
        assert len(ids(dashboard)) == 20
    finally:
        for number in (1, 0):
            tab(dashboard, number)
            offline(dashboard, False)
    until(lambda: live(dashboard) == "live", within=60)
    shows_exactly_what_is_stored(dashboard, demo, service)
    add(demo, service, 40, 5)
    shows_exactly_what_is_stored(dashboard, demo, service)
    tab(dashboard, 1)
    try:
        until(lambda: live(dashboard) == "live", within=60)
        browser.until_there("#service-ticker [data-menu~=start]")
        assert browser.run("return window.same"), "it went on without a reload"
    finally:
        demo.helmctl("start", "ticker")
