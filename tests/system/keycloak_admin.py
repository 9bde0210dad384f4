"""Requests to the Keycloak of the demo from inside its sandbox, its admins and users, and logins at the gateway."""

import base64
import json
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.system.booted import Sandbox

KEYCLOAK = "http://127.0.0.1:8080"
GATEWAY = "https://localhost:8443"
REALM = "hivematrix"
CONFIG = "/home/hive/.config/hivematrix"
SECRETS = f"{CONFIG}/secrets/keycloak.env"
OWN_SECRET = f"{CONFIG}/secrets/helm-admin.secret"


@dataclass(frozen=True)
class Answer:
    code: int
    headers: dict[str, str]
    text: str

    def json(self) -> Any:
        return json.loads(self.text)


def ask(
    box: Sandbox,
    url: str,
    method: str = "GET",
    form: dict[str, str] | None = None,
    body: object = None,
    headers: tuple[str, ...] = (),
) -> Answer:
    """Make a request from inside the sandbox. curl reads it from stdin, so that no other process can see it."""
    given = [("url", url), ("request", method), ("max-time", "60"), *(("header", header) for header in headers)]
    given += [("data-urlencode", f"{name}={value}") for name, value in (form or {}).items()]
    if body is not None:
        given += [("header", "Content-Type: application/json"), ("data", json.dumps(body))]
    config = "silent\ninsecure\ninclude\n" + "".join(f"{name} = {json.dumps(value)}\n" for name, value in given)
    head, _, text = box("curl", "--config", "-", stdin=config).out.replace("\r\n", "\n").partition("\n\n")
    status, *fields = head.splitlines()
    pairs = (field.partition(": ") for field in fields)
    return Answer(int(status.split()[1]), {name.lower(): value for name, _, value in pairs}, text)


@dataclass(frozen=True)
class Admin:
    """An admin of Keycloak: a user of the realm master, or without a name Helm's client in the suite's realm.

    Call it with a method, a path below /admin/realms and a body.
    """

    box: Sandbox
    name: str = ""
    password: str = ""
    _tokens: list[tuple[float, str]] = field(default_factory=list)

    def __call__(self, method: str, path: str, body: object = None) -> Answer:
        answer = self._ask(method, path, body)
        if answer.code == 401:  # the token was issued for another URL
            self.forget_token()
            answer = self._ask(method, path, body)
        return answer

    def _ask(self, method: str, path: str, body: object) -> Answer:
        bearer = f"Authorization: Bearer {self.token()}"
        return ask(self.box, f"{KEYCLOAK}/admin/realms{path}", method, body=body, headers=(bearer,))

    def forget_token(self) -> None:
        self._tokens.clear()

    def token(self) -> str:
        """Return an access token, cached for half its lifetime of a minute."""
        if not self._tokens or time.monotonic() - self._tokens[-1][0] > 30:
            if self.name:
                realm, who = "master", {"client_id": "admin-cli", "username": self.name, "password": self.password}
            else:
                secret = self.box("cat", OWN_SECRET).out.strip()
                realm, who = REALM, {"client_id": "helm-admin", "client_secret": secret}
            form = {"grant_type": "password" if self.name else "client_credentials", **who}
            asked = time.monotonic()
            answer = ask(self.box, f"{KEYCLOAK}/realms/{realm}/protocol/openid-connect/token", "POST", form)
            assert answer.code == 200, answer
            self._tokens.append((asked, answer.json()["access_token"]))
        return self._tokens[-1][1]


@dataclass(frozen=True)
class Person:
    """A user of the suite's realm."""

    name: str
    password: str = field(repr=False)


@contextmanager
def person(box: Sandbox, *groups: str) -> Iterator[Person]:
    """Yield a new user of the suite's realm in GROUPS, without required actions at the login; delete it at the end."""
    admin = Admin(box)
    made = Person(f"ada-{secrets.token_hex(4)}", secrets.token_urlsafe(12))
    body = {
        "username": made.name,
        "enabled": True,
        "email": f"{made.name}@example.org",
        "firstName": "Ada",
        "lastName": "Lovelace",
        "groups": list(groups),
        "credentials": [{"type": "password", "value": made.password, "temporary": False}],
    }
    assert admin("POST", f"/{REALM}/users", body).code == 201
    user = admin("GET", f"/{REALM}/users?exact=true&username={made.name}").json()[0]["id"]
    try:
        yield made
    finally:
        assert admin("DELETE", f"/{REALM}/users/{user}").code == 204


