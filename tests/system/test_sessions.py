"""A browser's session with tokens that last a minute: its user never logs in again, whatever is away meanwhile.

In full it takes twenty minutes (`scripts/campaign sessions`; three hours with ``--times 9``), else one and a half, in
which Keycloak stays.
"""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.campaign import FULL, lasting
from tests.system.booted import Sandbox, until
from tests.system.browser import Browser, browser_in
from tests.system.keycloak_admin import REALM, Admin, person
from tests.system.test_jobs import api
from tests.system.test_login import HELM, log_in

TOKEN_SECONDS = 60
SPELL = lasting(130.0, 10.0)
"""Seconds of each part."""
ENDED_WITHIN = 60.0
DROP_IN = "/home/hive/.config/systemd/user/helmd.service.d/50-test-clock.conf"

ASK = "const [path, done] = arguments;fetch('/helm' + path).then((answer) => done(answer.status), () => done(0))"


def core_tokens(box: Sandbox, body: dict[str, object]) -> None:
    """Change Core's settings over the API, wait for the job that applies that, and restart Core."""
    status, changed = api(box, "PUT", "/api/services/core/config", body, If_Match="*")
    assert status == 202, changed
    job = changed["job"]["id"]
    until(lambda: api(box, "GET", f"/api/jobs/{job}")[1]["state"] == "succeeded", within=30)
    box.helmctl("restart", "core", timeout=120)


@pytest.fixture(scope="module")
def short(demo: Sandbox) -> Iterator[Admin]:
    """Tokens of Keycloak and Core last TOKEN_SECONDS."""
    admin = Admin(demo)
    before = admin("GET", f"/{REALM}").json()["accessTokenLifespan"]
    assert admin("PUT", f"/{REALM}", {"accessTokenLifespan": TOKEN_SECONDS}).code == 204
    core_tokens(demo, {"set": {"environment.CORE_USER_SECONDS": str(TOKEN_SECONDS)}})
    try:
        yield admin
    finally:
        core_tokens(demo, {"unset": ["environment.CORE_USER_SECONDS"]})
        assert admin("PUT", f"/{REALM}", {"accessTokenLifespan": before}).code == 204


class Session:
    """A session of a browser that stays on one page and asks once a second."""

    def __init__(self, browser: Browser) -> None:
        self.browser = browser
        self.cookie = browser.cookie("helm_session")
        assert self.cookie is not None

    def ask(self) -> int:
        return int(self.browser.do(lambda: self.browser.driver.execute_async_script(ASK, "/api/logs?limit=1")))

    def spell(self, seconds: float) -> Counter[int]:
        """The statuses of so many seconds. 401 would be a login that the user has to make again."""
        found: Counter[int] = Counter()
        until_then = time.monotonic() + seconds
        while time.monotonic() < until_then:
            found[self.ask()] += 1
            time.sleep(1.0)
        assert 401 not in found and self.browser.url == HELM, found
        assert self.browser.cookie("helm_session") == self.cookie, "it is still the same session"
        return found

    def good(self, within: float) -> None:
        until(lambda: self.ask() == 200, within=within, pause=1.0)


@contextmanager
def other_clock(box: Sandbox, seconds: int) -> Iterator[None]:
    """helmd alone has a clock that is ahead by so many seconds."""
    box("apt-get", "install", "--yes", "--no-install-recommends", "libfaketime", root=True)
    library = box.shell("dpkg -L libfaketime | grep /libfaketime.so.1").out.strip()
    environment = f"LD_PRELOAD={library} FAKETIME={seconds:+d}s FAKETIME_DONT_FAKE_MONOTONIC=1"
    box.write(DROP_IN, f"[Service]\nEnvironment={environment}\n")
    restart = "systemctl --user daemon-reload; systemctl --user restart helmd"
    try:
        box.shell(restart)
        yield
    finally:
        box("rm", "-f", DROP_IN)
        box.shell(restart)


def away(box: Sandbox, session: Session, name: str) -> Counter[int]:
    """What the session gets while a service is away; it must be as before once that is back."""
    box.helmctl("stop", name, timeout=120)
    try:
        found = session.spell(SPELL)
    finally:
        box.helmctl("up", timeout=300)
    session.good(ENDED_WITHIN)
    return found


def test_nobody_logs_in_again_until_the_session_ends(demo: Sandbox, short: Admin) -> None:
    begun = time.monotonic()
    with browser_in(demo) as browser, person(demo, "technicians") as who:
        log_in(browser, who)
        session = Session(browser)
        figures: dict[str, object] = {}

        def part(name: str, does: Callable[[], Counter[int]], only: set[int]) -> None:
            found = does()
            figures[name] = dict(found)
            assert set(found) <= only, (name, found)

        # More than a token's lifetime, so at least one renewal.
        part("renewals", lambda: session.spell(max(SPELL * 3, TOKEN_SECONDS / 2)), {200})
        demo.shell("systemctl --user restart helmd")
        session.good(30.0)
        part("helmd restarted", lambda: session.spell(SPELL), {200})
        # Tokens that are known to be good work until they expire; then the answer is 503.
        part("Core away", lambda: away(demo, session, "core"), {200, 503})
        if FULL:
            part("Keycloak away", lambda: away(demo, session, "keycloak"), {200, 503})
            for seconds in (20, -4):
                with other_clock(demo, seconds):
                    session.good(30.0)
                    part(f"helmd's clock {seconds:+d} s", lambda: session.spell(SPELL), {200})
                session.good(30.0)
        part("renewals again", lambda: session.spell(SPELL), {200})
        figures["seconds"] = round(time.monotonic() - begun)
        print(f"sessions: {json.dumps(figures)}")
        if not FULL:
            # `tests/system/test_login.py` ends one at Keycloak.
            return
        user = short("GET", f"/{REALM}/users?exact=true&username={who.name}").json()[0]["id"]
        assert short("POST", f"/{REALM}/users/{user}/logout").code == 204
        ended = time.monotonic()
        until(lambda: session.ask() == 401, within=ENDED_WITHIN)
        print(f"sessions: dead {time.monotonic() - ended:.1f} s after its end at Keycloak")
