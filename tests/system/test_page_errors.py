"""Errors as a browser meets them, and the page of jobs."""

from selenium.webdriver.common.by import By

from tests.system.booted import Sandbox, until
from tests.system.dashboard import HELM, Dashboard
from tests.system.test_jobs import api, slow


def shown(page: Dashboard) -> str:
    return page.browser.text("main")


def test_what_is_not_there_or_not_allowed(dashboard: Dashboard) -> None:
    browser = dashboard.browser
    dashboard.open("nothing/<b>here", "technician")
    assert "There is no such page" in shown(dashboard)
    dashboard.fits()
    assert dashboard.violations() == []
    browser.get(f"{HELM}security")
    assert "You may not open this" in shown(dashboard) and "role 'admin'" in shown(dashboard)
    browser.click('.helm-message__do [href$="/helm/"]')
    browser.until_at(HELM)
    assert browser.url == HELM
    browser.run(f"const form = document.createElement('form'); form.method = 'post'; form.action = '{HELM}metrics';"
                "document.body.append(form); form.submit()")  # fmt: skip
    browser.until(lambda driver: driver.find_elements(By.CSS_SELECTOR, "[data-error]"))
    assert "This can't be done here" in shown(dashboard) and "GET" in shown(dashboard)
    browser.get(f"{HELM}jobs/20200101-000000-aaaaaa")
    assert "You may not open this" in shown(dashboard)
    dashboard.open("jobs/20200101-000000-aaaaaa", "owner")
    assert "There is no such job" in shown(dashboard)
    dashboard.complaints()


def test_jobs_are_followed_live_and_cancelled(demo: Sandbox, dashboard: Dashboard) -> None:
    dashboard.complaints()
    dashboard.open("jobs", "owner")
    browser = dashboard.browser
    assert "Backups" in shown(dashboard)
    demo.register("slow", slow("slow", 30))
    try:
        status, accepted = api(demo, "POST", "/api/services/slow/start", {"wait": False, "reason": "a <b>test</b>"})
        assert status == 202
        job = accepted["job"]["id"]
        browser.until_there(f"#job-{job}", 30)
        assert "start slow" in browser.text(f"#job-{job}")
        browser.click(f"#job-{job} a")
        browser.until_at(f"{HELM}jobs/{job}")
        assert "a <b>test</b>" in shown(dashboard)
        browser.click('[data-action="request"]')
        browser.until_there("dialog[open] [type=submit]")
        browser.click("dialog [type=submit]")
        browser.until_there(".helm-ending--ok")
        dashboard.press("Escape")
        browser.until(lambda driver: "cancelled by" in driver.find_element(By.CSS_SELECTOR, "main").text)
        until(lambda: api(demo, "GET", f"/api/jobs/{job}")[1]["state"] == "cancelled", 30)
        dashboard.fits()
        assert dashboard.violations() == []
    finally:
        demo.unregister()
    dashboard.open("jobs", "owner")
    dashboard.fits()
    assert dashboard.violations() == []
    assert dashboard.complaints() == []
    dashboard.screenshots("jobs")
