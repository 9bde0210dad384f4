"""Tokens: what is let through, what is refused and why, when Core is asked, and what happens when it doesn't answer."""

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import web
from cryptography.hazmat.primitives import serialization
from hypothesis import given
from hypothesis import strategies as st

from helmd.model.identity.realm import PROBE_USER
from helmd.web.auth.core import KEYS_PATH, VALIDATE_PATH, Core, CoreUnreachableError, core_session
from helmd.web.auth.keyring import KEYS_MAX_AGE, PAUSE_SECONDS
from helmd.web.auth.roles import Identity, Role
from helmd.web.auth.single_flight import SingleFlight
from helmd.web.auth.tokens import LEEWAY, MAX_TOKEN, BadTokenError, Bearer, key_id, keys_of, verified
from helmd.web.auth.verifier import RETRY_SECONDS, VERDICT_SECONDS, Verifier
from tests.fixtures import claims, exchanges
from tests.unit.core_stand_in import (
    KID,
    SERVICE,
    USER,
    StandIn,
    jwk,
    private_key,
    signed,
    standing_in,
)
from tests.waiting import eventually

NOW = 1_795_412_224.0


def check(token: str, now: float = NOW) -> Bearer:
    """As the verifier does, with the one key there is."""
    assert key_id(token) == KID
    return verified(token, private_key().public_key(), now)


def raw(header: dict[str, Any], payload: bytes, signature: bytes = b"x") -> str:
    parts = (json.dumps(header).encode(), payload, signature)
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


@pytest.mark.parametrize(
    ("name", "identity"),
    [
        ("admin", Identity("amira", Role.ADMIN, "token")),
        ("technician", Identity("tomas", Role.TECHNICIAN, "token")),
        ("billing", Identity("bea", Role.BILLING, "token")),
        ("client", Identity("chidi", Role.CLIENT, "token")),
        ("service", Identity("service:codex", Role.PUBLIC, "token", service="codex")),
    ],
)
def test_claims_as_core_makes_them(name: str, identity: Identity) -> None:
    made = claims(name)
    bearer = check(signed(made), made["iat"])
    assert bearer == Bearer(identity, made["exp"] + LEEWAY, revocable=identity.service is None)


@pytest.mark.parametrize("level", ["Admin", "root", "public", "", None, 1, ["admin"], {"admin": 1}])
def test_an_unknown_level_is_the_least(level: object) -> None:
    assert check(signed({**USER, "permission_level": level, "exp": NOW + 60})).identity.role is Role.CLIENT


def test_without_a_level_too() -> None:
    claims = {name: value for name, value in USER.items() if name != "permission_level"}
    assert check(signed({**claims, "exp": NOW + 60})).identity.role is Role.CLIENT


@pytest.mark.parametrize(
    ("claims", "name"),
    [
        ({"preferred_username": ""}, USER["email"]),
        ({"preferred_username": 5, "email": None}, USER["name"]),
        ({"preferred_username": None, "email": None, "name": None}, USER["sub"]),
        ({"preferred_username": "a\x1b[2Jb\n"}, "a\\x1b[2Jb\\x0a"),
    ],
)
def test_a_users_name(claims: dict[str, Any], name: str) -> None:
    assert check(signed({**USER, **claims, "exp": NOW + 60})).identity.name == name


def test_the_account_that_looks_at_pages_has_no_role() -> None:
    given = {**USER, "preferred_username": PROBE_USER, "permission_level": "admin", "groups": ["admins"]}
    assert check(signed({**given, "exp": NOW + 60})).identity == Identity(PROBE_USER, Role.PUBLIC, "token")


def test_a_clock_may_be_a_little_off() -> None:
    token = signed({**USER, "exp": NOW})
    assert check(token, NOW + LEEWAY - 0.1).expires == NOW + LEEWAY
    with pytest.raises(BadTokenError, match="expired"):
        check(token, NOW + LEEWAY)


