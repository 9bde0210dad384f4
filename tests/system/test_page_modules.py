"""The pages of modules and apps in a real browser: one is installed from git, another one is refused."""

from collections.abc import Iterator

import pytest
from selenium.webdriver.common.by import By

from tests.system.booted import Sandbox
from tests.system.browser import Browser
from tests.system.dashboard import Dashboard
from tests.system.test_modules_install import MODULES, RUN, SERVICE, SETTINGS, repository
from tests.system.test_page_errors import TAKEN
from tests.system.test_page_service import press

NAME = "paged"
HOSTILE = "<img src=x onerror=hostile=1><i>second</i> \x1b[31m\x1b]0;x\x07\u202e\u2066"
"""The subject of a commit."""
SHOWN = r"<img src=x onerror=hostile=1><i>second</i> \x1b[31m\x1b]0;x\x07\u202e\u2066"


@pytest.fixture(scope="module")
def repo(demo: Sandbox) -> Iterator[str]:
    """A module in a repository of this machine, which the settings allow."""
    packages = "git python3-venv"
    demo.shell(f"DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends {packages}", root=True)
    before = demo.shell(f"cat {SETTINGS}").out
    demo.write(SETTINGS, before.replace("[modules]\n", '[modules]\nfiles = true\ngate = "3s"\n'))
    text = SERVICE.format(port=5093) + 'description = "A <b>page</b>"\n'
    yield repository(demo, NAME, {"run.py": RUN, "hivematrix.toml": text, "instance/.keep": ""})
    demo.write(SETTINGS, before)
    demo.shell(f"helmctl stop {NAME}; rm -f ~/.config/hivematrix/services.d/{NAME}.toml; helmctl apply", check=False)
    demo.shell(f"rm -rf {MODULES}/{NAME} ~/.local/state/hivematrix/modules/{NAME} /home/hive/git/{NAME}", check=False)


def ask(page: Dashboard, source: str) -> None:
    """Fills in the form for a repository, up to the plan."""
    page.browser.click("[data-install='']")
    page.browser.until_there("dialog[open] [name=source]")
    page.browser.type("dialog [name=source]", source)
    page.browser.click("dialog [type=submit]")


def test_a_module_is_installed_from_git_after_its_plan(demo: Sandbox, dashboard: Dashboard, repo: str) -> None:
    dashboard.console_messages()
    dashboard.open("modules", "owner")
    browser = dashboard.browser
    # Of the demo's two forms, one has the suite from git.
    shown = "[...document.querySelectorAll('[data-own], [data-module]')].map(e => e.dataset.own || e.dataset.module)"
    assert {"core", "codex"} <= set(browser.run(f"return {shown}"))
    ask(dashboard, repo)
    browser.until_there("dialog[open] .helm-steps__item", 60)
    dashboard.check_dialog("modules.js: Install ${what}")
    browser.until(
        lambda driver: "commit" in driver.execute_script("return document.querySelector('dialog').innerText"), 60
    )
    assert NAME not in demo.status(), "only the plan so far"
    browser.click("dialog [type=submit]")
    browser.until_there("dialog .helm-ending", 120)
    assert "installed and healthy" in browser.text("dialog .helm-ending")
    assert demo.status(NAME)[NAME]["state"] == "healthy"
    dashboard.press("Escape")
    browser.until_there(f'[data-module="{NAME}"] code', 30)
    commit = demo.shell(f"git -C {repo} rev-parse HEAD").out.strip()
    assert browser.text(f'[data-module="{NAME}"] code') == commit[:12]
    browser.click(f'[data-module="{NAME}"] summary')
    assert "install" in browser.text(f'[data-module="{NAME}"] .helm-list')
    dashboard.check_width()
    assert dashboard.violations() == []
    assert dashboard.console_messages() == []
    dashboard.screenshots("modules")


def commit(demo: Sandbox, repo: str, subject: str) -> str:
    """An empty commit of somebody; its id."""
    identity = "-c user.name='Eve \u202enimda' -c user.email=eve@example.org"
    demo.shell(f"git -C {repo} {identity} commit --quiet --allow-empty -m '{subject}'")
    return demo.shell(f"git -C {repo} rev-parse HEAD").out.strip()


def ask_to_update(browser: Browser, number: str) -> str:
    """Opens the dialog of the update, up to its plan; what it says."""
    browser.click(f'[data-change="update"][data-name="{NAME}"]')
    browser.until_there("dialog[open] [type=submit]", 60)
    said = browser.text("dialog[open]")
    assert f"{number}:" in said, said
    return said


def choose_version(page: Dashboard, ref: str) -> None:
    """From the dialog of the update to that of the plan for another version, or its refusal."""
    browser = page.browser
    press(page, "Another version", "dialog")
    browser.until_there("dialog[open] [name=ref]")
    page.check_dialog("modules.js: Another version of ${name}")
    browser.type("dialog [name=ref]", ref)
    browser.click("dialog [type=submit]")
    browser.until(lambda driver: f"to {ref}" in driver.find_element(By.CSS_SELECTOR, "dialog[open] h2").text)
    browser.until_there("dialog[open] :is(.helm-steps__item, .helm-refusal)", 60)


