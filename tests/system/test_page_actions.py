"""Every action of every page, forced to fail: it says before what it will do, then why it did not, and what to do.

Each dialog is looked at by axe, as it asks and as it says why.
"""

import json
import secrets
from collections.abc import Mapping

import pytest

from tests.system.booted import until
from tests.system.dashboard import HELM, Dashboard

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


def fails(page: Dashboard, name: str, fill: Mapping[str, str] | None = None, *, plan: bool = True) -> str:
    """The planted button's action, confirmed: the plan, if there can be one, and the refusal with what to do. NAME is
    that of its dialog, after which the button has the focus again.
    """
    browser = page.browser
    browser.click("#planted button:last-child")
    if plan:
        browser.until_there("dialog[open] .helm-steps__item", 30)
        browser.until_there("dialog[open] button[type=submit]")
        assert len(browser.text("dialog[open] .helm-steps")) > 15, "says what it will do"
        page.check_dialog(name)
        for selector, text in (fill or {}).items():
            browser.type(f"dialog[open] {selector}", text)
        browser.click("dialog[open] button[type=submit]")
    browser.until_there("dialog[open] .helm-ending--error", 30)
    page.check_dialog(name)
    said = browser.text("dialog[open] .helm-dialog__body")
    assert browser.run("return document.querySelector('dialog[open]').contains(document.activeElement)")
    assert browser.text("dialog[open] .helm-ending--error").endswith("."), said
    page.press("Escape")
    browser.until(lambda driver: not driver.find_elements("css selector", "dialog[open]"))
    assert browser.run("return document.activeElement === document.querySelector('#planted button:last-child')")
    return said


def shown(page: Dashboard, name: str, opener: str) -> None:
    """The dialog or menu that a click on OPENER opens, and Escape closes."""
    page.browser.until_there(opener)
    page.browser.click(opener)
    page.browser.until_there("dialog[open], :popover-open")
    page.check_dialog(name)
    page.press("Escape")
    page.browser.until(lambda driver: not driver.find_elements("css selector", "dialog[open], :popover-open"))


@pytest.fixture
def page(dashboard: Dashboard) -> Dashboard:
    dashboard.console_messages()
    return dashboard


def test_services(page: Dashboard) -> None:
    page.open("", "owner")
    page.browser.until_there("#service-ticker")
    name = 'action.js: ${label} ${what}${isUndo ? " again" : ""}'
    for verb in ("start", "stop", "restart", "reload"):
        plant(page, {"text": verb, "action": "service", "verb": verb, "services": "nosuch"})
        said = fails(page, name, plan=False)
        assert "nosuch" in said and "helmctl" in said
    plant(page, {"text": "stop", "action": "service", "verb": "stop", "services": "ticker nosuch"})
    assert "nosuch" in fails(page, name, plan=False)
    assert page.box.status("ticker")["ticker"]["status"] == "running", "of several, none is stopped"
    page.console_messages()
    plant(page, {"text": "stop", "action": "service", "verb": "stop", "services": "ticker"})
    page.browser.click("#planted button")
    page.browser.until_there("dialog[open] .helm-steps__item")
    page.check_dialog(name)
    page.press("Escape")
    shown(page, "overview.js: Actions for ${name}", "#service-ticker [data-menu]")
    shown(page, "table.js: Columns", "[data-table-columns]")
    shown(page, "palette.js: Search", "[data-palette]")
    page.press("?")
    page.browser.until_there("dialog[open]")
    page.check_dialog("keys.js: Keys")
    page.press("Escape")
    assert page.console_messages() == []


def test_modules(page: Dashboard) -> None:
    page.open("modules", "owner")
    page.browser.until_there("[data-install]")
    # For these, a job says the plan; there is none where it finds nothing.
    plant(page, {"text": "do", "change": "update", "name": "nosuch"})
    assert "nosuch" in fails(page, "modules.js: Update ${name}", plan=False)
    plant(page, {"text": "do", "install": "nosuch"})
    assert "nosuch" in fails(page, "modules.js: Install ${what}", plan=False)
    for change, name in (
        ("rollback", "modules.js: Roll ${name} back"),
        ("hold", "modules.js: Hold ${name}"),
        ("unhold", "modules.js: Unhold ${name}"),
        ("remove", "modules.js: Remove ${name}"),
    ):
        plant(page, {"text": change, "change": change, "name": "nosuch"})
        assert "nosuch" in fails(page, name)
    plant(page, {"text": "check", "check": ""})
    shown(page, "modules.js: Check for updates", "#planted button")
    shown(page, "modules.js: Install from git", "[data-install='']")
    page.console_messages()


def test_who_has_logged_in_long_ago_is_asked_to_do_so_again(page: Dashboard) -> None:
    """Where that is needed."""
    page.open("modules", "owner")
    page.browser.get("about:blank")
    owners = 'grep -l \'"token": ""\' ~/.local/state/hivematrix/sessions/*.json'
    page.box.shell(f'sed -i \'s/"login": [0-9.]*/"login": 1e9/\' $({owners}) && systemctl --user restart helmd')
    try:
        page.browser.get(f"{HELM}modules")
        plant(page, {"text": "check", "check": ""})
        said = fails(page, "modules.js: Check for updates")
        assert "needs a login at Helm itself within the last 10 minutes" in said and "Log in again" in said
    finally:
        page.forget_owner_session()
    page.console_messages()


