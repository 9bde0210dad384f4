"""Requests to Keycloak's Admin REST API, as an account that logs in for them. Blocks, for a limited time.

Over HTTP on this host: the caller makes sure that it is Keycloak that listens (`helmd.operations.identity.server`).
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from typing import Any
from urllib.parse import quote, urlencode

from helmd.model.errors import KeycloakAwayError, KeycloakError
from helmd.model.printable import printable

MASTER = "master"
"""The realm whose admins administer Keycloak as a whole."""
REQUEST_TIMEOUT = 30.0
"""Seconds for one request. Making a realm takes 1 to 2 s, and longer on a busy machine."""
_REFUSED = (HTTPStatus.BAD_REQUEST, HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND)
"""Answers to a login that fails for its credentials, or since the realm is missing or not enabled."""
_LARGEST = 8 << 20
"""Bytes of an answer that are read."""


class LoginRefusedError(KeycloakError):
    """Keycloak does not accept the credentials, or there is no such realm."""


class RightsError(KeycloakError):
    """The account that is logged in may not do that."""


class RefusedRequestError(KeycloakError):
    """Keycloak refused a request with this STATUS; ``reason`` is its message."""

    def __init__(self, sentence: str, status: int, reason: str) -> None:
        super().__init__(sentence, hint=_SEE_LOG)
        self.status, self.reason = status, reason


class NoAnswerFromKeycloakError(KeycloakAwayError):
    """Nothing listens, or no answer came in time."""


@dataclass(frozen=True, slots=True)
class Server:
    """Where Keycloak listens. ``path`` is its http-relative-path."""

    address: str
    port: int
    path: str = ""
    timeout: float | None = None
    """Seconds for one request; None for REQUEST_TIMEOUT."""

    def __str__(self) -> str:
        return f"{f'[{self.address}]' if ':' in self.address else self.address}:{self.port}"


@dataclass(frozen=True, slots=True)
class Credentials:
    """An account of a realm, with the form by which it gets a token (RFC 6749)."""

    realm: str
    account: str
    form: Mapping[str, str] = field(repr=False)


def password_of(username: str, password: str) -> Credentials:
    """Return the credentials of an admin of the realm master."""
    form = {"grant_type": "password", "client_id": "admin-cli", "username": username, "password": password}
    return Credentials(MASTER, f"user {username} of realm {MASTER}", form)


def secret_of(realm: str, client_id: str, secret: str) -> Credentials:
    """Return the credentials of a client with a service account."""
    form = {"grant_type": "client_credentials", "client_id": client_id, "client_secret": secret}
    return Credentials(realm, f"client {client_id} of realm {realm}", form)


def path_of(*parts: str) -> str:
    """Return a path below /admin/realms of its PARTS, each escaped."""
    return "".join(f"/{quote(part, safe='')}" for part in parts)


def answers(server: Server) -> bool:
    """Return whether Keycloak answers requests for its realm master. Raises NoAnswerFromKeycloakError."""
    return _send(server, "GET", f"/realms/{MASTER}", {}, None)[0] == HTTPStatus.OK


class Session:
    """Requests as one account. A token that is not accepted any more is replaced once."""

    def __init__(self, server: Server, credentials: Credentials) -> None:
        """Logs in. Raises LoginRefusedError and NoAnswerFromKeycloakError."""
        self._server, self._credentials = server, credentials
        self._token = self._log_in()

    def get(self, path: str, **query: str) -> Any:
        """Return the document at PATH below /admin/realms, or None if there is none."""
        return self._request("GET", f"{path}?{urlencode(query)}" if query else path)

    def post(self, path: str, body: object) -> None:
        self._request("POST", path, body)

    def put(self, path: str, body: object) -> None:
        self._request("PUT", path, body)

    def delete(self, path: str, body: object = None) -> None:
        """Remove what is at PATH; nothing happens if it is gone."""
        self._request("DELETE", path, body)

    def _log_in(self) -> str:
        realm, form = self._credentials.realm, urlencode(self._credentials.form)
        code, document = _send(
            self._server,
            "POST",
            f"/realms/{quote(realm, safe='')}/protocol/openid-connect/token",
            {"Content-Type": "application/x-www-form-urlencoded"},
            form,
        )
        token = document.get("access_token") if isinstance(document, dict) else None
        if code == HTTPStatus.OK and isinstance(token, str):
            return token
        who = self._credentials.account
        if code in _REFUSED:
            raise LoginRefusedError(f"Keycloak refused the login of {who}: {_reason(code, document)}")
        raise KeycloakError(f"Keycloak can't log in {who}: {_reason(code, document)}", hint=_SEE_LOG)

    def _request(self, method: str, path: str, body: object = None) -> Any:
        code, document = self._authorized(method, path, body)
        if code == HTTPStatus.UNAUTHORIZED:
            # Its lifetime is over, or the URL of the realm has changed, which tokens name as their issuer.
            self._token = self._log_in()
            code, document = self._authorized(method, path, body)
        if HTTPStatus.OK <= code < HTTPStatus.MULTIPLE_CHOICES:
            return document
        if code == HTTPStatus.NOT_FOUND and method in ("GET", "DELETE"):
            return None
        what = f"{method} /admin/realms{path.partition('?')[0]}"
        if code == HTTPStatus.FORBIDDEN:
            raise RightsError(f"{self._credentials.account} has no right to {what}")
        raise RefusedRequestError(f"Keycloak refused {what}: {_reason(code, document)}", code, _said(document))

    def _authorized(self, method: str, path: str, body: object) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        return _send(self._server, method, f"/admin/realms{path}", headers, None if body is None else json.dumps(body))


_SEE_LOG = "See its log: helmctl logs keycloak"


def _reason(code: int, document: object) -> str:
    """Return the error message in a response."""
    said = _said(document)
    return f"{said} ({code})" if said else f"it answered {code}"


def _said(document: object) -> str:
    """Return the text of an error document; empty without one. Other content of it is not shown."""
    found = document if isinstance(document, dict) else {}
    said = [found.get(key) for key in ("error_description", "errorMessage", "error") if found.get(key)]
    return printable(str(said[0]), 200) if said else ""


def _send(server: Server, method: str, path: str, headers: Mapping[str, str], body: str | None) -> tuple[int, Any]:
    """Send one request; return the status code, and the JSON document if there is one."""
    seconds = REQUEST_TIMEOUT if server.timeout is None else server.timeout
    deadline = time.monotonic() + seconds
    connection = HTTPConnection(server.address, server.port, timeout=seconds)
    try:
        connection.request(method, server.path + path, None if body is None else body.encode(), dict(headers))
        response = connection.getresponse()
        content = bytearray()
        while piece := response.read1(65536):
            content += piece
            if time.monotonic() > deadline:
                raise TimeoutError
            if len(content) > _LARGEST:
                raise HTTPException("the answer is too long")
        return response.status, _document(bytes(content))
    except TimeoutError:
        raise NoAnswerFromKeycloakError(f"Keycloak did not answer within {seconds:g} s", hint=_SEE_LOG) from None
    except (OSError, HTTPException) as problem:
        sentence = f"Keycloak does not answer on {server}: {problem or type(problem).__name__}"
        raise NoAnswerFromKeycloakError(sentence, hint=_SEE_LOG) from None
    finally:
        connection.close()


def _document(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def named(documents: object, key: str, value: str) -> Mapping[str, Any] | None:
    """Of the DOCUMENTS in an answer, the one whose KEY is VALUE."""
    listed: Sequence[object] = documents if isinstance(documents, list) else ()
    return next((each for each in listed if isinstance(each, dict) and each.get(key) == value), None)
