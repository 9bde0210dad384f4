"""Logging in with a real browser: by a one-time link while nothing else works, and at the real Keycloak."""

import json
import time
from collections.abc import Iterator

import pytest

from tests.system.booted import Sandbox, until
from tests.system.browser import Browser, browser_in
from tests.system.keycloak_admin import GATEWAY, REALM, Admin, Person, ask, person
from tests.system.test_jobs import api
from tests.unit.core_stand_in import USER, signed

HELM = "http://localhost:5004/helm/"
STATE = "/home/hive/.local/state/hivematrix/sessions"


@pytest.fixture(scope="module")
def browser(demo: Sandbox) -> Iterator[Browser]:
    with browser_in(demo) as made:
        yield made


def services(browser: Browser) -> list[str]:
    """The services that the page shows."""
    return sorted(text.split()[0] for text in browser.texts(".helm-table__cell--name"))


def stored(box: Sandbox) -> list[str]:
    """The files of sessions, with their modes."""
    return box.shell(f"stat -c '%a %n' {STATE} {STATE}/* 2> /dev/null", check=False).out.splitlines()


def test_the_owner_gets_in_while_everything_else_is_down(demo: Sandbox, browser: Browser) -> None:
    """Also Helm's own PostgreSQL. The session outlasts helmd, the link does not work twice."""
    before = len(stored(demo))
    units = "hivematrix-nexus hivematrix-core hivematrix-keycloak helmd-postgres"
    demo.shell(f"systemctl --user stop {units}")
    try:
        made = json.loads(demo.helmctl("dashboard", "--json").out)
        assert made["expires_in"] == 60 and made["ssh"].startswith("ssh -N -L 5004:localhost:5004 hive@")
        browser.get(made["url"])
        browser.until_there(".helm-services")
        assert browser.url == HELM
        away = demo.helmctl("users", "list", check=False)
        assert (away.code, away.err) == (1, "error: keycloak is not running\nStart it: helmctl start keycloak\n")
        status, answer = api(demo, "GET", "/api/keycloak/users")
        assert (status, answer["code"], answer["error"]) == (503, "keycloak_away", "keycloak is not running")
        assert answer["hint"] == "Start it: helmctl start keycloak"
        assert browser.text(".helm-top__user").split() == ["hive", "admin"]
        assert {"nexus", "core", "keycloak", "helm", "ticker"} <= set(services(browser))
        cookie = browser.cookie("helm_session")
        assert cookie is not None
        assert (cookie["path"], cookie["httpOnly"], cookie["sameSite"]) == ("/helm/", True, "Lax")
        demo.shell("systemctl --user restart helmd")
        until(lambda: demo.shell("curl -sf http://localhost:5004/health -o /dev/null", check=False).code in (0, 22), 30)
        browser.get(HELM)
        assert browser.text(".helm-top__user").split() == ["hive", "admin"]
        files = stored(demo)
        assert len(files) > before and files[0].startswith("700 ") and all(line[:4] == "600 " for line in files[1:])
        assert cookie["value"] not in demo.shell(f"cat {STATE}/*; ls {STATE}").out
        browser.get("about:blank")
        browser.get(made["url"])
        browser.until(lambda driver: "used already" in driver.page_source)
        assert browser.url == f"{HELM}login/once", "the secret is not in the address any more"
        # Only the fragment differs, so the page is not loaded again.
        browser.get(demo.helmctl("dashboard").out.strip())
        browser.until_there(".helm-services")
        # The stream of events of the page that was open ended with the helmd that was stopped.
        assert [each for each in browser.console_messages() if not each.startswith(f"{HELM}api/events?")] == [
            f"{HELM}login/once - Failed to load resource: the server responded with a status of 403 (Forbidden)"
        ]
    finally:
        demo.shell(f"systemctl --user start --no-block {units}")
    browser.click(".helm-top__form button")
    browser.until_at(f"{HELM}logout")
    assert browser.cookie("helm_session") is None and len(stored(demo)) <= max(before, 1)
    demo.helmctl("wait", "--for", "healthy", "--timeout", "240", "nexus", "keycloak", "core", timeout=250)


