"""The page about security in a real browser, with a fault that is planted, accepted, withdrawn and ended as it says."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from selenium.webdriver.common.by import By

from tests.system.booted import Sandbox, until
from tests.system.dashboard import Dashboard

SECRET = "/home/hive/.config/hivematrix/secrets/<b>planted.env"
PREVIEW = "return document.querySelector('[data-script]').textContent"
REASON = "a test <script>alert(1)</script>"


@pytest.fixture(scope="module")
def planted(demo: Sandbox) -> Iterator[str]:
    """A secret that others can read, with a hostile name."""
    demo.shell(f"umask 022; printf 'PASSWORD=x\\n' > '{SECRET}'; chmod 644 '{SECRET}'")
    try:
        yield SECRET
    finally:
        demo.shell(f"rm -f '{SECRET}'")


def found(box: Sandbox) -> dict[str, Any] | None:
    """The finding about the secret, as helmctl has it."""
    reply = json.loads(box.helmctl("security", "audit", "--all", "--json").out)
    about = [each for each in reply["findings"] if "planted.env" in each["subject"]]
    return about[0] if about else None


def check_now(page: Dashboard) -> None:
    """Has an audit made, and waits for its end."""
    page.browser.click("[data-check-again]")
    page.browser.until(lambda driver: driver.find_elements(By.CSS_SELECTOR, "[data-check-again][disabled]"), 30)
    page.browser.until(lambda driver: driver.find_elements(By.CSS_SELECTOR, "[data-check-again]:not([disabled])"), 60)


def there(page: Dashboard, selector: str) -> bool:
    return bool(page.browser.run("return document.querySelectorAll(arguments[0]).length", selector))


def test_a_finding_is_accepted_withdrawn_and_ended(demo: Sandbox, dashboard: Dashboard, planted: str) -> None:
    dashboard.console_messages()
    dashboard.open("security", "owner")
    browser = dashboard.browser
    browser.until_there("[data-check-again]:not([disabled])", 60)
    known = found(demo)
    assert known is not None
    own = f'[data-finding="{known["id"]}"]'
    if not there(dashboard, own):
        check_now(dashboard)
    text = browser.text(own)
    assert known["severity"] in text and known["evidence"][0] in text and known["why"] in text
    fix = browser.text(f"{own} .helm-command code")
    assert fix.startswith("chmod 600 ") and planted in fix
    browser.click(f"{own} [data-accept]")
    browser.until_there("dialog[open] [name=reason]")
    assert dashboard.violations() == [], "the open dialog"
    browser.type("dialog [name=reason]", REASON)
    browser.click("dialog [type=submit]")
    browser.until_there(".helm-ending--ok")
    accepted = found(demo)
    assert accepted is not None and accepted["accepted"]["reason"] == REASON
    dashboard.press("Escape")
    browser.until_there(f"[data-accepted] {own}")
    browser.click("[data-accepted] > summary")
    assert REASON in browser.text(f"[data-accepted] {own}")
    browser.click(f"{own} [data-withdraw]")
    browser.until_there("dialog[open] [type=submit]")
    browser.click("dialog [type=submit]")
    browser.until_there(".helm-ending--ok")
    dashboard.press("Escape")
    browser.until(lambda driver: not driver.find_elements(By.CSS_SELECTOR, f"[data-accepted] {own}"))
    withdrawn = found(demo)
    assert withdrawn is not None and withdrawn["accepted"] is None
    demo.shell(fix)
    check_now(dashboard)
    assert not there(dashboard, own) and found(demo) is None
    trail = demo.helmctl("audit", "-n", "20").out
    assert "POST /api/security/findings/{id}/accept" in trail and "DELETE /api/security/findings/{id}/accept" in trail
    assert dashboard.console_messages() == []


def test_ports_stand_against_what_is_declared(demo: Sandbox, dashboard: Dashboard) -> None:
    dashboard.open("security", "owner")
    browser = dashboard.browser
    browser.until_there('[data-table="ports"]', 60)
    rows = browser.texts(".helm-port--suite")
    assert any("8443/tcp" in row and "nexus" in row and "as declared" in row for row in rows)
    everything = len(browser.texts(".helm-port"))
    browser.click('[data-ports="wrong"]')
    shown = browser.run(
        "return [...document.querySelectorAll('.helm-port')].filter((row) => row.checkVisibility()).length"
    )
    assert shown < everything
    browser.click('[data-ports="all"]')
    browser.type("[data-table-filter]", "nexus")
    shown = browser.run(
        "return [...document.querySelectorAll('.helm-port')].filter((row) => row.checkVisibility()).length"
    )
    assert 0 < shown < everything
    browser.click('[data-table-sort="port"]')
    assert browser.run("return document.querySelector('[data-column=port]').ariaSort") == "descending"


def test_the_firewalls_script_and_the_command_that_applies_it(demo: Sandbox, dashboard: Dashboard) -> None:
    dashboard.open("security", "owner")
    browser = dashboard.browser
    browser.until(lambda driver: driver.execute_script(PREVIEW))
    browser.click("[data-preview] > summary")
    for kind in ("nftables", "ufw", "iptables"):
        browser.run(f"document.querySelector('input[value={kind}]').click()")
        script = demo.helmctl("security", "firewall-script", kind).out
        until(lambda text=script: text == browser.run(PREVIEW), 10)  # type: ignore[misc]
        assert browser.text("[data-filename]").endswith(f"{kind}.sh")
    browser.type("[name=open]", "knowledgetree, 51820/udp")
    browser.until(lambda driver: "51820" in driver.execute_script(PREVIEW))
    applies = "sudo helmctl security apply iptables --open knowledgetree --open 51820/udp"
    assert browser.text("[data-apply]") == applies
    browser.type("[name=allow_from]", "nonsense")
    browser.until(lambda driver: "nonsense" in driver.find_element(By.CSS_SELECTOR, "[data-firewall-fault]").text)
    assert browser.run(PREVIEW) == "", "not the script for what was typed before"
    assert there(dashboard, "[data-download][disabled]")
    assert "sudo helmctl security confirm" in browser.text(".helm-firewall__steps")


def test_who_sees_it_and_how(dashboard: Dashboard) -> None:
    dashboard.console_messages()
    dashboard.open("security", "owner")
    dashboard.browser.until_there('[data-table="ports"]', 60)
    dashboard.browser.run("document.querySelectorAll('main details').forEach((each) => (each.open = true))")
    dashboard.check_width()
    assert dashboard.violations() == []
    assert dashboard.console_messages() == []
    dashboard.screenshots("security")
    dashboard.open_behind_gateway("security", "admin")
    dashboard.browser.until_there('[data-table="ports"]', 60)
    assert "open Helm itself" in dashboard.browser.text("main")
    assert not there(dashboard, "[data-accept]:not([disabled])")
    dashboard.log_in_as("technician")
    dashboard.browser.get("http://localhost:5004/helm/security")
    assert "You may not open this" in dashboard.browser.text("main")
    assert "Security" not in dashboard.browser.texts(".helm-rail__label")
