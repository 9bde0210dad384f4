"""The dashboard in a real browser, for tests of its pages: logins, console messages, axe, screenshots.

All pages share one browser. Each role logs in once; later its session's cookie is restored.
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
"""Seconds after which the owner logs in again; half of the time for which helmd counts a login as recent remains."""
_IGNORED = ("fonts.googleapis.com", "favicon.ico")
"""Words in console messages about the gateway's own style sheet."""
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
"""The rules of axe that depend on colours, which are the only difference in the dark scheme."""


def axe_source() -> str:
    """Return axe-core, which scripts/test has installed."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "hivematrix-helm/tools-browser"
    (path,) = cache.glob("lib/python3*/site-packages/axe_playwright_python/axe.min.js")
    return path.read_text()


class Dashboard:
    """Helm's pages of BOX in BROWSER. Users that log in exist until USERS is closed."""

    def __init__(self, box: Sandbox, browser: Browser, users: ExitStack) -> None:
        self.box = box
        self.browser = browser
        self._users = users
        self._people: dict[str, Person] = {}
        self._cookies: dict[str, list[dict[str, Any]]] = {}
        self._now = ""
        self._owner_since = 0.0

    def person(self, role: str) -> Person:
        """Return the user of a role, created at the first call."""
        if role not in self._people:
            self._people[role] = self._users.enter_context(person(self.box, _GROUPS[role]))
        return self._people[role]

    def log_in_as(self, role: str) -> None:
        """Log in as another role, directly at helmd: "owner" by a one-time link, the others at Keycloak."""
        if role == "owner" and time.monotonic() - self._owner_since > _RECENT:
            self.forget_owner_session()
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

    def forget_owner_session(self) -> None:
        """Drop the owner's cookie, so that the next login is by another one-time link."""
        self._cookies.pop("owner", None)
        if self._now == "owner":
            self._now = ""

    def log_in(self, who: Person) -> None:
        """Log in as a user without a role here, directly at helmd."""
        self._now = ""
        self.browser.clear_cookies()
        self._log_in(who, HELM)

    def _log_in(self, who: Person, start: str) -> None:
        self.browser.get(start)
        self.fill_in_login(who)

    def fill_in_login(self, who: Person) -> None:
        """Fill in Keycloak's login page, to which the browser is redirected, and wait for Helm's page."""
        self.browser.until_there("#kc-login")
        self.browser.type("#username", who.name)
        self.browser.type("#password", who.password)
        self.browser.click("#kc-login")
        self.browser.until_there(".helm-rail, .helm-message")
        assert not self.browser.texts(".helm-message"), f"{self.browser.url}:\n{self.browser.text()[:2000]}"

    def open(self, path: str = "", role: str = "owner") -> None:
        """Open the page at PATH below /helm/, and wait until its scripts run."""
        self.log_in_as(role)
        self.browser.get(HELM + path)
        self.browser.until_there("[data-theme-switch]:not([hidden])")

    def open_behind_gateway(self, path: str = "", role: str = "admin") -> None:
        """Open the page through the gateway, after a login there, and wait until its scripts run."""
        self._now = ""
        self.browser.clear_cookies()
        self._log_in(self.person(role), BEHIND_GATEWAY)
        self.browser.get(BEHIND_GATEWAY + path)
        self.browser.until_there("[data-theme-switch]:not([hidden])")

    def console_messages(self) -> list[str]:
        """Return the console's messages since the last call: script errors, CSP violations, failed loads."""
        return [each for each in self.browser.console_messages() if not any(word in each for word in _IGNORED)]

    def violations(self, *, of_open: bool = False) -> list[str]:
        """Return axe's violations on the page, or on the open dialog or popover: in the light scheme, and those of
        colours in the dark one.
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

    def check_dialog(self, name: str) -> None:
        """Check that the open dialog or popover has this NAME (tests/system/dialogs.py), and no violations of axe."""
        assert name in dialogs(), f"no page has such a dialog: {name}"
        titles = self.browser.run(_OPEN)
        assert any(re.fullmatch(pattern(name), title) for title in titles), f"{name} is not open, but: {titles}"
        assert self.violations(of_open=True) == [], name

    @contextmanager
    def network(self, *, offline: bool = False, latency: int = 0) -> Iterator[None]:
        """Delay responses by LATENCY milliseconds, or disconnect the browser, until the end of the block."""

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
        """Press KEYS one after the other, in the focused element; those of "Control+k" together."""

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

    def check_width(self, widths: tuple[int, ...] = (1440, 900, 360)) -> None:
        """Check at each of WIDTHS, in pixels, that the page has no horizontal overflow."""
        for width in widths:
            self.browser.size(width, 900)
            wide = self.browser.run("return document.documentElement.scrollWidth")
            assert wide <= width, f"{wide} px of {width}"
        self.browser.size(1440, 900)

    def screenshots(self, name: str) -> None:
        """Save screenshots at three widths, light and dark, to docs/screenshots if HIVEMATRIX_SCREENSHOTS=1."""
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
    """Yield the dashboard of BOX in a browser of its own, whose log has its requests with TRAFFIC."""
    with ExitStack() as users, browser_in(box, traffic=traffic) as browser:
        browser.size(1440, 900)
        yield Dashboard(box, browser, users)