def test_findings_and_jobs(page: Dashboard) -> None:
    page.open("security", "owner")
    page.browser.until_there("[data-audit]")
    sentence = {"text": "It is open to all", "sentence": ""}
    plant(page, sentence, {"text": "accept", "accept": ""}, finding="nosuch")
    assert "nosuch" in fails(page, "security.js: Accept this finding", {"[name=reason]": "for the test"})
    plant(page, sentence, {"text": "withdraw", "withdraw": ""}, finding="nosuch")
    assert "nosuch" in fails(page, "security.js: Withdraw the acceptance")
    request = {"text": "do", "action": "request", "method": "POST", "plan": "What it would do is said here"}
    plant(page, {**request, "title": "Cancel this job", "url": "/helm/api/jobs/nosuch/cancel"})
    assert "nosuch" in fails(page, "job.html: Cancel this job")
    page.console_messages()


def test_backups(page: Dashboard) -> None:
    """Without a key none is begun; with one, what the job met is said, and nothing of an archive is left."""
    box = page.box
    where = "~/.local/share/hivematrix/backups"
    before = box.shell(f"ls -A {where}", check=False).out
    page.open("jobs", "owner")
    request = {"text": "do", "action": "request", "method": "POST", "plan": "What it would do is said here", "log": ""}
    plant(page, {**request, "title": "Make a backup", "url": "/helm/api/backups"})
    said = fails(page, "jobs.html: Make a backup")
    assert "no key for backups" in said and "helmctl backup key" in said
    assert box.shell(f"ls -A {where}", check=False).out == before
    assert page.console_messages() == []


def test_views(page: Dashboard) -> None:
    """Saving and removing a view: what was written stays, the focus is kept, and removing has an undo."""
    browser, box, name = page.browser, page.box, f"view-{secrets.token_hex(3)}"
    page.open(f"logs?query={name}", "owner")
    for menu in ("logs.html: logs-range", "logs.html: logs-columns", "logs.html: logs-export"):
        shown(page, menu, f"[popovertarget={menu.rpartition(' ')[2]}]")
    field, notice = ".helm-viewtab__form [name=name]", ".helm-viewtab__note"

    def says(*words: str) -> None:
        browser.until(lambda driver: all(word in driver.find_element("css selector", notice).text for word in words))

    def in_views() -> bool:
        return bool(browser.run("return document.querySelector('[data-logs-views]').contains(document.activeElement)"))

    def tabs() -> list[str]:
        script = "return [...document.querySelectorAll('.helm-viewtab__link')].map((each) => each.textContent)"
        return list(browser.run(script))

    browser.until_there(".helm-viewtab__add")
    browser.click(".helm-viewtab__add")
    with page.network(offline=True):
        browser.type(field, f"{name}\n")
        says("Helm can't be reached, so the view was not saved", "systemctl --user status helmd")
    assert browser.run("return document.activeElement.value") == name
    assert box.sql(f"SELECT count(*) FROM log_views WHERE name = '{name}'") == "0"
    browser.type(field, "\n")
    until(lambda: name in tabs(), 30)
    assert in_views()
    owner = box.sql(f"SELECT owner FROM log_views WHERE name = '{name}'")
    try:
        # One of this name is not replaced without a word; and nobody has more than a hundred.
        browser.click(".helm-viewtab__add")
        browser.type(field, f"{name}\n")
        says(f"There is a view {name} of yours", "Replace it")
        box.sql(
            "INSERT INTO log_views (owner, name, shared, query, columns, last)"
            f" SELECT '{owner}', '{name}-' || n, false, '', '{{}}'::text[], '' FROM generate_series(1, 99) AS n"
        )
        browser.type(field, "-more\n")
        says("as many saved views as one user may have", "press the cross of its tab")
        page.press("Escape")
        assert browser.run("return document.activeElement.matches('.helm-viewtab__add')")
        box.sql(f"DELETE FROM log_views WHERE name LIKE '{name}-%'")
        # Without an answer it stays; removed, it can be restored; if another user has removed it, the page says so.
        with page.network(offline=True):
            browser.click(".helm-viewtab__remove")
            says("Helm can't be reached, so the view was not removed")
        assert name in tabs()
        browser.click(".helm-viewtab__remove")
        until(lambda: name not in tabs(), 30)
        assert in_views()
        browser.click(".helm-toast .helm-button")
        until(lambda: name in tabs(), 30)
        assert box.sql(f"SELECT query FROM log_views WHERE name = '{name}'") == name
        box.sql(f"DELETE FROM log_views WHERE name LIKE '{name}%'")
        browser.click(".helm-viewtab__remove")
        says("This view is not there any more")
        assert name not in tabs()
    finally:
        box.sql(f"DELETE FROM log_views WHERE name LIKE '{name}%'")
    page.console_messages()


USERS: dict[str, tuple[str, dict[str, str]]] = {
    "disable": ("users.js: Disable ${user.name}", {}),
    "enable": ("users.js: Enable ${user.name}", {}),
    "unlock": ("users.js: Unlock ${user.name}", {}),
    "logout": ("users.js: Log ${user.name} out everywhere", {}),
    "password": ("users.js: Temporary password for ${user.name}", {}),
    "delete": ("users.js: Delete ${user.name}", {}),
    "groups": ("users.js: Groups of ${user.name}", {"groups": json.dumps(["client"])}),
    "edit": (
        "users.js: Edit ${user.name}",
        {"email": "a@example.org", "first": "A", "last": "B", "verified": "false"},
    ),
}


def test_users(page: Dashboard) -> None:
    page.open("users", "owner")
    page.browser.until_there("[data-user-new]")
    for verb, (name, facts) in USERS.items():
        plant(page, {"text": verb, "userDo": verb, **facts}, user=GONE, username="nobody")
        assert "no user" in fails(page, name, {"[name=firstName]": "C"} if verb == "edit" else None).lower()
    page.console_messages()
