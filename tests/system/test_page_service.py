"""The page of one service: what it shows, what is done on it, and what that changes in systemd and in files."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from selenium.webdriver.common.by import By

from tests.system import printed_lines
from tests.system.booted import Sandbox, until
from tests.system.dashboard import Dashboard, dashboard_in

TOML = "/home/hive/.config/hivematrix/services.toml"
HOSTILE = "<img src=x onerror=document.title='taken'>"
NOISY = r"""
[services.noisy]
type = "command"
path = "~/suite/faulty"
description = "Prints <b>both</b> ways"
start_command = ["/bin/sh", "-c", 'while sleep 1; do echo "said <img src=x>"; printf "\033[31mwarned red\n" >&2; done']
environment = { COLOUR = "blue" }
secrets = ["API_KEY"]
# Seen often enough.
limits.tasks = 50
"""
BROKEN = """
[services.broken]
type = "command"
path = "~/suite/faulty"
start_command = ["/bin/sh", "-c", "echo the reason is here; exit 7"]
"""


@pytest.fixture(scope="module")
def pages(demo: Sandbox) -> Iterator[Dashboard]:
    with dashboard_in(demo) as made:
        yield made


@pytest.fixture(scope="module")
def noisy(demo: Sandbox) -> Iterator[Sandbox]:
    """A service of the account's own services.toml, which the page changes."""
    before = demo("cat", TOML).out
    demo("tee", "-a", TOML, stdin=NOISY + BROKEN)
    try:
        demo.helmctl("apply", "noisy", "broken")
        demo.helmctl("start", "noisy")
        yield demo
    finally:
        demo.helmctl("stop", "noisy", "broken", check=False)
        demo("tee", TOML, stdin=before)
        demo.helmctl("apply", check=False)


def press(pages: Dashboard, text: str, within: str = "main") -> None:
    """Clicks the button with this text."""
    found = f"//{within}//button[normalize-space()='{text}']"
    pages.browser.until(lambda driver: driver.find_elements(By.XPATH, found))
    pages.browser.do(lambda: pages.browser.driver.find_element(By.XPATH, found).click())


def confirm(pages: Dashboard) -> str:
    """What the dialog says first; then does it."""
    pages.browser.until_there("dialog[open] [type=submit]")
    said = pages.browser.text("dialog[open]")
    pages.browser.click("dialog[open] [type=submit]")
    return said


def ended(pages: Dashboard, within: float = 60.0) -> str:
    pages.browser.until_there("dialog[open] .helm-ending", within)
    return pages.browser.text("dialog[open] .helm-ending")


def active(box: Sandbox, service: str) -> str:
    return box("systemctl", "--user", "is-active", f"hivematrix-{service}", check=False).out.strip()


def state_of(pages: Dashboard) -> str:
    return pages.browser.text("[data-field=state]")


def clean(pages: Dashboard, name: str) -> None:
    """Nothing for axe and the console to complain about, at any width."""
    assert pages.violations() == []
    pages.check_width()
    pages.screenshots(name)
    assert pages.console_messages() == []


def test_one_screen_says_everything_about_a_service(pages: Dashboard) -> None:
    pages.open("service/codex")
    browser = pages.browser
    assert state_of(pages) == "healthy" and browser.text("h1").startswith("codex")
    figures = dict(zip(browser.texts(".helm-figure__name"), browser.texts(".helm-figure__value"), strict=True))
    assert {"Up", "CPU", "Memory", "Response", "Restarts", "Version"} == set(figures) and " ms" in figures["Response"]
    titles = browser.texts("main h2")
    wanted = ["Timeline", "Dependencies", "Health check", "Limits and use", "Unit", "Environment", "Ports", "Processes"]
    assert titles == wanted
    page = browser.text("main")
    assert "Started" in browser.text(".helm-timeline") and "none: as services.toml says" in page
    assert {"core", "postgres"} <= {each.split()[0] for each in browser.texts(".helm-chip")}
    assert "5010" in browser.texts('[data-table="ports"] td') and "DATABASE_URL" in page
    secrets = pages.box("cat", "/home/hive/.config/hivematrix/secrets/codex.env").out
    assert not any(line.partition("=")[2] in page for line in secrets.splitlines() if len(line.partition("=")[2]) > 7)
    pid = pages.box.status("codex")["codex"]["pid"]
    assert str(pid) in browser.texts('[data-table="processes"] td')
    browser.size(900, 900)
    heights = "return [...document.querySelectorAll('.helm-facts__value--number')].map((each) => each.offsetHeight)"
    assert max(browser.run(heights)) < 30, "what is used and its limit stand on one line"
    browser.size(1440, 900)
    clean(pages, "service")


