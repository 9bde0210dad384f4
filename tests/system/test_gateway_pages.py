"""Helm's pages behind the gateway: what it adds works there, what differs by user and what modules add does not.

And what a module can do that has an admin's cookies of the gateway: what an admin may do through the gateway, no more.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from helmd.model.identity.realm import PROBE_USER
from tests.system.booted import Sandbox, superuser_sql, until
from tests.system.browser import Browser, browser_in
from tests.system.keycloak_admin import CONFIG, GATEWAY, Person, ask, log_in, person, session_of_owner
from tests.system.test_peer_policy import changing, checked

HOME = f"{GATEWAY}/helm/"
DIRECT = "http://localhost:5004/helm/"
MODULE = "http://localhost:5010"
"""Codex at its own port."""
LEARNED = "/home/hive/.local/state/hivematrix/gateway-page.json"
PASSWORD = f"{CONFIG}/secrets/page-probe.password"
KNOWN = "ok: 4 scripts that the gateway adds may run on Helm's pages (learned "
OF_ITS_STYLES = "fonts.googleapis.com"
"""What the gateway's style sheet imports from another host, which pages of Helm don't load."""
PLANTED_PORT = 6145
PLANTED = f"""
[services.planted]
type = "command"
path = "~/suite/faulty"
start_command = ["/usr/bin/python3", "planted.py"]
port = {PLANTED_PORT}
environment = {{ PORT = "{PLANTED_PORT}" }}
"""


ATTACK = """
(async () => {
  const [routes, own, direct] = GIVEN;
  const found = {};
  const attempt = async (name, what) => {
    try { found[name] = await what(); } catch (error) { found[name] = error.name; }
  };
  const json = { "Content-Type": "application/json" };
  const body = JSON.stringify({ source: "https://git.example.org/evil.git", reason: "" });
  const framed = async (url) => {
    const frame = document.createElement("iframe");
    const loaded = new Promise((resolve) => { frame.onload = resolve; });
    frame.src = url;
    document.body.append(frame);
    await loaded;
    return frame.contentDocument ? frame.contentDocument.body.innerText : "blocked";
  };
  await attempt("me", async () => (await (await fetch(own + "api/me")).json()).role);
  found.routes = {};
  for (const [method, path] of routes) {
    const answer = await fetch(own + path.slice(1), { method, headers: json, body });
    found.routes[`${method} ${path}`] = [answer.status, (await answer.json()).code];
  }
  await attempt("page", async () => {
    const page = new DOMParser().parseFromString(await (await fetch(own + "modules")).text(), "text/html");
    return [page.title, page.querySelectorAll("form, input[type=hidden], [name*=csrf], [name*=token]").length];
  });
  await attempt("offered", async () => {
    const page = new DOMParser().parseFromString(await (await fetch(own + "modules")).text(), "text/html");
    return page.querySelectorAll(":is([data-install], [data-check], [data-change]):enabled").length;
  });
  await attempt("frame", () => framed(own + "modules"));
  await attempt("frame of another page", () => framed(own + "users"));
  await attempt("direct frame", () => framed(direct + "modules"));
  const change = { method: "POST", credentials: "include", body };
  const install = direct + "api/modules/install";
  await attempt("direct page", async () => (await fetch(direct + "modules", { credentials: "include" })).status);
  await attempt("direct change", async () =>
    (await fetch(install, { ...change, headers: json })).status);
  await attempt("direct change unseen", async () =>
    (await fetch(install, { ...change, mode: "no-cors" })).type);
  await attempt("direct socket", () => new Promise((resolve) => {
    const made = new WebSocket(direct.replace("http", "ws") + "api/logs/ws");
    made.onopen = () => resolve("open");
    made.onerror = () => resolve("refused");
  }));
  await attempt("form", () => new Promise((resolve) => {
    const frame = Object.assign(document.createElement("iframe"), { name: "aim" });
    const facts = { method: "POST", enctype: "text/plain", target: "aim", action: install };
    const form = Object.assign(document.createElement("form"), facts);
    form.append(Object.assign(document.createElement("input"), { name: body.slice(0, -2), value: '"}' }));
    document.body.append(frame, form);
    frame.onload = () => resolve(frame.contentDocument ? frame.contentDocument.URL : "sent");
    form.submit();
  }));
  found.cookie = document.cookie;
  document.documentElement.dataset.found = JSON.stringify(found);
})()
"""
"""What a script in a page of a module tries, which has the same origin as Helm behind the gateway."""

IN_ITS_PLACE = f"""
import os, sys
sys.path.insert(0, "/usr/share/hivematrix-helm")
from helmd.health.peers import Peers
from helmd.operations.identity.gateway_login import Gateway, GatewayBrowser, GatewayPageError
gateway = Gateway("http://localhost:{PLANTED_PORT}", {PLANTED_PORT}, "hivematrix-nexus.service")
with GatewayBrowser(gateway, Peers(os.getuid()).peer) as browser:
    try:
        browser.see("/helm/page-probe", "somebody", "secret")
    except GatewayPageError as error:
        print(error.sentence)
