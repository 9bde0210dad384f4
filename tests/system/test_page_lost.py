"""Pages that lose their session: each says so, and goes on where it was."""

import secrets
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from selenium.webdriver.common.by import By

from tests.system.booted import Sandbox, until
from tests.system.dashboard import HELM, Dashboard
from tests.system.keycloak_admin import REALM, Admin, person
from tests.system.test_jobs import api
from tests.system.test_page_logs import ids, loaded, post, stored
from tests.system.test_page_overview import FAILING, act, live


@pytest.fixture(autouse=True)
def one_tab(dashboard: Dashboard) -> Iterator[None]:
    yield
    driver = dashboard.browser.driver

    def close() -> None:
        for handle in driver.window_handles[1:]:
            driver.switch_to.window(handle)
            driver.close()
        driver.switch_to.window(driver.window_handles[0])

    dashboard.browser.do(close)
    dashboard.console_messages()


@pytest.fixture
def service(demo: Sandbox) -> str:
    """The name of one with 20 entries."""
    name = f"lost-{secrets.token_hex(3)}"
    add(demo, name, 0, 20)
    return name


def add(box: Sandbox, name: str, first: int, count: int) -> None:
    now = datetime.now(UTC)
    entries: list[dict[str, Any]] = [
        {"level": "INFO", "message": f"line {n}", "timestamp": (now - timedelta(milliseconds=count - n)).isoformat()}
        for n in range(first, first + count)
    ]
    post(box, name, entries)
    total = first + count
    until(lambda: box.sql(f"SELECT count(*) FROM log_entries WHERE service_name = '{name}'") == str(total), within=30)


def tab(page: Dashboard, number: int) -> None:
    driver = page.browser.driver
    page.browser.do(lambda: driver.switch_to.window(driver.window_handles[number]))


def said(driver: Any) -> str:
    """What the tab says of its session."""
    return " ".join(each.text for each in driver.find_elements(By.CSS_SELECTOR, "[data-session-ended]"))


def new_tab(page: Dashboard, path: str) -> None:
    page.browser.do(lambda: page.browser.driver.switch_to.new_window("tab"))
    page.browser.get(HELM + path)
    page.browser.until_there("[data-theme-switch]:not([hidden])")


def shows_exactly_what_is_stored(page: Dashboard, box: Sandbox, name: str) -> None:
    wanted = stored(box, f"service_name = '{name}'")
    until(lambda: ids(page) == wanted, within=30)
    rows = page.browser.run("return [...document.querySelectorAll('.helm-line')].map((each) => each.dataset.id)")
    assert len(rows) == len(set(rows)) > 0


def test_a_session_that_ends_is_said_in_every_tab_and_each_goes_on_where_it_was(
    dashboard: Dashboard, demo: Sandbox, service: str
) -> None:
    browser, admin = dashboard.browser, Admin(demo)
    with person(demo, "admins") as who:
        dashboard.log_in(who)
        browser.get(f"{HELM}logs?query=service:{service}&wrap=1")
        loaded(dashboard)
        new_tab(dashboard, "?sort=service")
        new_tab(dashboard, "")
        act(dashboard, "ticker", "restart")
        browser.until_there("dialog[open] button[type=submit]")
        browser.type("dialog #helm-field-reason", "half written")
        urls = [f"{HELM}logs?query=service:{service}&wrap=1", f"{HELM}?sort=service", HELM]
        user = admin("GET", f"/{REALM}/users?exact=true&username={who.name}").json()[0]["id"]
        assert admin("POST", f"/{REALM}/users/{user}/logout").code == 204
        for number in (2, 1, 0):
            tab(dashboard, number)
            browser.until(lambda driver: "Your session has ended. Log in" in said(driver), 90)
            assert live(dashboard) == "session ended" and browser.title.startswith("Session ended")
            assert browser.url == urls[number]
        add(demo, service, 20, 10)
        # In this tab the login leads back to the same page; the others follow.
        browser.click("[data-session-ended] button")
        dashboard.fill_in_login(who)
        loaded(dashboard)
        assert browser.url == urls[0] and live(dashboard) in ("live", "connecting")
        shows_exactly_what_is_stored(dashboard, demo, service)
        tab(dashboard, 1)
        browser.until(lambda driver: not driver.find_elements(By.CSS_SELECTOR, "[data-session-ended]"))
        browser.until_there("[data-theme-switch]:not([hidden])")
        until(lambda: live(dashboard) == "live", within=30)
        assert browser.url == urls[1]
        # What has been written is still there, and can be sent.
        tab(dashboard, 2)
        browser.until(lambda driver: "logged in again" in said(driver))
        reason = "return document.querySelector('#helm-field-reason').value"
        assert browser.run(reason) == "half written"
        browser.click("dialog button[type=submit]")
        browser.until_there("dialog .helm-ending--ok", 60)
        dashboard.press("Escape")
        browser.until(lambda driver: not driver.find_elements(By.CSS_SELECTOR, "[data-session-ended]"))
        until(lambda: live(dashboard) == "live", within=30)
        audit = demo.helmctl("audit", "--json", "-n", "50").out
        assert "half written" in audit and who.name in audit
        # Who logs out does so in all tabs: what they showed is gone.
        browser.click(".helm-top__form button")
        browser.until_at(f"{HELM}logout")
        for number in (0, 1):
            tab(dashboard, number)
            browser.until_at(f"{HELM}logout")


SILENT = """
const [path] = arguments;
const [fetched, later] = [window.fetch, window.setTimeout];
window.silent = 0;
window.setTimeout = (what, limit, ...more) => later(what, limit === 40000 ? 2000 : limit, ...more);
window.fetch = (url, how) => {
  if (window.silent || !String(url).includes(path)) {
    return fetched(url, how);
  }
  window.silent += 1;
  return Promise.resolve(new Response(new ReadableStream(), { headers: { "Content-Type": "text/event-stream" } }));
};
"""
"""Nothing ever comes on the first connection to a path, though others are answered, as behind a proxy that has lost it.
The limit for that is shortened.
"""


def test_new_lines_come_though_their_connection_has_gone_silent(
    dashboard: Dashboard, demo: Sandbox, service: str
) -> None:
    browser = dashboard.browser
    dashboard.open(f"logs?query=service:{service}", "owner")
    loaded(dashboard)
    browser.run(SILENT, "logs/stream")
    browser.type("[data-logs-input]", "line\n")
    browser.until(lambda driver: driver.execute_script("return window.silent") == 1)
    add(demo, service, 20, 5)
    shows_exactly_what_is_stored(dashboard, demo, service)
    assert dashboard.console_messages() == []


def test_the_log_of_a_job_comes_though_its_connection_has_gone_silent(dashboard: Dashboard, demo: Sandbox) -> None:
    browser = dashboard.browser
    dashboard.open("", "owner")
    demo.register("failing", FAILING)
    try:
        status, accepted = api(demo, "POST", "/api/services/failing/start", {"wait": False})
        assert status == 202
        source = f"((...arguments) => {{{SILENT}}})('/log')"
        begun = {"source": source}
        script = browser.do(lambda: browser.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", begun))
        try:
            browser.get(f"{HELM}jobs/{accepted['job']['id']}")
            browser.until(lambda driver: "failing" in driver.find_element(By.CSS_SELECTOR, "[data-job-log]").text, 60)
            assert browser.run("return window.silent") == 1
        finally:
            browser.do(lambda: browser.driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", script))
    finally:
        demo.unregister()
    assert dashboard.console_messages() == []
