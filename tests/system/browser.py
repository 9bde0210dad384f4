"""Debian's Chromium in the network namespace of a sandbox, driven by Selenium, as an unprivileged account.

It runs on this machine, which has it installed; only its sockets are in the sandbox's namespace (setns(2)), so that
``localhost`` is the sandbox.
"""

import ctypes
import json
import os
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from tests.replies import faults_in_reply
from tests.suite.faulty.noting import MARK, MOST
from tests.system.booted import Sandbox

_CLONE_NEWNET = 0x40000000
_ACCOUNT = "nobody"
_TRIES = 5
_REPLACED = (StaleElementReferenceException,)
"""Exceptions by pages that replace elements while a condition is waited for."""
_LIMITS = ("--nproc=2000", "--cpu=300", "--core=0")
_OPTIONS = (
    "--headless=new",
    # This machine may be a container without user namespaces; the account is unprivileged.
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--ignore-certificate-errors",
    "--window-size=1280,900",
)

_LARGEST = 200_000
"""Maximum length of a reply that is checked, in characters."""
_NOTING = (
    """
(() => {
  const originalFetch = window.fetch;
  const counts = {};
  window.fetch = async function (...parameters) {
    const reply = await originalFetch.apply(this, parameters);
    const { pathname } = new URL(reply.url || "about:blank");
    const kind = (reply.headers.get("Content-Type") ?? "").split(";")[0];
    // Errors of helmd are problem documents; those of the gateway are not.
    const own = kind === "application/problem+json" || (kind === "application/json" && reply.ok);
    if (own && pathname.startsWith("/helm/")) {
      const method = (parameters[1]?.method ?? parameters[0]?.method ?? "GET").toUpperCase();
      const key = `${method} ${pathname} ${reply.status}`;
      counts[key] = (counts[key] ?? 0) + 1;
      if (counts[key] <= MOST) {
        reply.clone().text().then(
          (body) => body && body.length <= LARGEST && console.debug(
            MARK + JSON.stringify([method, pathname, reply.status, kind, body])),
          () => {},
        );
      }
    }
    return reply;
  };
})();
""".replace("MARK", json.dumps(MARK))
    .replace("MOST", str(MOST))
    .replace("LARGEST", str(_LARGEST))
)
"""Logs helmd's JSON replies to the pages' scripts on the console."""

Result = TypeVar("Result")