"""
"""Logs in at the port of a module as helmd does at the gateway's."""


@pytest.fixture(scope="module")
def browser(demo: Sandbox) -> Iterator[Browser]:
    with browser_in(demo) as made:
        yield made


def findings(box: Sandbox) -> list[str]:
    """What doctor says of the gateway's pages."""
    said = json.loads(box.helmctl("doctor", "--json", check=False).out)["findings"]
    return [f"{each['verdict']}: {each['sentence']}" for each in said if each["check"] == "gateway pages"]


def learned(box: Sandbox) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(box("cat", LEARNED).out)
    return found


def fill_in_login(browser: Browser, url: str, who: Person) -> None:
    """The page at URL, by the form of Keycloak that it leads to."""
    browser.get(url)
    browser.until_there("#kc-login")
    browser.type("#username", who.name)
    browser.type("#password", who.password)
    browser.click("#kc-login")
    browser.until_there(".helm-services")


def open_page(browser: Browser, who: Person) -> None:
    """Helm's page behind the gateway, by a login there."""
    browser.clear_cookies()
    fill_in_login(browser, HOME, who)
    browser.until_there("[data-theme-switch]:not([hidden])")


def console_messages(browser: Browser) -> list[str]:
    """What the console has about scripts and policies, but for the fonts."""
    return [each for each in browser.console_messages() if OF_ITS_STYLES not in each]


def theme(browser: Browser) -> str:
    return str(browser.run("return document.documentElement.dataset.theme"))


def test_it_is_learned_at_the_gateway_itself(demo: Sandbox) -> None:
    """By an account that is worth nothing at Helm, and whose password nobody else can read."""
    until(lambda: findings(demo)[0].startswith(KNOWN), 60)
    assert len(findings(demo)) == 1
    known = learned(demo)
    assert len(known["injected"]["scripts"]) == 4 and known["injected"]["blocked"] == []
    invocation = demo("systemctl", "--user", "show", "-P", "InvocationID", "hivematrix-nexus").out.strip()
    assert known["run"] == invocation
    assert demo("stat", "-c", "%a", LEARNED, PASSWORD).out.split() == ["600", "600"]
    own = Person(PROBE_USER, demo("cat", PASSWORD).out.strip())
    places = "~/.local/share/systemd ~/.local/state/hivematrix/*.json ~/.config/hivematrix/*.toml"
    assert demo.shell(f"grep -rlF -f - {places}", stdin=own.password, check=False).out == ""
    # `log_in` needs a page to end at; the account itself may see none.
    entered = log_in(demo, own, "/helm/page-probe")
    assert entered.location == "/helm/page-probe", entered
    for path in ("", "api/me", "api/services/status", "api/logs"):
        refused = ask(demo, f"{HOME}{path}", headers=(f"Cookie: {entered.cookie}", "Accept: application/json"))
        assert (refused.code, refused.json()["code"]) == (403, "denied"), path
    direct = ask(demo, "http://localhost:5004/api/me", headers=(f"Authorization: Bearer {entered.token}",))
    assert direct.code == 403


def test_what_the_gateway_adds_works_and_what_modules_add_does_not(demo: Sandbox, browser: Browser) -> None:
    """Its switch of colours, its panel; and the page holds its own beside that panel on a telephone."""
    with person(demo, "admins") as who:
        open_page(browser, who)
        before = theme(browser)
        browser.click("#theme-toggle-btn")
        assert theme(browser) == ("light" if before == "dark" else "dark")
        title = "return document.querySelector('[data-theme-switch]').title"
        browser.until(lambda driver: driver.execute_script(title) == f"Colours: {theme_of(driver)}")
        browser.click("#sidebar-toggle")
        assert "collapsed" in browser.run("return document.getElementById('side-panel').className")
        browser.click("#sidebar-toggle")
        said = console_messages(browser)
        assert [each for each in said if "Content Security Policy" in each or "Trusted" in each] == [], said
        for width in (900, 360):
            browser.size(width, 800)
            assert browser.run("return document.documentElement.scrollWidth") <= width
        browser.size(1280, 900)
        # What a module of the same origin could try in a page of Helm's that it has opened.
        for attempt in (
            "script.textContent = 'window.evil = 1'",
            "script.append('window.evil = 1')",
            "script.src = '/codex/static/evil.js'",
            "script.setAttribute('src', '/codex/static/evil.js')",
            "document.body.innerHTML = '<img src=x onerror=\"window.evil = 1\">'",
            "document.body.setAttribute('onclick', 'window.evil = 1'); document.body.click()",
        ):
            tried = f"const script = document.createElement('script'); {attempt}; document.body.append(script)"
            browser.run(f"try {{ {tried} }} catch (error) {{ }}")
        assert browser.run("return window.evil") is None
        assert any("Content Security Policy" in each or "Trusted" in each for each in console_messages(browser))