GOOD = {**USER, "exp": NOW + 60}
GOOD_SERVICE = {**SERVICE, "exp": NOW + 60}


def test_a_token_that_was_always_valid() -> None:
    assert check(signed({**GOOD, "nbf": 0})).identity.name == USER["preferred_username"]


def without(claims: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in claims.items() if name not in names}


@pytest.mark.parametrize(
    ("claims", "why"),
    [
        (without(GOOD, "iss"), "not issued by Core"),
        ({**GOOD, "iss": "hivematrix-cores"}, "not issued by Core"),
        ({**GOOD, "iss": ["hivematrix-core"]}, "not issued by Core"),
        ({**GOOD, "aud": "codex"}, "for another audience"),
        (without(GOOD, "exp"), "no expiry time"),
        ({**GOOD, "exp": "tomorrow"}, "no expiry time"),
        ({**GOOD, "exp": True}, "no expiry time"),
        ({**GOOD, "exp": float("inf")}, "no expiry time"),
        ({**GOOD, "exp": float("nan")}, "no expiry time"),
        ({**GOOD, "exp": 10**400}, "no expiry time"),
        ({**GOOD, "nbf": NOW + 60}, "not valid yet"),
        ({**GOOD, "nbf": "x"}, "not valid yet"),
        ({**GOOD, "nbf": None}, "not valid yet"),
        (without(GOOD, "sub"), "no subject"),
        ({**GOOD, "sub": ""}, "no subject"),
        ({**GOOD, "sub": 7}, "no subject"),
        (without(GOOD, "jti"), "no session"),
        ({**GOOD, "jti": 7}, "no session"),
        ({**GOOD, "type": "refresh"}, "neither"),
        ({**GOOD, "type": "service"}, "neither"),
        ({**GOOD, "sub": "service:codex"}, "neither"),
        ({**GOOD_SERVICE, "calling_service": "ledger"}, "neither"),
        (without(GOOD_SERVICE, "calling_service"), "neither"),
        (without(GOOD_SERVICE, "type"), "neither"),
        ({**GOOD_SERVICE, "sub": "service:Codex", "calling_service": "Codex"}, "neither"),
        ({**GOOD_SERVICE, "sub": "service:", "calling_service": ""}, "neither"),
        ({**GOOD_SERVICE, "sub": "service:codex\n", "calling_service": "codex\n"}, "neither"),
        ({**GOOD_SERVICE, "target_service": "ledger"}, "another service"),
        (without(GOOD_SERVICE, "target_service"), "another service"),
        ({**GOOD_SERVICE, "target_service": ["helm"]}, "another service"),
        ({**GOOD, "exp": NOW - LEEWAY}, "expired"),
    ],
)
def test_a_token_of_core_with_claims_that_are_not_in_order(claims: dict[str, Any], why: str) -> None:
    with pytest.raises(BadTokenError, match=why):
        check(signed(claims))


def public_pem() -> bytes:
    kind = serialization.PublicFormat.SubjectPublicKeyInfo
    return private_key().public_key().public_bytes(serialization.Encoding.PEM, kind)