def test_stop_and_undo(pages: Dashboard) -> None:
    pages.open("service/knowledgetree")
    press(pages, "Stop")
    assert "knowledgetree" in confirm(pages)
    assert "stopped" in ended(pages) and active(pages.box, "knowledgetree") in ("inactive", "failed")
    press(pages, "Undo: start", "dialog")
    confirm(pages)
    assert "started" in ended(pages) and active(pages.box, "knowledgetree") == "active"
    press(pages, "Close", "dialog")
    # The page has noticed by itself.
    pages.browser.until(lambda driver: driver.find_element(By.CSS_SELECTOR, "[data-field=state]").text == "healthy")
    pages.browser.until(lambda driver: "by hive" in driver.find_element(By.CSS_SELECTOR, ".helm-timeline").text)
    assert pages.console_messages() == []


def test_restart_by_an_admin_is_in_the_timeline_with_who_and_why(pages: Dashboard, noisy: Sandbox) -> None:
    pages.open("service/noisy", "admin")
    assert "API_KEY ********" in " ".join(pages.browser.text('[data-table="environment"]').split())
    secret = noisy("cat", "/home/hive/.config/hivematrix/secrets/noisy.env").out.partition("=")[2].strip()
    assert len(secret) > 10 and secret not in str(pages.browser.run("return document.documentElement.outerHTML"))
    before = noisy.status("noisy")["noisy"]["pid"]
    press(pages, "Restart")
    pages.browser.until_there("dialog[open] [name=reason]")
    pages.browser.type("dialog[open] [name=reason]", f"why {HOSTILE}")
    confirm(pages)
    assert "restarted" in ended(pages) and noisy.status("noisy")["noisy"]["pid"] != before
    assert "no undo" in pages.browser.text("dialog[open]")
    press(pages, "Close", "dialog")
    pages.browser.until(lambda driver: HOSTILE in driver.find_element(By.CSS_SELECTOR, ".helm-timeline").text)
    assert pages.browser.title.startswith("noisy") and pages.console_messages() == []


def test_a_start_that_fails_says_why(pages: Dashboard, noisy: Sandbox) -> None:
    pages.open("service/broken")
    press(pages, "Start")
    confirm(pages)
    said = ended(pages)
    assert "broken" in said and "exited with code 7" in said
    assert "the reason is here" in pages.browser.text("dialog[open]")
    press(pages, "Close", "dialog")
    until(lambda: active(noisy, "broken") == "failed", within=30)
    pages.browser.until(lambda driver: "failed" in driver.find_element(By.CSS_SELECTOR, "[data-field=state]").text)
    pages.browser.until_there(".helm-timeline__item--error")


def test_reload_is_refused_with_the_reason(pages: Dashboard, noisy: Sandbox) -> None:
    pages.open("service/noisy")
    assert "no reload_command" in pages.browser.run("return document.querySelector('[data-verb=reload]').title")
    assert pages.browser.run("return document.querySelector('[data-verb=reload]').disabled") is True