def cookies_that_came(browser: Browser, url: str) -> dict[str, str]:
    """What Codex has got of the browser's cookies, which it answers with at paths that end in "cookies"."""
    browser.get(url)
    found: dict[str, str] = json.loads(browser.text("body"))["cookies"]
    return found


def test_a_module_gets_no_cookie_of_helms_and_its_scripts_install_nothing(demo: Sandbox, browser: Browser) -> None:
    """With an admin in the browser who has just logged in at Helm itself as well. The script is in a client's note."""
    routes = [(method, path) for method, path, recent_login in changing() if recent_login]
    given = json.dumps([routes, "/helm/", DIRECT])
    script = " ".join(ATTACK.replace("GIVEN", given).split())
    with person(demo, "client") as eve, person(demo, "admins") as who:
        token = f"Authorization: Bearer {log_in(demo, eve).token}"
        note = ask(
            demo, f"{GATEWAY}/codex/api/notes", "POST", body={"body": f"<script>{script}</script>"}, headers=(token,)
        )
        assert note.code == 201, note
        try:
            browser.clear_cookies()
            browser.get(DIRECT)
            browser.until_there("#kc-login")
            begun = cookies_that_came(browser, f"{MODULE}/helm/login/callback/cookies")
            assert {name.partition("_")[0] for name in begun} >= {"helm"}, "of the login that was begun"
            fill_in_login(browser, DIRECT, who)
            browser.get(f"{GATEWAY}/codex/")
            browser.until_there("html[data-found]", 60)
            found = json.loads(browser.run("return document.documentElement.dataset.found"))
            assert found.pop("routes") == {f"{method} {path}": [403, "login_needed"] for method, path in routes}
            assert found == {
                "me": "admin",
                "page": ["Modules · Helm", 0],
                "offered": 0,
                "frame": "blocked",
                "frame of another page": "blocked",
                "direct frame": "blocked",
                "direct page": "TypeError",
                "direct change": "TypeError",
                "direct change unseen": "TypeError",
                "direct socket": "refused",
                "form": "sent",
                "cookie": "",
            }
            # No path of the gateway that leads to a module is one for which the browser has a cookie of Helm's.
            for path in ("cookies", "helm/cookies", "..%2fhelm/cookies", "%2e%2e/helm/cookies"):
                browser.get(f"{GATEWAY}/codex/{path}")
                assert "helm_" not in browser.text("body"), path
            assert "session" in cookies_that_came(browser, f"{GATEWAY}/codex/cookies")
            assert not any(name.startswith("helm") for name in cookies_that_came(browser, f"{MODULE}/cookies"))
            # But cookies know no ports (RFC 6265, section 8.5): the next test shows what that one is good for. Pages
            # of a module's own port are of the same site, so requests that they make have it, too.
            stolen = cookies_that_came(browser, f"{MODULE}/helm/cookies")
            assert "helm_session" in stolen
            sent = "fetch(arguments[0], {method: 'POST', mode: 'no-cors', credentials: 'include', body: '{}'})"
            browser.run(f"return {sent}.then(() => 1, () => 1)", f"{DIRECT}api/modules/install")
        finally:
            superuser_sql(demo, f"DELETE FROM notes WHERE id = {note.json()['id']}", "codex_db")
        audit = json.loads(demo.helmctl("audit", "--json", "-n", "200").out)
        mine = [each for each in audit if each["who"] == who.name]
        assert len(mine) >= len(routes) and {each["result"] for each in mine} == {"refused"}
    tried = [each for each in audit if each["action"] == "POST /api/modules/install"][-3:]
    assert [each["detail"].partition(":")[0] for each in tried] == ["no_credential", "no_credential", "denied"]
    assert "git.example.org" not in demo.helmctl("jobs", "list", "--json").out