def test_an_update_is_looked_at_before_it_is_made(demo: Sandbox, dashboard: Dashboard, repo: str) -> None:
    commit(demo, repo, HOSTILE)
    dashboard.open("modules", "owner")
    browser = dashboard.browser
    row = f'[data-module="{NAME}"]'
    browser.click("[data-check]")
    browser.until_there("dialog[open] [type=submit]")
    browser.click("dialog [type=submit]")
    browser.until_there("dialog .helm-ending--ok", 60)
    dashboard.press("Escape")
    browser.until_there(f"{row} [data-plan]", 30)
    assert "1 behind" in browser.text(row)
    browser.click(f"{row} [data-plan] summary")
    assert f"{SHOWN}\nby Eve \\u202enimda" in browser.texts(f"{row} [data-plan] td")
    assert "not known yet: it was not updated before" in browser.text(f"{row} [data-plan]")
    dashboard.check_width()
    assert dashboard.violations() == []
    dashboard.screenshots("module-plan")
    said = ask_to_update(browser, "1 commit")
    assert f"Eve \\u202enimda: {SHOWN}" in said and "who is affected: no other service" in said
    dashboard.check_dialog("modules.js: Update ${name}")
    assert browser.run(TAKEN) == [None, 0, False, None]
    browser.click("dialog .helm-dialog__do button:first-child")
    browser.until(lambda driver: f"{NAME} is not updated until" in driver.page_source)
    dashboard.press("Escape")
    # What was not in the plan that was agreed to is not installed.
    ask_to_update(browser, "1 commit")
    last = commit(demo, repo, "third")
    browser.click("dialog [type=submit]")
    browser.until_there("dialog .helm-ending--error", 60)
    assert f"now it would be {last[:12]}" in browser.text("dialog .helm-ending")
    dashboard.press("Escape")
    ask_to_update(browser, "2 commits")
    browser.click("dialog [type=submit]")
    browser.until_there("dialog .helm-ending", 180)
    assert "is updated" in browser.text("dialog .helm-ending")
    dashboard.press("Escape")
    browser.until(lambda driver: driver.execute_script(
        "return document.querySelector(arguments[0]).innerText.includes('up to date')", row))  # fmt: skip
    assert browser.text(f"{row} code") == last[:12]
    # To a tag, with a file that was changed left behind; a tag that there is not is refused.
    demo.shell(
        f"git -C {repo} tag v1 HEAD~1; for each in {MODULES}/{NAME}/versions/*/run.py; do echo '# mine' >> $each; done"
    )
    dashboard.console_messages()
    browser.click(f'[data-change="update"][data-name="{NAME}"]')
    browser.until_there("dialog[open] [type=submit]", 60)
    choose_version(dashboard, "nosuch")
    assert "nosuch" in browser.text("dialog[open] .helm-refusal")
    dashboard.press("Escape")
    browser.click(f'[data-change="update"][data-name="{NAME}"]')
    browser.until_there("dialog[open] [type=submit]", 60)
    choose_version(dashboard, "v1")
    said = browser.text("dialog[open]")
    assert "files of the version that serves were changed: run.py" in said and f"{NAME} follows v1" in said
    dashboard.check_dialog("modules.js: Update ${name} to ${ref}")
    browser.click("dialog [name=discard]")
    browser.click("dialog [type=submit]")
    browser.until_there("dialog .helm-ending", 180)
    assert "is updated" in browser.text("dialog .helm-ending"), browser.text("dialog")
    dashboard.press("Escape")
    tagged = demo.shell(f"git -C {repo} rev-parse v1").out.strip()
    browser.until(lambda driver: tagged[:12] in driver.find_element(By.CSS_SELECTOR, f"{row} code").text)
    assert len(demo.shell(f"grep -L mine {MODULES}/{NAME}/versions/*/run.py").out.split()) == 1
    assert "v1" in browser.text(f"{row} .helm-module__text")
    last = tagged
    dashboard.open(f"service/{NAME}", "owner")
    found = browser.texts(".helm-figure")
    assert any(last[:12] in each and "v1, up to date" in each for each in found), found
    assert dashboard.console_messages() == []
    # Kept from being started, since a change can't be rolled back: each page says why, and what to do.
    place, unit = f"/home/hive/.local/state/hivematrix/modules/{NAME}", f"hivematrix-{NAME}.service"
    demo.write(f"{place}/intent.ndjson", "0badc0de {}\n0badc0de {}\n")
    try:
        demo.shell(f"systemctl --user stop {unit}; systemctl --user start {unit}", check=False)
        why = demo.shell(f"cat {place}/start.blocked").out.strip().removesuffix(".")
        assert f"{place}/intent.ndjson" in why
        for path in ("modules", f"service/{NAME}", ""):
            dashboard.open(path, "owner")
            words = why.removeprefix(f"{NAME} is")
            browser.until(lambda driver, words=words: words in driver.find_element(By.CSS_SELECTOR, "main").text, 60)  # type: ignore[misc]
        dashboard.open("modules", "owner")
        assert browser.text(f"{row} [data-why]") == why
        dashboard.check_width()
        assert dashboard.violations() == []
        dashboard.screenshots("module-blocked")
    finally:
        demo.shell(f"rm -f {place}/intent.ndjson {place}/start.blocked")
    demo.helmctl("start", NAME)
    assert dashboard.console_messages() == []


def test_what_is_refused_and_who_may_look(dashboard: Dashboard) -> None:
    dashboard.open("modules", "owner")
    browser = dashboard.browser
    ask(dashboard, "ext::sh -c id")
    browser.until_there("dialog .helm-ending--error", 30)
    dashboard.press("Escape")
    dashboard.console_messages()
    dashboard.open("apps", "owner")
    assert "PostgreSQL" in browser.text('[data-table="apps"]') and "Keycloak" in browser.text('[data-table="apps"]')
    dashboard.check_width()
    assert dashboard.violations() == []
    assert dashboard.console_messages() == []
    dashboard.screenshots("apps")
    dashboard.log_in_as("technician")
    browser.get("http://localhost:5004/helm/modules")
    assert "You may not open this" in browser.text("main")
    dashboard.console_messages()