def test_settings_are_changed_and_changed_back(pages: Dashboard, noisy: Sandbox) -> None:
    pages.open("service/noisy?tab=settings")
    browser, before = pages.browser, noisy("cat", TOML).out
    clean(pages, "service-settings")
    field = "[name='limits.tasks']"
    browser.run(f"document.querySelector(\"{field}\").value = ''")
    browser.type(field, "no number")
    press(pages, "Show what would change")
    browser.until_there("[data-error='limits.tasks']:not([hidden])")
    assert noisy("cat", TOML).out == before
    assert "400" in " ".join(pages.console_messages()), "the browser itself says that a request was refused"
    browser.run(f"document.querySelector(\"{field}\").value = ''")
    browser.type(field, "77")
    press(pages, "Add a variable")
    browser.type("[data-name][data-new]", "SHAPE")
    browser.type("[data-variable]:last-child [data-value]", "round")
    browser.type("[name=reason]", "a test")
    press(pages, "Show what would change")
    browser.until_there("dialog[open] .helm-diff")
    shown = "".join(browser.texts("dialog[open] .helm-diff"))
    assert "+limits.tasks = 77" in shown and "TasksMax=77" in shown
    assert noisy("cat", TOML).out == before, "nothing is written before it is confirmed"
    pages.check_dialog("service.js: Change settings of ${this.service}")
    # Somebody else changes the file meanwhile.
    noisy("tee", TOML, stdin=before.replace("# Seen often enough.", "# Seen often enough, once more."))
    meanwhile = noisy("cat", TOML).out
    browser.click("dialog[open] [type=submit]")
    browser.until_there("dialog[open] .helm-refusal")
    said = browser.text("dialog[open] .helm-refusal")
    assert "have changed since they were read" in said and "Nothing was written. Press Reset" in said
    press(pages, "Close", "dialog")
    assert browser.run("return document.activeElement.matches('[data-preview]')"), "the focus is where it was"
    press(pages, "Show what would change")
    browser.until_there("[data-error='#']:not([hidden])")
    assert "Press Reset" in browser.text("[data-error='#']")
    assert noisy("cat", TOML).out == meanwhile and "77" not in meanwhile
    noisy("tee", TOML, stdin=before)
    press(pages, "Show what would change")
    browser.until_there("dialog[open] .helm-diff")
    confirm(pages)
    assert "helmctl restart noisy" in ended(pages)
    now = noisy("cat", TOML).out
    assert "limits.tasks = 77" in now and 'SHAPE = "round"' in now and "# Seen often enough." in now
    assert "TasksMax=77" in noisy("systemctl", "--user", "cat", "hivematrix-noisy").out
    press(pages, "Undo", "dialog")
    browser.until_there("dialog[open] .helm-diff")
    pages.check_dialog("service.js: Undo the change of ${this.service}")
    confirm(pages)
    assert "Undone" in ended(pages)
    assert noisy("cat", TOML).out == before
    assert "TasksMax=50" in noisy("systemctl", "--user", "cat", "hivematrix-noisy").out
    press(pages, "Close", "dialog")


def test_the_form_is_read_again_though_its_dialog_was_closed_early(pages: Dashboard, noisy: Sandbox) -> None:
    """What is written goes on without the dialog; the next change is one of the new files."""
    browser = pages.browser
    pages.open("service/noisy?tab=settings")
    etag = "return document.querySelector('[data-settings]')?.dataset.etag"
    for tasks in ("78", "50"):
        before = browser.run(etag)
        browser.run("document.querySelector(\"[name='limits.tasks']\").value = ''")
        browser.type("[name='limits.tasks']", tasks)
        press(pages, "Show what would change")
        browser.until_there("dialog[open] .helm-diff")
        browser.run("const d = document.querySelector('dialog'); d.querySelector('[type=submit]').click(); d.close()")
        until(lambda known=before: browser.run(etag) not in (None, known), 60)  # type: ignore[misc]
        browser.until_there("[data-theme-switch]:not([hidden])")
        assert browser.run("return document.querySelector(\"[name='limits.tasks']\").value") == tasks
        assert f"limits.tasks = {tasks}" in noisy("cat", TOML).out
    pages.console_messages()


def test_another_mode_restarts_the_service_in_it(pages: Dashboard, noisy: Sandbox) -> None:
    mode = noisy.status("noisy")["noisy"]["mode"]
    other = "production" if mode == "development" else "development"
    pages.open("service/noisy?tab=settings")
    pages.browser.click(f"[name=mode][value={other}]")
    press(pages, "Show what would change")
    assert f"Restart noisy in {other} mode" in confirm(pages)
    ended(pages)
    assert noisy.status("noisy")["noisy"]["mode"] == other
    press(pages, "Undo", "dialog")
    confirm(pages)
    ended(pages)
    assert noisy.status("noisy")["noisy"]["mode"] == mode
    press(pages, "Close", "dialog")


