"""Errors as a browser meets them, the page of jobs, and hostile text on every page."""

import json
import secrets
import sys
from collections.abc import Iterator

import pytest
from selenium.webdriver.common.by import By

from helmd.model.printable import without_unseen
from tests.system.booted import Sandbox, until
from tests.system.dashboard import HELM, Dashboard, dashboard_in
from tests.system.keycloak_admin import REALM, Admin
from tests.system.test_jobs import api, slow
from tests.system.test_page_users import made


def shown(page: Dashboard) -> str:
    return page.browser.text("main")


def test_what_is_not_there_or_not_allowed(dashboard: Dashboard) -> None:
    browser = dashboard.browser
    dashboard.open("nothing/<b>here", "technician")
    assert "There is no such page" in shown(dashboard)
    dashboard.check_width()
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
    dashboard.console_messages()


def test_jobs_are_followed_live_and_cancelled(demo: Sandbox, dashboard: Dashboard) -> None:
    dashboard.console_messages()
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
        dashboard.check_width()
        assert dashboard.violations() == []
    finally:
        demo.unregister()
    dashboard.open("jobs", "owner")
    dashboard.check_width()
    assert dashboard.violations() == []
    assert dashboard.console_messages() == []
    dashboard.screenshots("jobs")


HOSTILE = "<img src=//elsewhere.example/x onerror=hostile=1><script>hostile=1</script> \x1b[31m\u202e"
FILE = "<img src=x onerror=hostile=1>\x1b[31m\u202e.env"
FAILS = """
[services.hostile]
type = "command"
path = "~/suite/faulty"
description = "<img src=x onerror=hostile=1>"
start_command = [
  "/bin/sh", "-c", 'printf "<img src=x onerror=hostile=1>\\033[31m\\342\\200\\256\\355\\240\\200%01000d\\n" 7; exit 7',
]
"""
TAKEN = """
const unseen = /[\\u0000-\\u0008\\u000b-\\u001f\\u202a-\\u202e\\u2066-\\u2069]/.exec(document.body.innerText);
return [window.hostile, document.querySelectorAll("main :is(img, script, iframe), .helm-frame > img").length,
  document.documentElement.scrollWidth > innerWidth, unseen && document.body.innerText.slice(unseen.index - 60)];
"""
WRITTEN_OUT = """
const [done] = arguments, found = [];
import(document.querySelector("script[src$='/helm.js']").src.replace("helm.js", "dom.js")).then(({ printableText }) => {
  for (let code = 0; code < 0x110000; code += 1) {
    const shown = printableText(String.fromCodePoint(code));
    if (shown !== String.fromCodePoint(code)) found.push([code, shown]);
  }
  done(found);
}, (error) => done(String(error)));
"""


@pytest.fixture
def hostile(demo: Sandbox) -> Iterator[dict[str, str]]:
    """Hostile text of everybody who may write some; each page that has it, with what it must show of it."""
    name, secrets_of = f"hostile{secrets.token_hex(3)}", "/home/hive/.config/hivematrix/secrets"
    admin = Admin(demo)
    # What Keycloak takes.
    address = f'"<img src=//elsewhere.example/{name}>\u202e"@example.org'
    user = made(admin, f"{name}\u202e\u2066", firstName=f"Eve \u202e{'x' * 200}", lastName="nimda", email=address)
    demo.register("hostile", FAILS)
    view = {"name": f"{HOSTILE.replace(chr(27), '')[:60]}{name}", "query": "level:ERROR", "last": "1h", "shared": True}
    status, saved = api(demo, "POST", "/api/views", view)
    assert status == 201
    try:
        demo.shell(f"umask 022; printf 'PASSWORD=x\\n' > '{secrets_of}/{FILE}'; chmod 644 '{secrets_of}/{FILE}'")
        assert api(demo, "GET", "/api/security/audit?max_age=0")[0] == 200
        # A lone surrogate is refused, or taken as text.
        lone = {"wait": False, "reason": "\ud800"}
        assert api(demo, "POST", "/api/services/hostile/stop", lone)[0] in (202, 400)
        begun = {"wait": False, "reason": HOSTILE.replace("\x1b", "") + "x" * 300}
        job = api(demo, "POST", "/api/services/hostile/start", begun)[1]["job"]["id"]
        until(lambda: api(demo, "GET", f"/api/jobs/{job}")[1]["state"] == "failed", 60)
        image = "<img src=x onerror=hostile=1>"
        yield {
            "": image,
            "logs?query=service:hostile": image,
            "metrics?service=hostile": "hostile",
            "security": image,
            "jobs": "hostile",
            f"jobs/{job}": HOSTILE[:40],
            "modules": "",
            "apps": "",
            f"users?q={name}": f"{name}\\u202e\\u2066",
            f"users?q=elsewhere.example/{name}": f'"<img src=//elsewhere.example/{name}>\\u202e"@example.org',
            f"users?user={user}": f'"<img src=//elsewhere.example/{name}>\\u202e"@example.org',
            f"users?user={user}&q={name}": "Eve \\u202ex",
            "audit": HOSTILE[:40],
            "service/hostile": image,
            "service/hostile?tab=settings": "hostile",
            "service/hostile?tab=output": image,
            "service/hostile/logs": image,
        }
    finally:
        demo.sql(f"DELETE FROM log_views WHERE id = {saved['id']}")
        demo.shell(f"rm -f '{secrets_of}/{FILE}'")
        demo.unregister()
        admin("DELETE", f"/{REALM}/users/{user}")


def test_hostile_text_is_text_and_no_page_asks_another_host(demo: Sandbox, hostile: dict[str, str]) -> None:
    with dashboard_in(demo, traffic=True) as page:
        browser, wrong = page.browser, []
        for path, text in hostile.items():
            page.open(path, "owner")
            browser.until(lambda driver, text=text: text in driver.find_element(By.CSS_SELECTOR, "body").text, 30)  # type: ignore[misc]
            if (taken := browser.run(TAKEN)) != [None, 0, False, None]:
                wrong.append((path, taken))
        assert wrong == []
        # Scripts write out what templates do.
        of_scripts = browser.do(lambda: browser.driver.execute_async_script(WRITTEN_OUT))
        characters = [(code, without_unseen(chr(code))) for code in range(sys.maxunicode + 1)]
        assert of_scripts == [[code, shown] for code, shown in characters if shown != chr(code)]
        assert page.console_messages() == []
        events = [
            json.loads(each["message"])["message"] for each in browser.do(lambda: browser.driver.get_log("performance"))
        ]
    # Not those of the page that a new browser shows.
    sent = [each["params"] for each in events if each["method"] == "Network.requestWillBeSent"]
    asked = [each["request"]["url"] for each in sent if not each["documentURL"].startswith("chrome:")]
    asked += [each["params"]["url"] for each in events if each["method"] == "Network.webSocketCreated"]
    assert len(asked) > 10 * len(hostile)
    here = (HELM.removesuffix("helm/"), "data:", "blob:")
    assert [url for url in asked if not url.startswith(here)] == []
