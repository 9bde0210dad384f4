"""The dashboard in a real browser, for tests of its pages: who is logged in, what the console says, axe, screenshots.

One browser for all pages. Each role logs in once; then its session's cookie is restored.
"""

import os
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from tests.system.booted import TOP, Sandbox
from tests.system.browser import Browser, browser_in
from tests.system.dialogs import dialogs, pattern
from tests.system.keycloak_admin import GATEWAY, Person, person

HELM = "http://localhost:5004/helm/"
BEHIND_GATEWAY = f"{GATEWAY}/helm/"
SCREENSHOTS = TOP / "docs/screenshots"
WIDTHS = ((1440, 900), (900, 900), (360, 800))
_GROUPS = {"admin": "admins", "technician": "technicians", "billing": "billing", "client": "client"}
_RECENT = 240.0
"""Seconds after which the owner logs in again: half of what helmd takes for a recent login is left to the test."""
_IGNORED = ("fonts.googleapis.com", "favicon.ico")
"""What the console says of the gateway's own style sheet."""
_OPEN = """
const [dialog] = [...document.querySelectorAll("dialog[open], :popover-open")].slice(-1);
const heading = dialog?.querySelector("h2, h3")?.textContent;
return dialog ? [heading, dialog.getAttribute("aria-label"), dialog.id].filter(Boolean) : [];
"""
_AXE = """
const [ofOpen, rules, done] = arguments;
const [part] = ofOpen ? [...document.querySelectorAll("dialog[open], :popover-open")].slice(-1) : [document];
const only = rules.length ? { runOnly: { type: "rule", values: rules } } : {};
axe.run(part, { resultTypes: ["violations"], ...only }).then(
  (found) => done(found.violations.flatMap((each) => each.nodes.map((node) =>
    `${each.id}: ${node.target.join(" ")}: ${node.failureSummary.split("\\n").slice(1).join(" ")}`))),
  (error) => done([String(error)]));
"""
_OF_COLOURS = ("color-contrast", "link-in-text-block")
"""The rules of axe that look at colours, which alone are others in dark."""


