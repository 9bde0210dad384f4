"""Requests to the Keycloak of the demo from inside its sandbox, and its admins."""

import json
import time
from dataclasses import dataclass, field
from typing import Any

from tests.system.booted import Sandbox

KEYCLOAK = "http://127.0.0.1:8080"
SECRETS = "/home/hive/.config/hivematrix/secrets/keycloak.env"


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
    """One request from inside. What it says goes to curl on stdin, where no other process can read it."""
    given = [("url", url), ("request", method), ("max-time", "60"), *(("header", header) for header in headers)]
    given += [("data-urlencode", f"{name}={value}") for name, value in (form or {}).items()]
    if body is not None:
        given += [("header", "Content-Type: application/json"), ("data", json.dumps(body))]
    config = "silent\ninsecure\ninclude\n" + "".join(f"{name} = {json.dumps(value)}\n" for name, value in given)
    head, _, text = box("curl", "--config", "-", stdin=config).out.replace("\r\n", "\n").partition("\n\n")
    status, *fields = head.splitlines()
    pairs = (field.partition(": ") for field in fields)
    return Answer(int(status.split()[1]), {name.lower(): value for name, _, value in pairs}, text)


def bootstrap_admin(box: Sandbox) -> tuple[str, str]:
    """Name and password of Keycloak's temporary admin."""
    known = dict(line.split("=", 1) for line in box("cat", SECRETS).out.splitlines() if "=" in line)
    return known["KC_BOOTSTRAP_ADMIN_USERNAME"].strip('"'), known["KC_BOOTSTRAP_ADMIN_PASSWORD"].strip('"')


@dataclass(frozen=True)
class Admin:
    """An admin of the realm master, by default Keycloak's temporary one."""

    box: Sandbox
    name: str = ""
    password: str = ""
    _tokens: list[tuple[float, str]] = field(default_factory=list)

    def __call__(self, method: str, path: str, body: object = None) -> Answer:
        bearer = f"Authorization: Bearer {self.token()}"
        return ask(self.box, f"{KEYCLOAK}/admin/realms{path}", method, body=body, headers=(bearer,))

    def token(self) -> str:
        """A token; one is used for half its lifetime of a minute."""
        if not self._tokens or time.monotonic() - self._tokens[-1][0] > 30:
            name, password = (self.name, self.password) if self.name else bootstrap_admin(self.box)
            form = {"grant_type": "password", "client_id": "admin-cli", "username": name, "password": password}
            asked = time.monotonic()
            answer = ask(self.box, f"{KEYCLOAK}/realms/master/protocol/openid-connect/token", "POST", form)
            assert answer.code == 200, answer
            self._tokens.append((asked, answer.json()["access_token"]))
        return self._tokens[-1][1]