class Browser:
    """A browser with a profile of its own. Every call runs in the thread that is in the sandbox's network namespace."""

    def __init__(
        self,
        thread: ThreadPoolExecutor,
        home: Path,
        group: Path,
        logs: Sequence[str] = ("browser",),
        checks_replies: bool = False,
    ) -> None:
        self._thread = thread
        self._checks_replies = checks_replies
        self._checked: Counter[str] = Counter()
        self._home = home
        self._group = group
        self._logs = logs
        self.driver: Any = self.do(self._start)

    def _start(self) -> Any:
        options = webdriver.ChromeOptions()
        for option in (*_OPTIONS, f"--user-data-dir={self._home / 'profile'}"):
            options.add_argument(option)
        options.set_capability("goog:loggingPrefs", dict.fromkeys(self._logs, "ALL"))
        # chromedriver starts Chromium, so both run as the account.
        wrapper = self._home / "chromedriver"
        wrapper.write_text(
            f"#!/bin/sh\necho $$ > {self._group}/cgroup.procs\n"
            f"exec prlimit {' '.join(_LIMITS)} setpriv --reuid={_ACCOUNT} --regid=nogroup --clear-groups "
            f'env -i HOME={self._home} PATH=/usr/bin:/bin LANG=C.UTF-8 /usr/bin/chromedriver "$@"\n'
        )
        wrapper.chmod(0o755)
        driver = webdriver.Chrome(service=Service(str(wrapper)), options=options)
        if self._checks_replies:
            driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": _NOTING})
        return driver

    def do(self, what: Callable[[], Result]) -> Result:
        """Return the result of WHAT, called in the browser's thread."""
        return self._thread.submit(what).result(timeout=120)

    def on_live_page(self, what: Callable[[], Result]) -> Result:
        """Return the result of WHAT as `do` does, retrying if the page replaced an element before its use."""
        for _ in range(_TRIES - 1):
            with suppress(StaleElementReferenceException):
                return self.do(what)
        return self.do(what)

    def get(self, url: str) -> None:
        self.do(lambda: self.driver.get(url))

    @property
    def url(self) -> str:
        return str(self.do(lambda: self.driver.current_url))

    @property
    def title(self) -> str:
        return str(self.do(lambda: self.driver.title))

    def text(self, selector: str = "body") -> str:
        return str(self.on_live_page(lambda: self.driver.find_element(By.CSS_SELECTOR, selector).text))

    def texts(self, selector: str) -> list[str]:
        return self.on_live_page(lambda: [found.text for found in self.driver.find_elements(By.CSS_SELECTOR, selector)])

    def type(self, selector: str, text: str) -> None:
        self.do(lambda: self.driver.find_element(By.CSS_SELECTOR, selector).send_keys(text))

    def click(self, selector: str) -> None:
        self.on_live_page(lambda: self.driver.find_element(By.CSS_SELECTOR, selector).click())

    def run(self, script: str, *given: Any) -> Any:
        """Return the result of a SCRIPT with the arguments GIVEN."""
        return self.do(lambda: self.driver.execute_script(script, *given))

    def until(self, what: Callable[[Any], Any], within: float = 30.0) -> Any:
        """Wait until WHAT of the driver is true, and return its result. A failure shows the page's text."""
        try:
            return self.do(lambda: WebDriverWait(self.driver, within, 0.2, _REPLACED).until(what))
        except Exception as error:
            raise AssertionError(f"not within {within:g} s; at {self.url}:\n{self.text()[:2000]}") from error

    def until_at(self, start: str, within: float = 30.0) -> None:
        """Wait for a page whose URL begins with START."""
        self.until(lambda driver: driver.current_url.startswith(start), within)

    def until_there(self, selector: str, within: float = 30.0) -> None:
        """Wait until an element matches SELECTOR."""
        self.until(lambda driver: driver.find_elements(By.CSS_SELECTOR, selector), within)

    def cookie(self, name: str) -> dict[str, Any] | None:
        found: dict[str, Any] | None = self.do(lambda: self.driver.get_cookie(name))
        return found

    def clear_cookies(self) -> None:
        """Leave the page and delete the cookies of all sites."""
        # Keycloak's login page reloads itself when its cookies change, and would replace the next page.
        self.get("about:blank")
        self.do(lambda: self.driver.execute_cdp_cmd("Network.clearBrowserCookies", {}))

    def size(self, width: int, height: int, dark: bool = False) -> None:
        """Set the viewport in CSS pixels, which may be narrower than a window, and the preferred colour scheme."""
        facts = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.do(lambda: self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", facts))
        self.do(lambda: self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features}))

    def screenshot(self, path: Path) -> None:
        self.do(lambda: self.driver.save_screenshot(str(path)))

    def console_messages(self) -> list[str]:
        """Return the console's messages since the last call, such as CSP violations and script errors.

        Fails if a reply of helmd to a script does not conform to the OpenAPI document.
        """
        said = self.do(lambda: [entry["message"] for entry in self.driver.get_log("browser")])
        noted = [message for message in said if MARK in message]
        assert not (faults := [fault for message in noted for fault in self._faults(message)]), faults
        return [message for message in said if MARK not in message]

    def _faults(self, message: str) -> list[str]:
        """Return the faults of the reply in a MESSAGE of the console; only the first few of each kind are checked."""
        method, path, status, kind, body = json.loads(json.loads(message[message.index(' "') + 1 :]).removeprefix(MARK))
        what = f"{method} {path} {status}"
        self._checked[what] += 1
        return faults_in_reply(method, path, status, kind, body) if self._checked[what] <= MOST else []

    def close(self) -> None:
        self.do(lambda: self.driver.quit())


@contextmanager
def browser_in(box: Sandbox, *, traffic: bool = False) -> Iterator[Browser]:
    """Yield a browser in the network of BOX; with TRAFFIC, its log "performance" has each request."""
    leader = box.leader
    home = Path(tempfile.mkdtemp(prefix="helm-browser-"))
    shutil.chown(home, _ACCOUNT, "nogroup")
    with ThreadPoolExecutor(1, initializer=_enter_network, initargs=(leader,)) as thread:
        try:
            logs = ("browser", "performance") if traffic else ("browser",)
            made = Browser(thread, home, _control_group(leader), logs, box.checks_replies)
            try:
                yield made
            finally:
                made.close()
        finally:
            # The processes of a crashed browser; each browser has its own directory.
            subprocess.run(["pkill", "-KILL", "-f", f"user-data-dir={home}/"], check=False)
            shutil.rmtree(home, ignore_errors=True)


def _control_group(leader: int) -> Path:
    """Return the control group of ``scripts/sandbox exec``, since helmd identifies peers by their control groups."""
    path = next(line for line in Path(f"/proc/{leader}/cgroup").read_text().splitlines() if line.startswith("0::"))
    root = Path("/sys/fs/cgroup/unified")
    group = (root if root.is_dir() else root.parent) / path.removeprefix("0::/")
    return group.parent / "sandbox-exec.scope"


def _enter_network(leader: int) -> None:
    """Move this thread to the network namespace of the process LEADER; its child processes inherit it."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(f"/proc/{leader}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.setns(descriptor, _CLONE_NEWNET):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    finally:
        os.close(descriptor)