def test_pages_fit_any_width_and_follow_the_system(demo: Sandbox, browser: Browser) -> None:
    """Nothing is wider than a telephone's screen; dark and light differ; the page stays up to date."""
    browser.get(demo.helmctl("dashboard").out.strip())
    browser.until_there(".helm-services")
    ground = "return getComputedStyle(document.body).backgroundColor"
    seen = set()
    for dark in (False, True):
        browser.size(360, 800, dark)
        assert browser.run("return document.documentElement.scrollWidth") <= 360
        seen.add(browser.run(ground))
    browser.click("[data-theme-switch]")
    assert browser.run(ground) in seen and browser.run("return document.documentElement.dataset.theme") == "light"
    browser.get(HELM)
    assert browser.run("return document.documentElement.dataset.theme") == "light", "the choice is remembered"
    browser.size(1280, 900)
    assert len(seen) == 2
    asked = browser.text("[data-clock]")
    browser.until(
        lambda driver: driver.execute_script("return document.querySelector('[data-clock]').textContent") != asked
    )
    assert browser.text(".helm-live") == "live" and browser.console_messages() == []
    # Another origin of this host is the same site, and sends the cookie along; it may not use it.
    forged = "fetch('http://localhost:5004/helm/logout', {method: 'POST', mode: 'no-cors', credentials: 'include'})"
    browser.get("http://localhost:8080/")
    browser.run(f"return {forged}.then(() => 1, () => 1)")
    browser.get(HELM)
    assert browser.text(".helm-top__user").split() == ["hive", "admin"]
    browser.console_messages()


def log_in(browser: Browser, who: Person, start: str = HELM) -> None:
    """Opens START as nobody, and logs in where that leads to."""
    browser.clear_cookies()
    browser.get(start)
    browser.until_there("#kc-login")
    assert browser.url.startswith(f"{GATEWAY}/keycloak/realms/{REALM}/")
    browser.type("#username", who.name)
    browser.type("#password", who.password)
    browser.click("#kc-login")
    browser.until_there(".helm-services, .helm-message")
    assert not browser.texts(".helm-message"), f"{browser.url}:\n{browser.text()[:2000]}"


def fetched(browser: Browser, path: str, method: str = "GET", body: str | None = None) -> int:
    """The status that a script of Helm's page gets."""
    script = (
        "const [path, method, body, done] = arguments; const headers = {'Content-Type': 'application/json'};"
        "fetch('/helm' + path, {method, body, headers: body ? headers : {}}).then((answer) => done(answer.status))"
    )
    return int(browser.do(lambda: browser.driver.execute_async_script(script, path, method, body)))


TOKEN = '{"name": "%s", "role": "client", "expires_in": 60}'


@pytest.mark.parametrize(
    ("group", "role", "logs", "change"),
    [
        ("admins", "admin", 200, 201),
        ("technicians", "technician", 200, 403),
        ("billing", "billing", 200, 403),
        ("client", "client", 403, 403),
    ],
)
def test_each_role_logs_in_and_sees_what_it_may(
    demo: Sandbox, browser: Browser, group: str, role: str, logs: int, change: int
) -> None:
    """At port 5004, by Keycloak behind the gateway and Core's exchange; then at the gateway, without another login."""
    with person(demo, group) as who:
        log_in(browser, who)
        assert browser.url == HELM
        assert browser.text(".helm-top__user").split() == [who.name, role]
        shown, runs_it = services(browser), role in ("admin", "technician")
        assert {"codex", "knowledgetree"} <= set(shown)
        assert ("helm" in shown and "ticker" in shown) is runs_it
        assert bool(browser.texts(".helm-table__cell--number")) is runs_it
        offered = browser.text(".helm-permissions")
        assert ("helmctl restart" in offered) is (role == "admin")
        assert ("logs of all services" in offered) is runs_it
        assert fetched(browser, "/api/logs?limit=1") == logs
        assert fetched(browser, "/api/services/status") == 200
        assert fetched(browser, "/docs/api") == 200
        assert fetched(browser, "/api/tokens", "POST", TOKEN % who.name) == change
        assert fetched(browser, "/api/login-links", "POST") == 403, "that needs the unix socket"
        browser.console_messages()
        # Keycloak knows the user now; the page of the gateway has the same content, and Helm's script runs there.
        browser.get(f"{GATEWAY}/helm/")
        browser.until_there(".helm-services")
        assert browser.text(".helm-top__user").split() == [who.name, role]
        assert services(browser) == shown
        browser.until_there("[data-theme-switch]:not([hidden])")
        browser.get(HELM)
        browser.click(".helm-top__form button")
        browser.until_at(f"{HELM}logout")
        browser.get(HELM)
        browser.until_there("#kc-login")


