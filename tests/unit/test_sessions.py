"""BrowserSessions of browsers: how long they last, what is stored of them, and whose cookie is believed."""

import dataclasses
import json
import stat
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import make_mocked_request

from helmd.model.identity.sessions import BrowserSession, SessionLimits, ended_by, session_state
from helmd.operations.identity.session_files import SessionFiles, session_of
from helmd.web.auth.sessions import MAX_SESSIONS, BrowserSessions, cookie_of

LIMITS = SessionLimits(read_only=1800.0, idle=28_800.0, longest=43_200.0)
USER = BrowserSession(
    "ada", began=1e9, seen=1e9, login=1e9, token="core", refresh="again", issuer="i", subject="u", sid="s"
)
DIGEST = "a" * 64


@pytest.mark.parametrize(
    ("seen", "now", "state"),
    [
        (0, 0, "active"),
        (0, 1799, "active"),
        (0, 1800, "read_only"),
        (0, 28_799, "read_only"),
        (0, 28_800, "ended"),
        (28_000, 29_000, "active"),
        (43_000, 43_199, "active"),
        (43_199, 43_200, "ended"),
        (0, -61, "ended"),
        (0, -59, "active"),
    ],
)
def test_how_long_a_session_may_do_what(seen: float, now: float, state: str) -> None:
    session = dataclasses.replace(USER, seen=1e9 + seen)
    assert session_state(session, LIMITS, 1e9 + now) == state


@pytest.mark.parametrize(
    ("issuer", "subject", "sid", "ends"),
    [
        ("i", "u", "s", True),
        ("i", "", "s", True),
        ("i", "u", "other", False),
        ("i", "u", "", True),
        ("i", "other", "", False),
        ("other", "u", "s", False),
        ("", "u", "s", False),
        ("i", "", "", False),
    ],
)
def test_what_a_logout_ends(issuer: str, subject: str, sid: str, ends: bool) -> None:
    assert ended_by(USER, issuer, subject, sid) is ends


def test_a_logout_never_ends_the_owners_session() -> None:
    owner = BrowserSession("hive", began=1e9, seen=1e9)
    assert not ended_by(owner, "", "", "") and not ended_by(owner, "i", "", "")


def test_secrets_are_not_in_the_representation() -> None:
    assert "core" not in repr(USER) and "again" not in repr(USER)


def test_what_is_written_is_read_again_and_private(tmp_path: Path) -> None:
    files = SessionFiles(tmp_path / "state/sessions")
    assert files.read() == {}
    files.write(DIGEST, USER)
    assert files.read() == {DIGEST: USER}
    path = tmp_path / "state/sessions" / f"{DIGEST}.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    files.remove(DIGEST)
    files.remove(DIGEST)
    assert files.read() == {}


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in dataclasses.asdict(USER).items() if key != name}


@pytest.mark.parametrize(
    "stored",
    [
        None,
        [],
        {},
        without("name"),
        without("began"),
        {**without("token"), "token": 5},
        {**without("seen"), "seen": "now"},
        {**without("seen"), "seen": True},
        {**without("seen"), "seen": -1},
        {**without("login"), "login": "x"},
        {**without("groups"), "groups": "admins"},
        {**without("groups"), "groups": [1]},
    ],
)
def test_a_session_that_makes_no_sense_has_ended(stored: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"missing or wrong|not a JSON object"):
        session_of(stored)
    files = SessionFiles(tmp_path)
    files.write("b" * 64, USER)
    (tmp_path / f"{DIGEST}.json").write_text(json.dumps(stored))
    (tmp_path / "unrelated.json").write_text("{")
    assert files.read() == {"b" * 64: USER}


def test_what_a_later_version_stored_besides_is_left_out() -> None:
    assert session_of({**json.loads(json.dumps(dataclasses.asdict(USER))), "later": 1}) == USER


