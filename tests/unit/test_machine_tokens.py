"""Machine tokens: issued, found, revoked; what their file is when something goes wrong."""

import fcntl
import hashlib
import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from helmd.model.errors import HelmError, LockedError, UsageError
from helmd.model.identity.machine_token import (
    MOST_TOKENS,
    TOKEN_PREFIX,
    MachineToken,
    NewToken,
    TokenExistsError,
    UnknownTokenError,
    digest_of,
    new_token_of,
    tokens_in,
    tokens_text,
    with_token,
)
from helmd.model.layout import Layout, layout
from helmd.operations.identity.tokens import SAVE_AGAIN, TokenStore

START = datetime(2026, 11, 28, 12, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def places(tmp_path: Path) -> Layout:
    return layout({}, tmp_path, 1000, tmp_path / "share")


def store(places: Layout, clock: Clock | None = None) -> TokenStore:
    return TokenStore(places, clock or Clock())


def wanted(name: str = "ci", role: str = "technician", **more: object) -> NewToken:
    return new_token_of(name, role, **more)


def test_a_token_is_found_by_its_secret_and_kept_as_a_hash(places: Layout) -> None:
    token, secret = store(places).create(wanted(services=["codex"], expires_in="1d"), "amira")
    assert secret.startswith(TOKEN_PREFIX) and len(secret) == len(TOKEN_PREFIX) + 43
    assert (token.name, token.role, token.services, token.created_by) == ("ci", "technician", ("codex",), "amira")
    assert token.expires_at == START + timedelta(days=1)
    text = places.machine_tokens.read_text()
    assert secret not in text and secret.removeprefix(TOKEN_PREFIX) not in text and digest_of(secret) in text
    assert places.machine_tokens.stat().st_mode & 0o777 == 0o600
    assert store(places).find(secret) == token


def test_no_two_secrets_are_alike(places: Layout) -> None:
    made = [store(places).create(wanted(f"t{number}"), "amira") for number in range(20)]
    assert len({secret for _, secret in made}) == len({token.id for token, _ in made}) == 20


@pytest.mark.parametrize(
    "secret", ["", "helm_", "helm_x", "helm_" + "A" * 43, "helm_" + "A" * 10_000, "helm_\udcff" + "A" * 42]
)
def test_what_is_no_token(places: Layout, secret: str) -> None:
    tokens = store(places)
    tokens.create(wanted(), "amira")
    assert tokens.find(secret) is None


def test_a_revoked_token_is_worth_nothing_at_the_next_request(places: Layout) -> None:
    running, helmctl = store(places), store(places)
    token, secret = helmctl.create(wanted(), "amira")
    other = helmctl.create(wanted("other"), "amira")[1]
    assert running.find(secret) == token
    assert helmctl.revoke("ci") == token
    assert running.find(secret) is None
    assert running.find(other) is not None
    assert digest_of(secret) not in places.machine_tokens.read_text()
    with pytest.raises(UnknownTokenError):
        helmctl.revoke("ci")
    assert helmctl.revoke(running.tokens()[0].id).name == "other"


def test_a_token_expires(places: Layout) -> None:
    clock = Clock()
    tokens = store(places, clock)
    _, secret = tokens.create(wanted(expires_in=60), "amira")
    clock.now += timedelta(seconds=59)
    assert tokens.find(secret) is not None
    clock.now += timedelta(seconds=1)
    assert tokens.find(secret) is None


def test_last_uses_are_saved_at_intervals_and_known_at_once(places: Layout) -> None:
    clock = Clock()
    tokens = store(places, clock)
    token, secret = tokens.create(wanted(), "amira")
    assert tokens.last_uses() == {} and not tokens.unsaved
    tokens.find(secret)
    assert tokens.last_uses() == {token.id: START} and tokens.unsaved
    tokens.save_uses()
    assert store(places).last_uses() == {token.id: START}
    clock.now += SAVE_AGAIN - timedelta(seconds=1)
    tokens.find(secret)
    assert not tokens.unsaved and tokens.last_uses() == {token.id: clock.now}
    clock.now += timedelta(seconds=1)
    assert tokens.unsaved
    tokens.revoke(token.id)
    tokens.save_uses()
    assert store(places).last_uses() == {}


@pytest.mark.parametrize("text", ["", "[", "[1]", '{"a": 5, "b": "x", "c": "2026-01-01"}'])
def test_last_uses_that_cannot_be_read_are_left_out(places: Layout, text: str) -> None:
    places.state.mkdir(parents=True)
    places.token_uses.write_text(text)
    assert set(store(places).last_uses()) <= {"c"}


FINE = MachineToken("0" * 12, "ci", "admin", None, START, "amira", START + timedelta(days=1), "a" * 64)


def changed(**fields: object) -> str:
    document = json.loads(tokens_text([FINE]))
    document["tokens"][0] |= fields
    return json.dumps(document)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "[" * 100_000,
        '{"format": 2, "tokens": []}',
        '{"format": 1, "tokens": {}}',
        '{"format": 1, "tokens": [1]}',
        changed(role="root"),
        changed(name=""),
        changed(name="../x"),
        changed(id="x"),
        changed(sha256=""),
        changed(sha256="A" * 64),
        changed(expires_at="soon"),
        changed(expires_at=5),
        changed(services=[]),
        changed(services="codex"),
    ],
    ids=lambda text: hashlib.sha256(text.encode()).hexdigest()[:6],
)
def test_a_damaged_file_lets_nobody_in_and_is_not_overwritten(
    places: Layout, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    running = store(places)
    _, secret = running.create(wanted(), "amira")
    assert running.find(secret)
    places.machine_tokens.write_text(text)
    for _ in range(2):
        assert running.find(secret) is None
    assert running.trouble and len(caplog.records) == 1, "said once"
    with pytest.raises(HelmError, match="can't be used"):
        running.create(wanted("other"), "amira")
    with pytest.raises(HelmError, match="can't be used"):
        running.revoke("ci")
    assert places.machine_tokens.read_text() == text


def test_the_file_is_private_and_no_link(places: Layout, tmp_path: Path) -> None:
    tokens = store(places)
    _, secret = tokens.create(wanted(), "amira")
    places.machine_tokens.chmod(0o644)
    assert store(places).find(secret) and places.machine_tokens.stat().st_mode & 0o777 == 0o600
    elsewhere = tmp_path / "elsewhere"
    places.machine_tokens.rename(elsewhere)
    places.machine_tokens.symlink_to(elsewhere)
    assert store(places).find(secret) is None


def test_one_process_changes_them_at_a_time(places: Layout) -> None:
    places.state.mkdir(parents=True)
    with places.token_lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(LockedError):
            store(places).create(wanted(), "amira")
    assert not os.path.exists(places.machine_tokens)
    store(places).create(wanted(), "amira")


def test_names_are_unique_and_expired_tokens_go_after_a_month() -> None:
    def added(now: datetime) -> list[str]:
        made = with_token([FINE], wanted("new"), id="1" * 12, digest="b" * 64, by="x", now=now)
        return [token.name for token in made]

    with pytest.raises(TokenExistsError, match="'ci' already"):
        with_token([FINE], wanted("ci"), id="1" * 12, digest="b" * 64, by="x", now=START)
    assert added(FINE.expires_at + timedelta(days=29)) == ["ci", "new"]
    assert added(FINE.expires_at + timedelta(days=30)) == ["new"]
    with pytest.raises(UsageError, match="the most that there can be"):
        with_token([FINE] * MOST_TOKENS, wanted("new"), id="1" * 12, digest="b" * 64, by="x", now=START)


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "-x"}, "name"),
        ({"name": "x" * 51}, "name"),
        ({"name": "a\n"}, "name"),
        ({"name": None}, "name"),
        ({"role": "root"}, "role"),
        ({"role": None}, "role"),
        ({"role": ["admin"]}, "role"),
        ({"services": []}, "services"),
        ({"services": "codex"}, "services"),
        ({"services": ["Codex"]}, "services"),
        ({"services": [1]}, "services"),
        ({"services": ["a"] * 101}, "services"),
        ({"role": "client", "services": ["codex"]}, "services"),
        ({"expires_in": 0}, "expires_in"),
        ({"expires_in": -5}, "expires_in"),
        ({"expires_in": "never"}, "expires_in"),
        ({"expires_in": "367d"}, "expires_in"),
        ({"expires_in": True}, "expires_in"),
        ({"expires_in": [1]}, "expires_in"),
    ],
)
def test_what_can_not_be_asked_for(given: dict[str, object], field: str) -> None:
    with pytest.raises(UsageError, match=f"^{field}: "):
        new_token_of(**{"name": "ci", "role": "admin", **given})


def test_the_file_is_read_as_it_was_written() -> None:
    confined = MachineToken("1" * 12, "b", "billing", ("ledger",), START, "x", START, "b" * 64)
    assert tokens_in(tokens_text([FINE, confined])) == (FINE, confined)