def test_a_session_that_keycloak_ended_is_dead_within_a_minute(demo: Sandbox, browser: Browser) -> None:
    admin = Admin(demo)
    with person(demo, "technicians") as who:
        log_in(browser, who)
        assert fetched(browser, "/api/logs?limit=1") == 200
        user = admin("GET", f"/{REALM}/users?exact=true&username={who.name}").json()[0]["id"]
        assert admin("POST", f"/{REALM}/users/{user}/logout").code == 204
        until(lambda: fetched(browser, "/api/logs?limit=1") == 401, within=60)
        browser.get(HELM)
        browser.until_there("#kc-login")


def test_a_disabled_users_session_is_dead_within_a_minute(demo: Sandbox, browser: Browser) -> None:
    with person(demo, "technicians") as who:
        log_in(browser, who)
        assert fetched(browser, "/api/logs?limit=1") == 200
        demo.helmctl("users", "disable", who.name)
        until(lambda: fetched(browser, "/api/logs?limit=1") == 401, within=60)


def test_a_stolen_cookie_is_worth_nothing_behind_a_proxy_or_for_another_origin(demo: Sandbox, browser: Browser) -> None:
    with person(demo, "admins") as who:
        log_in(browser, who)
        cookie = browser.cookie("helm_session")
        assert cookie is not None
        given = (f"Cookie: helm_session={cookie['value']}",)
        assert ask(demo, f"{HELM}api/services/status", headers=given).code == 200
        for header in ("X-Forwarded-For: 127.0.0.1", "X-Forwarded-Prefix: /helm", "Via: 1.1 nexus"):
            assert ask(demo, f"{HELM}api/services/status", headers=(*given, header)).code == 401
        assert ask(demo, f"{GATEWAY}/helm/api/services/status", headers=given).code == 401
        for header in ("X: y", "Sec-Fetch-Site: same-site", "Origin: https://localhost:8443"):
            assert ask(demo, f"{HELM}api/tokens", "POST", headers=(*given, header)).code == 403


def test_what_listens_on_cores_port_instead_gets_nothing(demo: Sandbox) -> None:
    """Neither tokens, nor a request for keys, by which tokens of its own would be valid."""
    demo.shell("systemctl --user stop hivematrix-core")
    try:
        listen = ("/usr/bin/python3", "-u", "-m", "http.server", "--bind", "127.0.0.1", "5000")
        demo("systemd-run", "--user", "--quiet", "--unit=impostor", *listen)
        until(lambda: demo.shell("curl -sf -o /dev/null http://127.0.0.1:5000/", check=False).code == 0, within=30)
        token = signed({**USER, "permission_level": "admin", "exp": int(time.time()) + 600}, kid="of-the-impostor")
        refused = ask(demo, f"{HELM}api/logs", headers=(f"Authorization: Bearer {token}",))
        assert refused.code == 503, refused
        assert "port 5000 is taken by impostor.service, not by hivematrix-core.service" in refused.json()["detail"]
        lines = demo("journalctl", "--user", "-u", "impostor", "-o", "cat").out.splitlines()
        asked = [line for line in lines if "HTTP/1." in line]
        assert asked and all('"GET / HTTP' in line for line in asked), lines
    finally:
        demo.shell("systemctl --user stop impostor; systemctl --user start hivematrix-core; helmctl up", timeout=300)
