"""Every action of every page, forced to fail: it says before what it will do, then why it did not, and what to do."""

import json
from collections.abc import Mapping

import pytest

from tests.system.dashboard import Dashboard

GONE = "00000000-0000-4000-8000-000000000000"
"""The id of a user that there is not."""
PLANT = """
const [inner, around] = arguments;
const box = document.createElement("div");
Object.assign(box.dataset, around);
for (const {text, ...data} of inner) {
  const made = document.createElement(data.sentence === undefined ? "button" : "span");
  made.textContent = text;
  Object.assign(made.dataset, data);
  box.append(made);
}
box.id = "planted";
document.getElementById("planted")?.remove();
document.querySelector("main").prepend(box);
"""


def plant(page: Dashboard, *inner: Mapping[str, str], **around: str) -> None:
    """Buttons as the page has them, for something that is not there: what is there might be changed."""
    page.browser.do(lambda: page.browser.driver.execute_script(PLANT, list(inner), around))


def fails(page: Dashboard, fill: Mapping[str, str] | None = None, *, plan: bool = True) -> str:
    """The planted button's action, confirmed: the plan, if there can be one, and the refusal with what to do."""
    browser = page.browser
    browser.click("#planted button:last-child")
    if plan:
        browser.until_there("dialog[open] .helm-steps__item", 30)
        browser.until_there("dialog[open] button[type=submit]")
        assert len(browser.text("dialog[open] .helm-steps")) > 15, "says what it will do"
        for selector, text in (fill or {}).items():
            browser.type(f"dialog[open] {selector}", text)
        browser.click("dialog[open] button[type=submit]")
    browser.until_there("dialog[open] .helm-ending--error", 30)
    said = browser.text("dialog[open] .helm-dialog__body")
    assert browser.text("dialog[open] .helm-ending--error").endswith("."), said
    page.press("Escape")
    browser.until(lambda driver: not driver.find_elements("css selector", "dialog[open]"))
    return said


@pytest.fixture
def page(dashboard: Dashboard) -> Dashboard:
    dashboard.complaints()
    return dashboard


def test_services(page: Dashboard) -> None:
    page.open("", "owner")
    page.browser.until_there("#service-ticker")
    for verb in ("start", "stop", "restart", "reload"):
        plant(page, {"text": verb, "action": "service", "verb": verb, "services": "nosuch"})
        said = fails(page, plan=False)
        assert "nosuch" in said and "helmctl" in said
    plant(page, {"text": "stop", "action": "service", "verb": "stop", "services": "ticker nosuch"})
    assert "nosuch" in fails(page, plan=False)
    assert page.box.status("ticker")["ticker"]["status"] == "running", "of several, none is stopped"
    page.complaints()


def test_modules(page: Dashboard) -> None:
    page.open("modules", "owner")
    page.browser.until_there("[data-install]")
    # For these, a job says the plan; there is none where it finds nothing.
    for button in ({"change": "update", "name": "nosuch"}, {"install": "nosuch"}):
        plant(page, {"text": "do", **button})
        assert "nosuch" in fails(page, plan=False)
    for change in ("rollback", "hold", "unhold", "remove"):
        plant(page, {"text": change, "change": change, "name": "nosuch"})
        assert "nosuch" in fails(page)
    page.complaints()


def test_findings_and_jobs(page: Dashboard) -> None:
    page.open("security", "owner")
    page.browser.until_there("[data-audit]")
    sentence = {"text": "It is open to all", "sentence": ""}
    plant(page, sentence, {"text": "accept", "accept": ""}, finding="nosuch")
    assert "nosuch" in fails(page, {"[name=reason]": "for the test"})
    plant(page, sentence, {"text": "withdraw", "withdraw": ""}, finding="nosuch")
    assert "nosuch" in fails(page)
    request = {"text": "do", "action": "request", "method": "POST", "plan": "What it would do is said here"}
    plant(page, {**request, "url": "/helm/api/jobs/nosuch/cancel"})
    assert "nosuch" in fails(page)
    page.complaints()


USERS = {
    "disable": {},
    "enable": {},
    "unlock": {},
    "logout": {},
    "password": {},
    "delete": {},
    "groups": {"groups": json.dumps(["client"])},
    "edit": {"email": "a@example.org", "first": "A", "last": "B", "verified": "false"},
}


def test_users(page: Dashboard) -> None:
    page.open("users", "owner")
    page.browser.until_there("[data-user-new]")
    for verb, facts in USERS.items():
        plant(page, {"text": verb, "userDo": verb, **facts}, user=GONE, username="nobody")
        assert "no user" in fails(page, {"[name=firstName]": "C"} if verb == "edit" else None).lower()
    page.complaints()