BROWSER = r"""
import html, http.client, json, re, ssl, sys, urllib.parse
given = json.load(sys.stdin)
here = urllib.parse.urlsplit(given["gateway"])
context = ssl._create_unverified_context()
cookies = {}
def ask(url, form=None):
    parts = urllib.parse.urlsplit(urllib.parse.urljoin(given["gateway"], url))
    assert parts[:2] == here[:2], f"the login leads to {url}"
    connection = http.client.HTTPSConnection("127.0.0.1", here.port, timeout=60, context=context)
    headers = {"Host": here.netloc, "Accept": "text/html", "Cookie": "; ".join(f"{k}={v}" for k, v in cookies.items())}
    if form is not None:
        headers["Content-Type"] = "application/x-www-form-urlencoded"
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    connection.request("GET" if form is None else "POST", path, form and urllib.parse.urlencode(form), headers)
    reply = connection.getresponse()
    for name, value in reply.getheaders():
        if name.lower() == "set-cookie":
            key, _, rest = value.partition("=")
            cookies[key] = rest.partition(";")[0]
    return reply.status, reply.getheader("Location", ""), reply.read().decode()
def follow(answer):
    "The page to which redirects lead, until one leaves the login."
    status, location, page = answer
    while location and urllib.parse.urljoin(given["gateway"], location) != given["gateway"] + given["next"]:
        status, location, page = ask(location)
    return status, location, page
def submit(page, form):
    return follow(ask(html.unescape(re.search(r'<form[^>]*action="([^"]+)"', page)[1]), form))
status, location, page = follow(ask("/login?next=" + urllib.parse.quote(given["next"], safe="")))
assert status == 200, (status, page)
status, location, page = submit(page, {"username": given["username"], "password": given["password"]})
if given["new"] and not location:
    assert 'name="password-new"' in page, page
    status, location, page = submit(page, {"password-new": given["new"], "password-confirm": given["new"]})
print(json.dumps({"status": status, "location": location, "page": page, "session": cookies.get("session", "")}))
"""
"""A program that logs in at the gateway as a browser does. Fails if the login redirects to another origin."""


@dataclass(frozen=True)
class LoggedIn:
    """The result of a login at the gateway: a redirect to the requested page, or a page of Keycloak."""

    status: int
    location: str
    page: str = field(repr=False)
    cookie: str = field(repr=False)

    @property
    def token(self) -> str:
        """Return Core's token from the gateway's session cookie."""
        content = self.cookie.removeprefix("session=").partition(".")[0]
        return str(json.loads(base64.urlsafe_b64decode(content + "=" * (-len(content) % 4)))["token"])


def log_in(
    box: Sandbox, who: Person, target: str = "/codex/api/notes", new_password: str = "", gateway: str = GATEWAY
) -> LoggedIn:
    """Log in at the gateway for the path TARGET; NEW_PASSWORD is set if Keycloak requires one."""
    given = {"gateway": gateway, "next": target, "username": who.name, "password": who.password, "new": new_password}
    said = json.loads(box("python3", "-c", BROWSER, stdin=json.dumps(given)).out)
    return LoggedIn(said["status"], said["location"], said["page"], f"session={said['session']}")


def session_of_owner(box: Sandbox) -> str:
    """Return the cookie of a session of the machine's owner at Helm itself, by a one-time link."""
    url = str(json.loads(box.helmctl("dashboard", "--json").out)["url"])
    page, _, secret = url.partition("#")
    opened = ask(box, page, "POST", body={"secret": secret}, headers=("Sec-Fetch-Site: same-origin",))
    assert opened.code == 200, opened
    return opened.headers["set-cookie"].partition(";")[0]