def test_a_file_behind_a_link_is_not_read(tmp_path: Path) -> None:
    files = SessionFiles(tmp_path / "sessions")
    files.write("b" * 64, USER)
    (tmp_path / "outside.json").write_text(json.dumps(dataclasses.asdict(USER)))
    (tmp_path / "sessions" / f"{DIGEST}.json").symlink_to(tmp_path / "outside.json")
    assert files.read() == {"b" * 64: USER}


@pytest.mark.parametrize(
    ("headers", "value"),
    [
        ({"Cookie": "helm_session=x"}, "x"),
        ({"Cookie": "a=1; helm_session=x; b=2"}, "x"),
        ({"Cookie": "a=1"}, None),
        ({"Cookie": "helm_session=x; helm_session=y"}, None),
        ({"Cookie": "helm_session=x; helm_session=x"}, None),
        ({"Cookie": "helm_session=x", "X-Forwarded-For": "10.0.0.1"}, None),
        ({"Cookie": "helm_session=x", "X-Forwarded-Prefix": "/helm"}, None),
        ({"Cookie": "helm_session=x", "Forwarded": "for=10.0.0.1"}, None),
        ({"Cookie": "helm_session=x", "Via": "1.1 nexus"}, None),
        ({"Cookie": "\x7f=;;;==; helm_session=x"}, "x"),
        ({"Cookie": "of{another=1; helm_session=x"}, "x"),
    ],
)
def test_whose_cookie_is_believed(headers: dict[str, str], value: str | None) -> None:
    assert cookie_of(make_mocked_request("GET", "/helm/", headers=headers), "helm_session") == value


class Clock:
    def __init__(self) -> None:
        self.now = 1e9

    def __call__(self) -> float:
        return self.now


async def test_activity_extends_a_session_until_it_may_only_read(tmp_path: Path) -> None:
    clock = Clock()
    sessions = BrowserSessions(SessionFiles(tmp_path), LIMITS, clock)
    await sessions.keep(DIGEST, USER)
    clock.now += 1700
    assert (await sessions.touch(DIGEST, USER)).seen == clock.now
    clock.now += 1800
    quiet = sessions.find(DIGEST)
    assert quiet is not None and sessions.state(quiet) == "read_only"
    assert await sessions.touch(DIGEST, quiet) == quiet
    clock.now = quiet.seen + LIMITS.idle
    assert sessions.find(DIGEST) is None
    await sessions.clean()
    assert SessionFiles(tmp_path).read() == {}


async def test_a_session_outlasts_helmd_and_an_ended_one_does_not(tmp_path: Path) -> None:
    sessions = BrowserSessions(SessionFiles(tmp_path), LIMITS, Clock())
    await sessions.keep(DIGEST, USER)
    await sessions.keep("b" * 64, dataclasses.replace(USER, sid="t"))
    assert await sessions.end_at("i", "u", "t") == 1
    again = BrowserSessions(SessionFiles(tmp_path), LIMITS, Clock())
    assert again.find(DIGEST) == USER and again.find("b" * 64) is None


async def test_a_disk_that_can_not_be_written_to_costs_no_login(tmp_path: Path, caplog: Any) -> None:
    (tmp_path / "file").write_text("")
    sessions = BrowserSessions(SessionFiles(tmp_path / "file"), LIMITS, Clock())
    await sessions.keep(DIGEST, USER)
    assert sessions.find(DIGEST) == USER
    assert "can't be stored" in caplog.text


async def test_of_too_many_the_quietest_ends(tmp_path: Path) -> None:
    sessions = BrowserSessions(SessionFiles(tmp_path), LIMITS, Clock())
    for number in range(MAX_SESSIONS + 2):
        sessions._kept[f"{number:064x}"] = dataclasses.replace(USER, seen=1e9 - number)
    await sessions.clean()
    assert len(sessions._kept) == MAX_SESSIONS
    assert sessions.find(f"{MAX_SESSIONS + 1:064x}") is None and sessions.find(f"{0:064x}")