def keyed_with_the_public_key() -> str:
    """Return the classic: HS256 with what everybody can fetch as its secret. Made by hand, since PyJWT refuses to."""
    signing = raw({"alg": "HS256", "typ": "JWT", "kid": KID}, json.dumps(GOOD).encode()).rpartition(".")[0]
    signature = hmac.new(public_pem(), signing.encode(), hashlib.sha256).digest()
    return f"{signing}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (keyed_with_the_public_key, "RS256"),
        (lambda: raw({"alg": "none", "kid": KID}, json.dumps(GOOD).encode()), "RS256"),
        (lambda: raw({"alg": "none", "kid": KID}, json.dumps(GOOD).encode()).rpartition(".")[0] + ".", "not a JWT"),
        (lambda: raw({"kid": KID}, json.dumps(GOOD).encode()), "RS256"),
        (lambda: raw({"alg": ["RS256"], "kid": KID}, b"{}"), "RS256"),
        (lambda: signed(GOOD, algorithm="RS512"), "RS256"),
        (lambda: signed(GOOD, algorithm="PS256"), "RS256"),
        (lambda: signed(GOOD, kid=None), "no key id"),
        (lambda: signed(GOOD, kid=""), "no key id"),
        (lambda: raw({"alg": "RS256", "kid": 5}, b"{}"), "not a JWT"),
        (lambda: signed(GOOD, crit=["b64"]), "extension"),
        (lambda: signed(GOOD, private_key("another")), "signature"),
        (lambda: signed(GOOD)[:-8] + "AAAAAAAA", "signature"),
        (lambda: signed(GOOD, b64=False), "not a JWT"),
        (lambda: raw({"alg": "RS256", "kid": KID, "b64": False}, b"{}"), "signature"),
        (lambda: raw({"alg": "RS256", "kid": KID}, b"[" * 10_000), "signature"),
        (lambda: "", "not a JWT"),
        (lambda: "anything", "not a JWT"),
        (lambda: "a.b.c.d", "not a JWT"),
        (lambda: signed(GOOD) + "\n", "not a JWT"),
        (lambda: "\udcff.a.a", "not a JWT"),
        (lambda: "é.a.a", "not a JWT"),
        (lambda: base64.urlsafe_b64encode(b"[" * 9_000).decode() + ".a.a", "not a JWT"),
        (lambda: base64.urlsafe_b64encode(b'{"a":' + b"9" * 9_000 + b"}").decode() + ".a.a", "not a JWT"),
        (lambda: base64.urlsafe_b64encode(b"\xff\xff\xff").decode() + ".a.a", "not a JWT"),
        (lambda: "a" * MAX_TOKEN + ".a.a", "longer than 16 KiB"),
    ],
)
def test_what_is_no_token_of_core(make: Callable[[], str], why: str) -> None:
    with pytest.raises(BadTokenError, match=why):
        check(make())


def test_claims_that_are_signed_but_cannot_be_read() -> None:
    """Core would not make them; a recursion error must not come out all the same."""
    import jwt

    for payload in (b"[" * 9_000, b"[]", b"\xff", b'{"exp":' + b"9" * 9_000 + b"}"):
        token = jwt.api_jws.encode(payload, private_key(), "RS256", {"kid": KID})
        with pytest.raises(BadTokenError):
            check(token)


@given(st.text() | st.from_regex(r"[A-Za-z0-9_-]{0,40}\.[A-Za-z0-9_-]{0,40}\.[A-Za-z0-9_-]{0,9}"))
def test_no_text_does_more_than_be_refused(text: str) -> None:
    with pytest.raises(BadTokenError):
        key_id(text)


def test_the_key_set_as_core_gives_it() -> None:
    [keys] = [exchange for exchange in exchanges() if exchange.name == "keys"]
    [described] = keys.reply["keys"]
    made = {**described, "n": jwk(private_key())["n"]}
    assert {kid: key.key_size for kid, key in keys_of({"keys": [made]}).items()} == {KID: 2048}


FINE = jwk(private_key())


