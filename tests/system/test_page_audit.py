"""The page of the audit trail: what was done and refused is there at once, found again by filters, and copied."""

import json
import secrets
from collections.abc import Iterator

import pytest
from selenium.webdriver.common.by import By

from tests.system.booted import Sandbox
from tests.system.dashboard import Dashboard, dashboard_in
from tests.system.test_page_service import clean

MARK = secrets.token_hex(4)
HOSTILE = f"<b>{MARK}</b>"


@pytest.fixture(scope="module")
def pages(demo: Sandbox) -> Iterator[Dashboard]:
    with dashboard_in(demo) as made:
        yield made


def table(pages: Dashboard) -> str:
    return pages.browser.text('[data-live-part="audit"]')


def has(pages: Dashboard, text: str) -> None:
    """The records come to have TEXT by themselves."""
    pages.browser.until(
        lambda driver: text in driver.find_element(By.CSS_SELECTOR, '[data-live-part="audit"]').text, within=15
    )


def test_what_is_done_and_refused_is_there_at_once(pages: Dashboard, demo: Sandbox) -> None:
    pages.open("audit")
    demo.helmctl("restart", "ticker", "--reason", f"because {HOSTILE}")
    has(pages, f"because {HOSTILE}")
    row = pages.browser.texts('[data-live-part="audit"] tbody tr')[0]
    assert "restart" in row and "ticker" in row and "done" in row and "hive" in row
    pages.log_in_as("technician")
    who = pages.person("technician").name
    pages.browser.get("http://localhost:5004/helm/")
    answer = pages.browser.run(
        "return fetch('/helm/api/services/ticker/stop', {method: 'POST'}).then((answer) => answer.status)"
    )
    assert answer == 403
    pages.console_messages()
    pages.open(f"audit?who={who}&result=refused")
    has(pages, "Stop a service")
    assert "POST /api/services/{name}/stop" in table(pages) and "requires role" in table(pages)
    clean(pages, "audit")


CUT = """
const [text] = arguments;
const fetched = window.fetch;
window.cut = 0;
window.fetch = async (...given) => {
  const reply = await fetched(...given);
  if (window.cut || !String(given[0]).includes("part=audit") || !(await reply.clone().text()).includes(text)) {
    return reply;
  }
  window.cut += 1;
  const body = new ReadableStream({ start: (control) => control.error(new TypeError("cut off")) });
  return new Response(body, { status: reply.status, headers: reply.headers });
};
"""
"""The first answer with a text is cut off behind its headers, as by a proxy that goes away."""


def test_what_was_cut_off_is_fetched_again(pages: Dashboard, demo: Sandbox) -> None:
    """The tag of an answer whose body did not arrive is not sent as that of what is shown."""
    pages.open("audit")
    reason = f"cut {secrets.token_hex(4)}"
    pages.browser.run(CUT, reason)
    demo.helmctl("restart", "ticker", "--reason", reason)
    has(pages, reason)
    assert pages.browser.run("return window.cut") == 1
    assert pages.console_messages() == []


SLOW = """
const fetched = window.fetch;
const limited = AbortSignal.timeout.bind(AbortSignal);
window.limits = [];
AbortSignal.timeout = (limit) => (window.limits.push(limit), limited(limit / 10));
window.fetch = (url, how) => !String(url).includes("part=audit") ? fetched(url, how) : new Promise((answer, fail) => {
  how.signal.addEventListener("abort", () => fail(how.signal.reason));
  setTimeout(() => how.signal.aborted || fetched(url, { ...how, signal: null }).then(answer, fail), 1600);
});
"""
"""Every answer takes a third longer than the limit that a page begins with; each limit is a tenth of that."""


def test_what_always_takes_longer_than_the_limit_is_given_longer(pages: Dashboard, demo: Sandbox) -> None:
    pages.open("audit")
    reason = f"slow {secrets.token_hex(4)}"
    pages.browser.run(SLOW)
    demo.helmctl("restart", "ticker", "--reason", reason)
    has(pages, reason)
    assert pages.browser.run("return window.limits.includes(24000)")
    assert pages.console_messages() == []


def test_filters_are_in_the_url(pages: Dashboard) -> None:
    browser = pages.browser
    pages.open("audit")
    browser.type("[name=service]", "ticker\n")
    browser.until(lambda driver: "service=ticker" in driver.current_url)
    has(pages, "restart")
    assert set(browser.texts('[data-live-part="audit"] td[data-label="Service"]')) == {"ticker"}
    browser.click("select[name=result] option:nth-child(4)")
    browser.until(lambda driver: "result=failed" in driver.current_url and "service=ticker" in driver.current_url)
    pages.open("audit?start=2100-01-01T00:00:00Z")
    assert "No record matches the filter" in table(pages)
    assert browser.run("return document.querySelector('[data-time=start]').value").startswith("2100-01-01")
    pages.open("audit?start=nonsense")
    assert browser.text("[role=alert]").startswith("Start_time") or "start" in browser.text("[role=alert]").lower()
    assert pages.console_messages() == []


def test_copied_as_csv_and_json(pages: Dashboard) -> None:
    browser = pages.browser
    pages.open("audit?service=ticker")
    browser.run("navigator.clipboard.writeText = async (text) => { window.copied = text; }")
    browser.click("[data-table-copy=json]")
    records = json.loads(browser.run("return window.copied"))
    assert records[0]["service"] == "ticker" and any(MARK in each["detail"] for each in records)
    browser.click("[data-table-copy=csv]")
    assert browser.run("return window.copied").splitlines()[0].replace('"', "").startswith("when,who,what")


def test_other_roles_have_no_audit_trail(pages: Dashboard) -> None:
    pages.open("", "technician")
    assert "Audit" not in pages.browser.texts(".helm-rail__item")
    pages.browser.get("http://localhost:5004/helm/audit")
    assert "equires role" in pages.browser.text("main")
    pages.console_messages()


def test_behind_the_gateway(pages: Dashboard) -> None:
    pages.open_behind_gateway("audit?service=ticker")
    assert "restart" in table(pages)
    pages.console_messages()