def test_drift_is_shown_with_its_difference(pages: Dashboard, noisy: Sandbox) -> None:
    text = noisy("cat", TOML).out
    noisy("tee", TOML, stdin=text.replace("limits.tasks = 50", "limits.tasks = 51"))
    try:
        pages.open("service/noisy")
        pages.browser.until(
            lambda driver: "+TasksMax=51" in driver.find_element(By.CSS_SELECTOR, "main").text, within=60
        )
        assert "helmctl apply noisy" in pages.browser.text("main")
    finally:
        noisy("tee", TOML, stdin=text)


def lines(pages: Dashboard) -> list[dict[str, Any]]:
    found = pages.browser.run(
        "return JSON.stringify([...document.querySelectorAll('.helm-tail__line')].map((line) =>"
        " ({stream: line.children[1].textContent, text: line.children[2].textContent})))"
    )
    parsed: list[dict[str, Any]] = json.loads(found)
    return parsed


def streams(pages: Dashboard) -> set[str]:
    return {each["stream"] for each in lines(pages)}


def only_has(pages: Dashboard, stream: str) -> None:
    until(lambda: streams(pages) == {stream}, within=30)


def test_output_of_each_stream(pages: Dashboard, noisy: Sandbox) -> None:
    pages.open("service/noisy?tab=output", "technician")
    until(lambda: streams(pages) == {"stdout", "stderr"}, within=30)
    first = len(lines(pages))
    until(lambda: len(lines(pages)) > first, within=30)
    assert any("<img src=x" in each["text"] for each in lines(pages))
    assert any(each["text"] == "warned red" for each in lines(pages)), "escapes for terminals do nothing"
    for stream in ("stdout", "stderr"):
        press(pages, stream)
        only_has(pages, stream)
        assert f"stream={stream}" in pages.browser.url
    clean(pages, "service-output")


def test_output_is_not_late_where_much_is_printed(pages: Dashboard, noisy: Sandbox) -> None:
    """4,500 lines within fifteen seconds: more than the page reads at a time."""
    printer = printed_lines.register(noisy, 4500, rate=300)
    try:
        noisy.helmctl("start", printer.name, timeout=60)
        pages.open(f"service/{printer.name}?tab=output", "technician")
        until(lambda: len(lines(pages)) > 0, within=30)
        until(lambda: printer.count() == 4500, within=60)
        until(lambda: lines(pages)[-1]["text"] == "line 4500", within=8)
        shown = [int(each["text"].removeprefix("line ")) for each in lines(pages)]
        assert shown == list(range(4501 - len(shown), 4501)), "none is missing between them"
    finally:
        noisy.unregister()


def test_what_a_role_may_not_do_is_absent(pages: Dashboard) -> None:
    pages.open("service/codex?tab=settings", "technician")
    assert not pages.browser.texts("[data-verb]") and "Settings" not in pages.browser.texts(".helm-tabs__tab")
    assert "Timeline" in pages.browser.texts("main h2")
    pages.log_in_as("client")
    pages.browser.get("http://localhost:5004/helm/service/codex")
    assert "equires role" in pages.browser.text("main")
    pages.console_messages()


def test_behind_the_gateway_settings_lead_to_helm_itself(pages: Dashboard) -> None:
    pages.open_behind_gateway("service/codex?tab=settings")
    assert "came through the gateway" in pages.browser.text("main")
    link = pages.browser.run("return document.querySelector('[data-fresh-login]').href")
    assert link == "http://localhost:5004/helm/service/codex?tab=settings"
    assert pages.browser.run("return document.querySelector('[data-preview]').disabled") is True
    pages.browser.click(".helm-tabs__tab")
    pages.browser.until_there('[data-live-part="state"]')
    press(pages, "Restart")
    assert "codex" in confirm(pages)
    assert "restarted" in ended(pages, 90)
    pages.console_messages()