@pytest.mark.parametrize(
    "entry",
    [
        None,
        "x",
        {},
        {**FINE, "kid": None},
        {**FINE, "kid": ""},
        {**FINE, "kid": ["x"]},
        {**FINE, "kty": "oct"},
        {**FINE, "use": "enc"},
        {**FINE, "alg": "RS512"},
        {**FINE, "n": 5},
        {**FINE, "n": "not base64!"},
        {**FINE, "n": "A"},
        {**FINE, "n": "AQAB"},
        {**FINE, "n": "A" * 100_000},
        {**FINE, "n": base64.urlsafe_b64encode(b"\xff" * 1100).decode()},
        {**FINE, "e": "AQ"},
        {**FINE, "e": "Ag"},
        {**FINE, "e": FINE["n"]},
        {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA", "kid": "k"},
        {"kty": "oct", "k": "c2VjcmV0", "kid": "k", "alg": "HS256"},
        jwk(private_key("short", 1024)),
    ],
)
def test_a_key_that_cannot_be_used_is_passed_over(entry: object) -> None:
    assert not keys_of({"keys": [entry]})
    assert list(keys_of({"keys": [entry, {**FINE, "kid": "fine"}]})) == ["fine"]


@pytest.mark.parametrize("document", [None, [], "x", 5, {}, {"keys": None}, {"keys": {}}, {"keys": "x"}])
def test_what_is_no_key_set(document: object) -> None:
    assert not keys_of(document)


def test_of_two_keys_with_one_id_the_first_counts() -> None:
    found = keys_of({"keys": [FINE, jwk(private_key("another"))]})
    assert found[KID].public_numbers() == private_key().public_key().public_numbers()


class Clock:
    """Both clocks of a verifier, since no test waits for minutes."""

    def __init__(self) -> None:
        self.past = 0.0

    def wall(self) -> float:
        return NOW + self.past

    def steady(self) -> float:
        return 1000 + self.past


class Checked:
    """A verifier, the Core that it asks, and the time."""

    def __init__(self, core: StandIn, verifier: Verifier, single_flight: SingleFlight, clock: Clock) -> None:
        self.core = core
        self.verifier = verifier
        self.single_flight = single_flight
        self.clock = clock

    async def name(self, token: str) -> str:
        return (await self.verifier.identity(token)).name

    @property
    def asked(self) -> tuple[int, int]:
        """How often Core was asked for keys and about sessions."""
        return self.core.asked[KEYS_PATH], self.core.asked[VALIDATE_PATH]


@pytest.fixture
async def checked() -> AsyncIterator[Checked]:
    clock, single_flight = Clock(), SingleFlight()
    async with standing_in() as core, core_session() as session:
        verifier = Verifier(Core(session, core.url), single_flight, clock.wall, clock.steady)
        yield Checked(core, verifier, single_flight, clock)
        await single_flight.stop()


USERS = signed({**USER, "exp": NOW + 3600})
SERVICES = signed({**SERVICE, "exp": NOW + 300})


async def test_core_is_asked_once_for_what_stays_true(checked: Checked) -> None:
    for _ in range(3):
        assert await checked.name(USERS) == USER["preferred_username"]
        assert await checked.name(SERVICES) == "service:codex"
    assert checked.asked == (1, 1)


async def test_core_is_asked_once_by_many_at_the_same_time(checked: Checked) -> None:
    checked.core.go_on.clear()
    waiting = [asyncio.create_task(checked.name(USERS)) for _ in range(20)]
    await eventually(lambda: checked.core.asked)
    waiting[0].cancel()
    checked.core.go_on.set()
    names = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(names[0], asyncio.CancelledError), "who goes away takes nothing from the others"
    assert names[1:] == [USER["preferred_username"]] * 19
    assert checked.asked == (1, 1)


async def test_a_revoked_session_stops_working(checked: Checked) -> None:
    assert await checked.name(USERS) == USER["preferred_username"]
    checked.core.revoked.add(USER["jti"])
    checked.clock.past = VERDICT_SECONDS - 0.1
    assert await checked.name(USERS) == USER["preferred_username"]
    checked.clock.past = VERDICT_SECONDS
    for _ in range(3):
        with pytest.raises(BadTokenError, match="session has ended"):
            await checked.name(USERS)
    assert checked.asked == (1, 2)
    assert VERDICT_SECONDS + 15 < 60


async def test_a_token_that_expires_while_it_is_remembered(checked: Checked) -> None:
    assert await checked.name(SERVICES) == "service:codex"
    checked.clock.past = 300 + LEEWAY
    with pytest.raises(BadTokenError, match="expired"):
        await checked.name(SERVICES)


async def test_without_core_known_tokens_work_until_they_expire(checked: Checked) -> None:
    assert await checked.name(USERS) == USER["preferred_username"]
    assert await checked.name(SERVICES) == "service:codex"
    checked.core.down = True
    for past in (60, 299, 1000, 3599):
        checked.clock.past = past
        assert await checked.name(USERS) == USER["preferred_username"]
    checked.clock.past = 299
    assert await checked.name(SERVICES) == "service:codex"
    checked.clock.past = 3600 + LEEWAY
    with pytest.raises(BadTokenError, match="expired"):
        await checked.name(USERS)


async def test_a_core_that_is_down_is_not_asked_at_every_request(checked: Checked) -> None:
    assert await checked.name(USERS) == USER["preferred_username"]
    checked.core.down = True
    checked.clock.past = VERDICT_SECONDS
    for _ in range(5):
        assert await checked.name(USERS) == USER["preferred_username"]
    assert checked.asked == (1, 2)
    checked.core.down = False
    checked.core.revoked.add(USER["jti"])
    checked.clock.past += RETRY_SECONDS
    with pytest.raises(BadTokenError, match="session has ended"):
        await checked.name(USERS)
    checked.core.down = True
    checked.clock.past += VERDICT_SECONDS
    with pytest.raises(BadTokenError, match="session has ended"):
        await checked.name(USERS)


async def test_a_session_that_core_was_never_asked_about_is_not_let_in(checked: Checked) -> None:
    assert await checked.name(SERVICES) == "service:codex"
    checked.core.down = True
    for _ in range(2):
        with pytest.raises(CoreUnreachableError, match="status 500 for /api/token/validate"):
            await checked.name(USERS)
    checked.core.down = False
    assert await checked.name(USERS) == USER["preferred_username"]


async def test_without_keys_nobody_is_let_in_and_core_is_left_in_peace(checked: Checked) -> None:
    checked.core.down = True
    for _ in range(3):
        with pytest.raises(CoreUnreachableError, match=r"status 500 for /\.well-known/jwks\.json"):
            await checked.name(SERVICES)
    assert checked.asked == (1, 0)
    checked.core.down = False
    checked.clock.past = PAUSE_SECONDS
    assert await checked.name(SERVICES) == "service:codex"


async def test_a_new_key_is_fetched_and_an_unknown_one_not_over_and_over(checked: Checked) -> None:
    assert await checked.name(SERVICES) == "service:codex"
    second = signed({**SERVICE, "exp": NOW + 300}, private_key("another"), kid="second")
    checked.core.keys.append(jwk(private_key("another"), "second"))
    checked.clock.past = PAUSE_SECONDS
    assert await checked.name(second) == "service:codex"
    assert checked.asked == (2, 0)
    for number in range(5):
        with pytest.raises(BadTokenError, match="signed with an unknown key"):
            await checked.name(signed(GOOD_SERVICE, kid=f"unknown{number}"))
    assert checked.asked == (2, 0)


async def test_what_a_key_signed_is_worth_nothing_once_core_has_given_it_up(checked: Checked) -> None:
    assert await checked.name(USERS) == USER["preferred_username"]
    checked.core.keys = [jwk(private_key("another"))]
    checked.clock.past = KEYS_MAX_AGE
    # The first request has the keys renewed and doesn't wait for them.
    with pytest.raises(BadTokenError, match="signature"):
        for _ in range(50_000):
            await checked.name(USERS)
            await asyncio.sleep(0.001)
    assert checked.asked[0] == 2


async def test_keys_stay_in_use_while_core_is_away(checked: Checked) -> None:
    assert await checked.name(SERVICES) == "service:codex"
    checked.core.down = True
    checked.clock.past = KEYS_MAX_AGE
    assert await checked.name(signed({**SERVICE, "exp": NOW + 900, "iat": 1})) == "service:codex"


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (lambda: web.Response(text="<html>"), "contains no usable key"),
        (lambda: web.json_response([]), "contains no usable key"),
        (lambda: web.json_response({"keys": []}), "contains no usable key"),
        (lambda: web.json_response({"keys": [jwk(private_key("short", 1024))]}), "contains no usable key"),
        (lambda: web.Response(body=b"[" * 50_000), "contains no usable key"),
        (lambda: web.Response(body=b"\xff\x00"), "contains no usable key"),
        (lambda: web.Response(body=b"{}", headers={"Content-Encoding": "gzip"}), "contains no usable key"),
        (lambda: web.Response(body=b" " * 70_000), "larger than 64 KiB"),
        (lambda: web.Response(status=302, headers={"Location": KEYS_PATH}), "status 302"),
        (lambda: web.json_response({"keys": [FINE]}, status=404), "status 404"),
    ],
)
async def test_what_answers_for_keys_is_not_trusted(
    checked: Checked, reply: Callable[[], web.Response], why: str
) -> None:
    checked.core.keys_reply = reply()
    with pytest.raises(CoreUnreachableError, match=why):
        await checked.name(SERVICES)
    assert checked.asked == (1, 0)


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (lambda: web.json_response({"valid": False}), BadTokenError),
        (lambda: web.Response(status=401, text="<html>"), BadTokenError),
        (lambda: web.Response(status=403), BadTokenError),
        (lambda: web.json_response({"valid": "yes"}), CoreUnreachableError),
        (lambda: web.json_response({}), CoreUnreachableError),
        (lambda: web.json_response([True]), CoreUnreachableError),
        (lambda: web.json_response({"valid": True}, status=201), CoreUnreachableError),
        (lambda: web.json_response({"valid": False}, status=400), CoreUnreachableError),
        (lambda: web.Response(status=302, headers={"Location": VALIDATE_PATH}), CoreUnreachableError),
    ],
)
async def test_only_a_plain_yes_is_one(
    checked: Checked, reply: Callable[[], web.Response], error: type[Exception]
) -> None:
    checked.core.validate_reply = reply()
    with pytest.raises(error):
        await checked.name(USERS)
    assert checked.asked == (1, 1)


