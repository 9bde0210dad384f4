"""A realm in memory with the part of Keycloak's Admin REST API that users need; slow or away when a test wants that."""

import threading
import time
import uuid
from posixpath import normpath
from typing import Any
from urllib.parse import unquote

from helmd.keycloak.admin.api import NoAnswerFromKeycloakError, RefusedRequestError
from tests.waiting import WITHIN


class RealmStandIn:
    """Takes the place of `helmd.keycloak.admin.api.Session`."""

    def __init__(self) -> None:
        self.users: dict[str, dict[str, Any]] = {}
        self.groups: dict[str, dict[str, Any]] = {}
        self.members: dict[str, set[str]] = {}
        self.managers: set[str] = set()
        """Users and groups that have roles of realm-management."""
        self.passwords: dict[str, dict[str, Any]] = {}
        self.realm: dict[str, Any] = {"id": "realm", "realm": "hivematrix", "enabled": True}
        self.logged_out: list[str] = []
        self.unlocked: list[str] = []
        self.logins: list[dict[str, Any]] = []
        self.asked: list[str] = []
        self.pause = 0.0
        self.away = False
        self.go_on = threading.Event()
        """While it is not set, requests for groups wait."""
        self.go_on.set()
        for name in ("admins", "technicians", "client"):
            self.add_group(name)

    def add_group(self, name: str, above: str = "") -> str:
        made = str(uuid.uuid4())
        path = f"{self.groups[above]['path'] if above else ''}/{name}"
        self.groups[made] = {"id": made, "name": name, "path": path, "subGroupCount": 0, "above": above}
        if above:
            self.groups[above]["subGroupCount"] += 1
        self.members[made] = set()
        return made

    def group(self, path: str) -> str:
        return next(id for id, group in self.groups.items() if group["path"] == path)

    def add_user(self, name: str, *groups: str, **more: Any) -> str:
        made = str(uuid.uuid4())
        self.users[made] = {"id": made, "username": name, "email": f"{name}@example.org", "enabled": True, **more}
        for path in groups:
            self.members[self.group(path)].add(made)
        return made

    def groups_of(self, user: str) -> list[str]:
        return sorted(self.groups[id]["path"] for id, members in self.members.items() if user in members)

    def get(self, path: str, **query: str) -> Any:
        first, most = int(query.get("first", 0)), int(query.get("max", 100))
        match self._words("GET", path):
            case []:
                return dict(self.realm)
            case ["clients"]:
                return [{"id": "management", "clientId": query["clientId"]}]
            case ["groups"] if "search" in query:
                return [group for group in self.groups.values() if group["name"] == query["search"]]
            case ["groups"]:
                return [group for group in self.groups.values() if not group["above"]]
            case ["groups", id, "children"]:
                return [group for group in self.groups.values() if group["above"] == id]
            case ["groups", id, "members"]:
                return [each for key, each in self.users.items() if key in self.members[id]][first : first + most]
            case ["groups" | "users", id, "role-mappings", *_]:
                return [{"name": "manage-users"}] if id in self.managers else []
            case ["users", "count"]:
                return len(self._found(query))
            case ["users"]:
                return self._found(query)[first : first + most]
            case ["users", id]:
                return dict(self.users[id]) if id in self.users else None
            case ["users", id, "groups"]:
                return [group for key, group in self.groups.items() if id in self.members[key]]
            case ["users", id, "sessions"]:
                return [
                    {"id": "s1", "ipAddress": "192.0.2.7", "start": 1000, "lastAccess": 2000, "clients": {"x": "helm"}}
                ]
            case ["attack-detection", "brute-force", "users", id]:
                return {"disabled": id not in self.unlocked, "numFailures": 11}
            case ["events"]:
                events = [each for each in self.logins if query.get("user") in (None, each["userId"])]
                return sorted(events, key=lambda each: -each["time"])[first : first + most]
        raise AssertionError(path)

    def post(self, path: str, body: Any) -> None:
        match self._words("POST", path):
            case ["users"]:
                for key in ("username", "email"):
                    if any(user[key] == body[key] for user in self.users.values()):
                        raise RefusedRequestError("refused", 409, f"User exists with same {key}")
                credentials = body.pop("credentials", [])
                if credentials and len(credentials[0]["value"]) < 8:
                    raise RefusedRequestError("refused", 400, "Password policy not met")
                made = self.add_user(body["username"], *body.pop("groups"), **body)
                if credentials:
                    self.passwords[made] = credentials[0]
            case ["users", id, "logout"]:
                self.logged_out.append(id)
            case _:
                raise AssertionError(path)

    def put(self, path: str, body: Any) -> None:
        match self._words("PUT", path):
            case []:
                self.realm = body
            case ["users", id] if id in self.users:
                self.users[id] = body
            case ["users", id, "reset-password"]:
                if len(body["value"]) < 8:
                    raise RefusedRequestError("refused", 400, "Invalid password: minimum length 8.")
                self.passwords[id] = body
            case ["users", id, "groups", group]:
                self.members[group].add(id)
            case _:
                raise AssertionError(path)

    def delete(self, path: str, body: object = None) -> None:
        match self._words("DELETE", path):
            case ["users", id]:
                self.users.pop(id, None)
                for members in self.members.values():
                    members.discard(id)
            case ["users", id, "groups", group]:
                self.members[group].discard(id)
            case ["attack-detection", "brute-force", "users", id]:
                self.unlocked.append(id)
            case _:
                raise AssertionError(path)

    def _found(self, query: dict[str, str]) -> list[dict[str, Any]]:
        found = list(self.users.values())
        if query.get("exact"):
            (key,) = query.keys() & {"username", "email"}
            return [user for user in found if user[key] == query[key].lower()]
        for word in query.get("search", "").split():
            found = [user for user in found if word.strip("*") in user["username"] + user["email"]]
        if "enabled" in query:
            found = [user for user in found if user["enabled"] is (query["enabled"] == "true")]
        return found

    def _words(self, method: str, path: str) -> list[str]:
        self.asked.append(f"{method} {path}")
        if self.away:
            raise NoAnswerFromKeycloakError("Keycloak does not answer", hint="See its log: helmctl logs keycloak")
        time.sleep(self.pause)
        if "/groups" in path:
            self.go_on.wait(WITHIN)
        # As Keycloak does.
        return [unquote(word) for word in normpath(path).split("/")][2:]