def theme_of(driver: Any) -> str:
    return str(driver.execute_script("return document.documentElement.dataset.theme"))


def test_a_gateway_that_restarts_is_looked_at_again_and_what_differs_by_user_stays_blocked(
    box: Sandbox, browser: Browser
) -> None:
    until(lambda: findings(box)[0].startswith(KNOWN), 60)
    before = learned(box)
    try:
        box.register("greets", '[services.nexus.environment]\nNEXUS_GREETS_USERS = "1"\n')
        box.helmctl("restart", "nexus")
        until(lambda: learned(box)["run"] != before["run"] and len(findings(box)) == 2, 30)
        known, greets = findings(box)
        assert known.startswith(KNOWN)
        assert 'the script that begins with “document.getElementById("side-panel").t…” differs by user' in greets
        assert learned(box)["injected"]["scripts"] == before["injected"]["scripts"]
        with person(box, "client") as who:
            browser.console_messages()
            open_page(browser, who)
            (said,) = console_messages(browser)
            assert "inline script" in said and "Content Security Policy" in said
            assert browser.run("return document.getElementById('side-panel').title") == ""
            before_click = theme(browser)
            browser.click("#theme-toggle-btn")
            assert theme(browser) != before_click
    finally:
        box.unregister()
        box.helmctl("restart", "nexus")
    until(lambda: len(findings(box)) == 1 and findings(box)[0].startswith(KNOWN), 60)


def test_a_module_with_an_admins_cookies_can_do_what_an_admin_may_do_there_and_no_more(box: Sandbox) -> None:
    """Each changing route, replayed to the gateway: SECURITY.md says which of them it passes on."""
    box.register("planted", PLANTED)
    box.helmctl("start", "planted")
    assert box("python3", "-c", IN_ITS_PLACE).out == (
        f"hivematrix-planted.service answers on port {PLANTED_PORT}, not hivematrix-nexus.service; no password was sent"
        " there\n"
    )
    with person(box, "admins") as who:
        cookie = log_in(box, who).cookie
        routes = changing()
        work = {
            "ways": ["plainly"],
            "requests": [
                {"url": f"{GATEWAY}/helm{path}", "method": method, "cookie": cookie} for method, path, _ in routes
            ],
        }
        url = f"http://127.0.0.1:{PLANTED_PORT}/try"
        sent = ("curl", "-sS", "--max-time", "120", "--data-binary", "@-", url)
        answers = checked(json.loads(box(*sent, stdin=json.dumps(work)).out))["plainly"]
        found = {f"{method} {path}": tuple(answer) for (method, path, _), answer in zip(routes, answers, strict=True)}
        kept = {f"{method} {path}" for method, path, recent_login in routes if recent_login}
        assert kept and {name: found[name] for name in kept} == dict.fromkeys(kept, (403, "login_needed"))
        assert found["POST /api/login-links"] == (403, "denied"), "it is made over the unix socket alone"
        # There is no such service, job or body: the requests were let in.
        passed = {name: answer for name, answer in found.items() if name not in kept | {"POST /api/login-links"}}
        assert passed and not {name for name, (status, _) in passed.items() if status in (0, 401, 403)}, passed
        assert found["POST /api/services/nosuch/stop"] == (404, "unknown_service")
        # The same cookie at helmd itself, as the module would use it directly; and that of a session of Helm's own.
        direct = ask(box, f"{DIRECT}api/services/status", headers=(f"Cookie: {cookie}",))
        assert direct.code == 401
        own = session_of_owner(box)
        read = [("GET", "/api/services/status"), ("GET", "/api/logs"), ("GET", "/")]
        paths = [*read, *((method, path) for method, path, _ in routes)]
        work["requests"] = [{"url": f"{DIRECT}{path[1:]}", "method": method, "cookie": own} for method, path in paths]
        direct_answers = checked(json.loads(box(*sent, stdin=json.dumps(work)).out))["plainly"]
        assert direct_answers == [[403, "peer_refused"]] * len(paths)
        assert ask(box, f"{DIRECT}api/logs", headers=(f"Cookie: {own}",)).code == 200
        audit = json.loads(box.helmctl("audit", "--json", "-n", "200").out)
        mine = [each for each in audit if each["who"] == who.name]
        assert {each["unit"] for each in mine} == {"hivematrix-nexus.service"}
        assert len(mine) >= len(routes) and not re.search(re.escape(cookie[8:40]), json.dumps(audit))