async def test_a_core_that_is_not_there() -> None:
    single_flight = SingleFlight()
    async with core_session() as session:
        with pytest.raises(CoreUnreachableError, match=r"request to Core at http://127\.0\.0\.1:1 failed") as caught:
            await Verifier(Core(session, "http://127.0.0.1:1/"), single_flight).identity(SERVICES)
    assert SERVICES not in str(caught.value)


async def test_a_core_that_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    async with standing_in() as core, core_session() as session:
        monkeypatch.setattr("helmd.web.auth.asking.REPLY_SECONDS", 0.05)
        core.go_on.clear()
        with pytest.raises(CoreUnreachableError, match=r"no answer within 0\.05 s"):
            await Verifier(Core(session, core.url), SingleFlight()).identity(SERVICES)


async def test_what_is_under_way_ends_when_cancelled(checked: Checked) -> None:
    checked.core.go_on.clear()
    waiting = asyncio.create_task(checked.name(USERS))
    await eventually(lambda: checked.core.asked)
    await checked.single_flight.stop()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_a_signature_is_checked_once(checked: Checked, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes 60 µs, and ingest brings thousands of requests a second with the same few tokens."""
    tokens: list[str] = []

    def counted(token: str, key: Any, now: float) -> Bearer:
        tokens.append(token)
        return verified(token, key, now)

    monkeypatch.setattr("helmd.web.auth.verifier.verified", counted)
    for _ in range(3):
        await checked.name(SERVICES)
        await checked.name(USERS)
    assert tokens == [SERVICES, USERS]


async def test_only_so_many_tokens_are_remembered(checked: Checked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("helmd.web.auth.verifier.MAX_KNOWN", 2)
    others = [signed({**USER, "jti": f"session{number}", "exp": NOW + 60}) for number in range(2)]
    for token in (USERS, others[0], USERS, others[1], USERS):
        assert await checked.name(token) == USER["preferred_username"]
    assert checked.asked == (1, 3)
    assert await checked.name(others[0]) == USER["preferred_username"]
    assert checked.asked == (1, 4), "what was not used for longest is forgotten first"
