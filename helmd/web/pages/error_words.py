"""The texts of an error page: title, and what to do, with commands to copy. No I/O."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Literal

from helmd.model.problems import PROBLEMS

_PROGRAMS = "sudo|helmctl|systemctl|systemd-analyze|journalctl|ssh|chmod|chown|setfacl|printf|umask|man"
_COMMAND = re.compile(
    rf"(?:^|: |; )((?:{_PROGRAMS}) "
    r"(?:(?!then: |; or |; see |; take | which |helmctl \w+ writes | sets those | says | lists | shows | starts |, )"
    r".)+)$"
)
"""A command at the end of a text. What begins like a command but continues as a sentence is none."""


@dataclass(frozen=True, slots=True)
class Remedy:
    """Something to do: in words, and as a command. One of both may be empty."""

    text: str
    command: str = ""


@dataclass(frozen=True, slots=True)
class ErrorWords:
    """The words of an error's page. ``again`` says whether to try the same once more may help."""

    title: str
    icon: str
    tone: Literal["warn", "error", "off"]
    steps: Sequence[Remedy]
    again: bool


_TITLES: Mapping[str, tuple[str, str]] = {
    "no_credential": ("You are not logged in", "lock"),
    "bad_token": ("Your session has ended", "lock"),
    "denied": ("You may not open this", "lock"),
    "peer_refused": ("This program may not do this", "lock"),
    "login_needed": ("This needs a recent login", "lock"),
    "login_refused": ("The login did not work", "lock"),
    "not_found": ("There is no such page", "search"),
    "unknown_service": ("There is no such service", "search"),
    "unknown_job": ("There is no such job", "search"),
    "unknown_user": ("There is no such user", "search"),
    "unknown_entry": ("There is no such log entry", "search"),
    "method_not_allowed": ("This can't be done here", "circle-x"),
    "rate_limited": ("Too many requests", "clock"),
    "internal": ("Something went wrong inside Helm", "circle-x"),
    "keycloak": ("Keycloak refused a request", "plug"),
    "keycloak_away": ("Keycloak does not answer", "plug"),
    "core_unreachable": ("Core does not answer", "plug"),
    "store": ("The log store does not answer", "database"),
    "store_timeout": ("The log store took too long", "database"),
    "bus": ("The account's systemd does not answer", "plug"),
    "busy": ("Helm is busy", "clock"),
    "configuration": ("The configuration has faults", "file-text"),
    "locked": ("Another process is at this", "clock"),
    "timeout": ("This took too long", "clock"),
}
_OWNER = Remedy("Open the dashboard without Keycloak, on the machine itself", "helmctl dashboard")
_AWAY = frozenset({"keycloak", "keycloak_away", "core_unreachable"})
_TO_RETRY = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT})


def error_words(code: str, status: int, hint: str, *, correlation: str = "", runs_it: bool = True) -> ErrorWords:
    """Return the words for an error with this CODE and HTTP STATUS; HINT is what was said about it, which may be empty.

    RUNS_IT says whether the reader may run commands on the machine, as far as that is known.
    """
    kind = PROBLEMS.get(code)
    title, icon = _TITLES.get(code, ("", "circle-alert"))
    if not title:
        title = HTTPStatus(status).phrase if kind is None else _title(kind.meaning)
    steps = [remedy_of(line) for line in hint.splitlines() if line.strip()]
    if not steps and kind is not None and code not in ("not_found", "internal"):
        steps = [remedy_of(kind.remedy)]
    if code == "internal":
        steps.append(Remedy("See what Helm's log says about it", f"helmctl logs helm -g {correlation}"))
    if code in _AWAY and not any(step.command == _OWNER.command for step in steps):
        steps.append(_OWNER)
    if not runs_it:
        steps = [step for step in steps if not step.command]
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            steps.append(Remedy("Report it to your administrator, with the id below"))
    failed = status >= HTTPStatus.INTERNAL_SERVER_ERROR
    tone: Literal["warn", "error", "off"] = "error" if failed else "off" if status == HTTPStatus.NOT_FOUND else "warn"
    return ErrorWords(title, icon, tone, tuple(steps), status in _TO_RETRY)


def _title(meaning: str) -> str:
    plain = meaning.replace("`", "")
    return plain[:1].upper() + plain[1:]


def remedy_of(text: str) -> Remedy:
    """Return TEXT as a step, with the command at its end apart."""
    found = _COMMAND.search(text.strip().rstrip("."))
    if found is None:
        return Remedy(text.strip().rstrip("."))
    words = text.strip()[: found.start()].rstrip(":; ").removesuffix("then").rstrip(":;, ")
    return Remedy(words, found[1])