def axe_source() -> str:
    """axe-core, which scripts/test has installed."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "hivematrix-helm/tools-browser"
    (path,) = cache.glob("lib/python3*/site-packages/axe_playwright_python/axe.min.js")
    return path.read_text()


class Dashboard:
    """Pages of Helm in BOX, in BROWSER. Users that log in are there until the end."""

    def __init__(self, box: Sandbox, browser: Browser, users: ExitStack) -> None:
        self.box = box
        self.browser = browser
        self._users = users
        self._people: dict[str, Person] = {}
        self._cookies: dict[str, list[dict[str, Any]]] = {}
        self._now = ""
        self._owner_since = 0.0

    def person(self, role: str) -> Person:
        """The user of a role."""
        if role not in self._people:
            self._people[role] = self._users.enter_context(person(self.box, _GROUPS[role]))
        return self._people[role]

    def become(self, role: str) -> None:
        """Another role, directly at helmd: "owner" by a one-time link, the others at Keycloak."""
        if role == "owner" and time.monotonic() - self._owner_since > _RECENT:
            self.forget_owner()
        if role == self._now:
            return
        self.browser.get(f"{HELM}logout")
        self.browser.do(lambda: self.browser.driver.execute_cdp_cmd("Network.clearBrowserCookies", {}))
        if role in self._cookies:
            for cookie in self._cookies[role]:
                self.browser.do(lambda kept=cookie: self.browser.driver.add_cookie(kept))  # type: ignore[misc]
        elif role == "owner":
            self.browser.get(self.box.helmctl("dashboard").out.strip())
            self.browser.until_there(".helm-rail")
            self._owner_since = time.monotonic()
        else:
            self._log_in(self.person(role), HELM)
        if role not in self._cookies:
            self._cookies[role] = self.browser.do(lambda: self.browser.driver.get_cookies())
        self._now = role

    def forget_owner(self) -> None:
        """The owner needs another one-time link."""
        self._cookies.pop("owner", None)
        if self._now == "owner":
            self._now = ""

    def log_in(self, who: Person) -> None:
        """Somebody else, directly at helmd, until the next role."""
        self._now = ""
        self.browser.forget()
        self._log_in(who, HELM)

    def _log_in(self, who: Person, start: str) -> None:
        self.browser.get(start)
        self.enter(who)

    def enter(self, who: Person) -> None:
        """Fills in Keycloak's page, where the browser is led to."""
        self.browser.until_there("#kc-login")
        self.browser.type("#username", who.name)
        self.browser.type("#password", who.password)
        self.browser.click("#kc-login")
        self.browser.until_there(".helm-rail, .helm-message")
        assert not self.browser.texts(".helm-message"), f"{self.browser.url}:\n{self.browser.text()[:2000]}"

    def open(self, path: str = "", role: str = "owner") -> None:
        """The page at PATH below /helm/, once its scripts run."""
        self.become(role)
        self.browser.get(HELM + path)
        self.browser.until_there("[data-theme-switch]:not([hidden])")

    def open_behind_gateway(self, path: str = "", role: str = "admin") -> None:
        """The same page as the gateway passes it on, by a login there."""
        self._now = ""
        self.browser.do(lambda: self.browser.driver.execute_cdp_cmd("Network.clearBrowserCookies", {}))
        self._log_in(self.person(role), BEHIND_GATEWAY)
        self.browser.get(BEHIND_GATEWAY + path)
        self.browser.until_there("[data-theme-switch]:not([hidden])")

    def complaints(self) -> list[str]:
        """What the console has said since the last call: errors of scripts, violations of the policy, failed loads."""
        return [each for each in self.browser.complaints() if not any(word in each for word in _IGNORED)]

    def violations(self, *, of_open: bool = False) -> list[str]:
        """What axe finds on the page as it is now, or on the dialog or popover that is open: in light, and of colours
        in dark.
        """
        if not self.browser.run("return Boolean(window.axe)"):
            self.browser.run(axe_source())
        driver = self.browser.driver
        found = []
        for dark, rules in ((False, ()), (True, _OF_COLOURS)):
            self.browser.size(1440, 900, dark)
            seen = self.browser.do(lambda given=rules: driver.execute_async_script(_AXE, of_open, given))  # type: ignore[misc]
            found += [f"{each} ({'dark' if dark else 'light'})" for each in seen]
        self.browser.size(1440, 900)
        return found

    def readable(self, name: str) -> None:
        """The dialog or popover that is open has this NAME (tests/system/dialogs.py); axe finds nothing on it."""
        assert name in dialogs(), f"no page has such a dialog: {name}"
        titles = self.browser.run(_OPEN)
        assert any(re.fullmatch(pattern(name), title) for title in titles), f"{name} is not open, but: {titles}"
        assert self.violations(of_open=True) == [], name

    @contextmanager
    def network(self, *, offline: bool = False, latency: int = 0) -> Iterator[None]:
        """Answers come so many milliseconds late, or none does."""

        def set_to(offline: bool, latency: int) -> None:
            facts = {"offline": offline, "latency": latency, "downloadThroughput": -1, "uploadThroughput": -1}
            self.browser.driver.execute_cdp_cmd("Network.enable", {})
            self.browser.driver.execute_cdp_cmd("Network.emulateNetworkConditions", facts)

        self.browser.do(lambda: set_to(offline, latency))
        try:
            yield
        finally:
            self.browser.do(lambda: set_to(False, 0))
            self.browser.do(lambda: self.browser.driver.execute_cdp_cmd("Network.disable", {}))

    def press(self, *keys: str) -> None:
        """Presses keys one after the other, wherever the focus is; "Control+k" at once."""

        def do() -> None:
            for key in keys:
                *held, last = key.split("+") if len(key) > 1 else (key,)
                chain = ActionChains(self.browser.driver)
                for each in held:
                    chain.key_down(getattr(Keys, each.upper()))
                chain.send_keys(getattr(Keys, last.upper()) if len(last) > 1 else last)
                for each in held:
                    chain.key_up(getattr(Keys, each.upper()))
                chain.perform()

        self.browser.do(do)

    def fits(self, widths: tuple[int, ...] = (1440, 900, 360)) -> None:
        """Nothing of the page is wider than the window."""
        for width in widths:
            self.browser.size(width, 900)
            wide = self.browser.run("return document.documentElement.scrollWidth")
            assert wide <= width, f"{wide} px of {width}"
        self.browser.size(1440, 900)

    def screenshots(self, name: str) -> None:
        """The page at three widths, light and dark, into docs/screenshots where HIVEMATRIX_SCREENSHOTS=1."""
        if os.environ.get("HIVEMATRIX_SCREENSHOTS") != "1":
            return
        SCREENSHOTS.mkdir(exist_ok=True)
        for width, height in WIDTHS:
            for dark in (False, True):
                self.browser.size(width, height, dark)
                path = SCREENSHOTS / f"{name}-{width}-{'dark' if dark else 'light'}.png"
                self.browser.screenshot(path)
        self.browser.size(1440, 900)


@contextmanager
def dashboard_in(box: Sandbox, *, traffic: bool = False) -> Iterator[Dashboard]:
    """The dashboard of BOX in a browser of its own, which notes its requests with TRAFFIC."""
    with ExitStack() as users, browser_in(box, traffic=traffic) as browser:
        browser.size(1440, 900)
        yield Dashboard(box, browser, users)
