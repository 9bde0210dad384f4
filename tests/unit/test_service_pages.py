"""The pages of one service, of users and of the audit trail: what is shown to whom, and as text alone."""

import re
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from helmd.journal.lines import PrintedLine
from helmd.model.api.metrics import MetricsReply
from helmd.model.errors import DeniedError, KeycloakAwayError, StoreError
from helmd.model.identity.audit import DRY_RUN, AuditedChange, AuditEntry
from helmd.model.identity.origin import Origin
from helmd.model.identity.users import RealmGroup, RealmUser
from helmd.model.layout import layout
from helmd.model.logs.entry import LogRow
from helmd.model.suite.service import Registry, Service
from helmd.model.units.health import HEALTHY, HealthVerdict
from helmd.model.units.status import Observed, Status, service_status
from helmd.model.units.unit_state import UnitFacts
from helmd.operations.diagnostics.failures import FailureReader
from helmd.operations.identity.user_index import LastLogins
from helmd.operations.identity.user_reader import UserDetails, UserPage, UserSession
from helmd.operations.logs.audit import AuditQuery, JournalPart
from helmd.operations.logs.audit_store import AuditPages
from helmd.web.auth.identity import Callers
from helmd.web.auth.roles import Access, Identity, Role, Via
from helmd.web.pages.assets import Assets
from helmd.web.pages.audit import AuditTrailPage
from helmd.web.pages.rendering import Renderer
from helmd.web.pages.service import ServicePage
from helmd.web.pages.users import UsersPage
from helmd.web.server import application
from helmd.web.service_pages import service_pages
from tests.waiting import WITHIN

NOW = datetime.now(UTC)
HOSTILE = "<script>alert(1)</script>"
ESCAPED = "&lt;script&gt;alert(1)&lt;/script&gt;"
SUITE = Registry(
    {
        "core": Service("core", port=5000, description=f"Tokens {HOSTILE}"),
        "codex": Service("codex", port=5010, depends_on=("core",)),
        "helm": Service("helm", port=5004),
        "outside": Service("outside", type="external", url="http://localhost:9"),
    }
)
STOPPED = {"action": "POST /api/services/{name}/stop", "result": "refused", "actor": "eve"}
URL = "http://localhost:5004"
SUMMARIES = {"POST /api/services/{name}/stop": "Stop a service"}
GROUPS = (RealmGroup("1", "admins", "/admins"), RealmGroup("2", "client", "/client"))


@pytest.fixture(autouse=True)
def long_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lines of a run are waited for on a busy machine as well."""
    monkeypatch.setattr("helmd.operations.diagnostics.failures._WAIT_SECONDS", WITHIN)


@dataclass
class World:
    """What the pages are about; a test changes it."""

    role: Role = Role.ADMIN
    via: Via = "session"
    login_at: float | None = field(default_factory=time.time)
    rows: list[LogRow] = field(default_factory=list)
    store_away: bool = False
    failed: bool = False
    keycloak_away: bool = False
    users: list[RealmUser] = field(default_factory=list)
    records: list[AuditEntry] = field(default_factory=list)
    asked: list[AuditQuery] = field(default_factory=list)

    # as a monitor

    def observed(self, name: str) -> Observed | None:
        if name not in SUITE:
            return None
        facts = UnitFacts(f"hivematrix-{name}.service", "loaded", "active", "running", main_pid=0)
        if self.failed:
            facts = replace(facts, active_state="failed", changed_at=NOW.timestamp(), restarts=5)
        return Observed(name, SUITE[name], facts, "production", HealthVerdict(HEALTHY, f"said {HOSTILE}"))

    def status(self, name: str) -> Status:
        observed = self.observed(name)
        assert observed is not None
        return service_status(observed, NOW.timestamp())

    def statuses(self) -> dict[str, Status]:
        return {name: self.status(name) for name in SUITE.names}

    # as the store

    async def page(self, wanted: Any, limit: int, before: Any, offset: int, *, counted: bool) -> Any:
        if self.store_away:
            raise StoreError("the store is away")
        rows = [row for row in self.rows if row.service_name in wanted.services and row.source in wanted.sources]
        entries = [SimpleNamespace(id=number + 1, row=row) for number, row in enumerate(rows)]
        return SimpleNamespace(page=SimpleNamespace(entries=entries, next=None))

    async def read(self, service: str, start: datetime, end: datetime, names: Any, step: int) -> MetricsReply:
        return MetricsReply(service, start, end, ())


class Realm:
    """The users of WORLD, as `Users` gives them."""

    def __init__(self, world: World) -> None:
        self._world = world

    def page(self, search: str, first: int, most: int, enabled: bool | None, group: str) -> UserPage:
        if self._world.keycloak_away:
            raise KeycloakAwayError("Keycloak does not answer", hint="Run: helmctl start keycloak")
        found = [user for user in self._world.users if search in user.username]
        return UserPage(tuple(found[first : first + most]), len(found), first + most < len(found))

    def groups(self) -> tuple[RealmGroup, ...]:
        return GROUPS

    def details(self, id: str) -> UserDetails:
        user = next(each for each in self._world.users if each.id == id)
        privileged = user.username == "admin"
        return UserDetails(user, GROUPS[:1] if privileged else GROUPS[1:], privileged, False, 0, 1, None, NOW)

    def sessions(self, id: str) -> tuple[UserSession, ...]:
        return (UserSession("s", "192.0.2.7", NOW, NOW, ("core-client",)),)


class EveryRole(Callers):
    """Lets everybody in as WORLD says."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    async def authorize(self, request: web.Request, access: Access) -> Identity | None:
        identity = Identity("ada", self._world.role, self._world.via, login_at=self._world.login_at)
        if refusal := access.refusal(identity):
            raise DeniedError(refusal)
        return identity


PRINTED = [PrintedLine(NOW.timestamp(), "connecting"), PrintedLine(NOW.timestamp(), f"ERROR: {HOSTILE}")]


async def at_once(function: Any) -> Any:
    return function()


@asynccontextmanager
async def served(world: World, tmp_path: Path) -> AsyncIterator[TestClient]:
    renderer, store = Renderer(Assets()), cast(Any, world)
    places = layout({}, tmp_path, 1000, tmp_path)
    places.config.mkdir(parents=True, exist_ok=True)
    (places.config / "services.toml").write_text('[services.core]\ntype = "command"\nlimits.tasks = 7\n')
    index = SimpleNamespace(
        groups=lambda users, wanted: {user.id: ("client", HOSTILE) for user in wanted},
        logins=lambda users: LastLogins({}, NOW - timedelta(days=30)),
    )
    source = SimpleNamespace(index=index, users=lambda confirm: Realm(world))

    def read(wanted: AuditQuery, limit: int) -> JournalPart:
        world.asked.append(wanted)
        return JournalPart([entry for entry in world.records if wanted.selects(entry)][:limit], None)

    pages = service_pages(
        ServicePage(
            store,
            lambda: SUITE,
            places,
            store,
            store,
            lambda: URL,
            SUMMARIES,
            renderer,
            FailureReader(world.observed, lambda facts: PRINTED),
        ),
        UsersPage(cast(Any, source), cast(Any, at_once), lambda: URL, renderer),
        AuditTrailPage(AuditPages(read, store), lambda: SUITE.names, SUMMARIES, renderer),
    )
    made = application(pages, EveryRole(world), renderer=renderer)
    async with TestClient(TestServer(made)) as client:
        yield client


async def text_of(
    world: World, tmp_path: Path, path: str, status: int = 200, headers: Mapping[str, str] | None = None
) -> str:
    async with served(world, tmp_path) as client:
        answer = await client.get(f"/helm/{path}", headers={"Accept": "text/html", **(headers or {})})
        assert answer.status == status, await answer.text()
        return await answer.text()


def user(name: str, **facts: Any) -> RealmUser:
    return replace(RealmUser(f"id-{name}", name, f"{name}@example.org", HOSTILE, "Ing"), **facts)


def buttons(text: str) -> Iterator[str]:
    yield from (part.partition('"')[0] for part in text.split('data-verb="')[1:])


async def test_a_service(tmp_path: Path) -> None:
    said = {"action": "restart", "result": "done", "actor": "ada", "reason": HOSTILE}
    world = World(
        rows=[
            LogRow(NOW, "core", "INFO", f"restart core: done, for ada: {HOSTILE}", said, source="helm"),
            LogRow(NOW, "core", "ERROR", "hivematrix-core.service: Failed with result 'oom-kill'.", source="systemd"),
            LogRow(NOW, "helm", "WARNING", "core is unhealthy: no answer", source="journal"),
            LogRow(
                NOW, "core", "INFO", "POST /api/services/{name}/stop core: refused, for eve", STOPPED, source="helm"
            ),
            LogRow(NOW, "core", "INFO", "PUT …: done", {"detail": f"{DRY_RUN}set x"}, source="helm"),
        ]
    )
    text = await text_of(world, tmp_path, "service/core")
    assert HOSTILE not in text and text.count(ESCAPED) >= 3 and ">Stop a service: refused<" in text
    assert 'title="oom"' in text and 'title="health"' in text and ">Restart: done<" in text and "PUT …" not in text
    assert 'href="/helm/service/codex"' in text, "codex needs it"
    assert list(buttons(text)) == ["restart", "stop", "reload"] and "no reload_command" in text
    part = await text_of(world, tmp_path, "service/core?part=state")
    assert part.lstrip().startswith("<div") and "oom-kill" in part and "data-verb" not in part


async def test_what_a_technician_may_not_do_is_absent(tmp_path: Path) -> None:
    world = World(role=Role.TECHNICIAN)
    text = await text_of(world, tmp_path, "service/core?tab=settings")
    assert not list(buttons(text)) and "Settings" not in text and "Timeline" in text
    assert (await text_of(world, tmp_path, "users", 403)).count("equires role")
    await text_of(world, tmp_path, "audit", 403)
    await text_of(World(role=Role.CLIENT), tmp_path, "service/core", 403)


async def test_without_a_store_the_rest_is_there(tmp_path: Path) -> None:
    text = await text_of(World(store_away=True), tmp_path, "service/core")
    assert "The store is away" in text and "journalctl --user-unit hivematrix-core" in text and "Processes" in text


async def test_what_a_failed_service_printed(tmp_path: Path) -> None:
    text = await text_of(World(failed=True), tmp_path, "service/core")
    card = text.partition('id="failure-title"')[2].partition("</section>")[0]
    assert "before it failed" in card and "after 5 automatic restarts" in card and "helmctl why core" in card
    assert "connecting" in card and HOSTILE not in text
    assert ESCAPED in card.partition("helm-text__line--cause")[2], "the line that says why stands out"
    assert "failure-title" not in await text_of(World(), tmp_path, "service/core"), "it works"


async def test_helm_and_what_is_external_have_no_buttons(tmp_path: Path) -> None:
    for name, sentence in (("helm", "systemctl --user restart helmd"), ("outside", "never started or stopped")):
        text = await text_of(World(), tmp_path, f"service/{name}")
        assert not list(buttons(text)) and sentence in text
    await text_of(World(), tmp_path, "service/nosuch", 404)


async def test_settings_need_a_recent_login_here(tmp_path: Path) -> None:
    text = await text_of(World(), tmp_path, "service/core?tab=settings")
    assert 'name="limits.tasks" value="7"' in text and "data-fresh-login" not in text
    old = await text_of(World(login_at=time.time() - 900), tmp_path, "service/core?tab=settings")
    assert 'href="/helm/login?fresh=1&amp;next=/helm/service/core%3Ftab%3Dsettings"' in old and "data-locked" in old
    proxied = {"X-Forwarded-Prefix": "/helm", "X-Forwarded-Host": "desk.example.org", "X-Forwarded-Proto": "https"}
    through = World(via="token", login_at=None)
    text = await text_of(through, tmp_path, "service/core?tab=settings", headers=proxied)
    assert f'href="{URL}/helm/service/core?tab=settings"' in text and "came through the gateway" in text


async def test_what_a_later_file_sets_is_not_offered_for_change(tmp_path: Path) -> None:
    """Such a change would have no effect; the form says where it can be made."""
    directory = layout({}, tmp_path, 1000, tmp_path).registry_directory
    directory.mkdir(parents=True)
    (directory / "core.toml").write_text('[services.core]\nlimits.tasks = 9\nenvironment = {SHAPE = "round"}\n')
    text = await text_of(World(), tmp_path, "service/core?tab=settings")
    field = text.partition('name="limits.tasks"')[2].partition("</label>")[0]
    assert (
        'value="9"' in field and " disabled" in field and "services.d/core.toml, line 2, which is read after" in field
    )
    row = next(part for part in text.split("data-variable>")[1:] if 'value="SHAPE"' in part).partition("</div>")[0]
    assert " disabled" in row and "data-remove" not in row and "services.d/core.toml, line 3" in row
    assert 'name="limits.open_files"' in text and "open_files</span>" in text, "others can be changed"


async def test_a_field_has_the_value_itself(tmp_path: Path) -> None:
    """Pages write out what is not seen; what is sent back must be as it was."""
    directory = layout({}, tmp_path, 1000, tmp_path).registry_directory
    directory.mkdir(parents=True)
    (directory / "core.toml").write_text('[services.core]\nenvironment = {MARK = "a\\u200e<b"}\n')
    text = await text_of(World(), tmp_path, "service/core?tab=settings")
    assert 'value="a\u200e&lt;b"' in text and 'data-was="a\u200e&lt;b"' in text


async def test_users(tmp_path: Path) -> None:
    world = World(users=[user("admin"), user("bill", enabled=False), *(user(f"many{n:02}") for n in range(60))])
    text = await text_of(world, tmp_path, "users?q=a")
    assert (
        HOSTILE not in text
        and ESCAPED in text
        and "1 \N{EN DASH} 50 of 61" in text
        and 'href="/helm/users?q=a&amp;first=50"' in text
    )
    assert "many49" not in text
    shown = await text_of(world, tmp_path, "users?user=id-bill")
    assert 'data-user-do="enable"' in shown and 'data-user-do="disable"' not in shown
    part = await text_of(world, tmp_path, "users?part=user&user=id-admin")
    assert "can&#39;t be deleted" in part and 'data-user-do="delete"' in part and "disabled title" in part
    old = await text_of(replace(world, login_at=None), tmp_path, "users?part=user&user=id-admin")
    assert "has the rights of an admin" in old and "data-fresh-login" in old
    assert "No user matches the search" in await text_of(world, tmp_path, "users?q=zzz")


async def test_while_keycloak_is_away_the_page_says_what_to_do(tmp_path: Path) -> None:
    text = await text_of(World(keycloak_away=True), tmp_path, "users")
    assert "Keycloak does not answer." in text and "helmctl start keycloak" in text and "/helm/service/keycloak" in text


async def test_audit(tmp_path: Path) -> None:
    origin = Origin("session", "192.0.2.7", "session-3.scope", "abc")
    records = [
        AuditEntry(
            NOW, AuditedChange("POST /api/services/{name}/stop", "refused", HOSTILE, "core", "", "no", origin), ""
        ),
        AuditEntry(NOW, AuditedChange("apply", "done", "hive", "", "why not"), ""),
    ]
    world = World(records=records)
    text = await text_of(world, tmp_path, "audit")
    assert HOSTILE not in text and ESCAPED in text and "Stop a service" in text and "why not" in text
    assert "session, 192.0.2.7, session-3.scope" in text and "session abc" in text
    text = await text_of(world, tmp_path, "audit?who=hive&result=done&start=2026-01-01T00:00:00Z")
    assert "Stop a service" not in text and world.asked[-1].since is not None
    text = await text_of(world, tmp_path, "audit?start=nonsense")
    assert 'role="alert"' in text and "start" in text
    many = World(records=[replace(records[1], time=NOW - timedelta(microseconds=n // 3), change=replace(
        records[1].change, reason=f"reason {n};")) for n in range(250)])  # fmt: skip
    seen, query = [], "?who=hive"
    while query:
        text = await text_of(many, tmp_path, f"audit{query}")
        seen += re.findall(r"reason (\d+);", text)
        found = re.search(r'href="/helm/audit([^"]*)" rel="next">Older records', text)
        query = "" if found is None else found[1].replace("&amp;", "&")
        assert not query or ("who=hive" in query and "cursor=" in query)
    assert len(seen) == 250 == len(set(seen)), "three of each microsecond"
    away = await text_of(World(records=records, store_away=True), tmp_path, "audit")
    assert "is missing: the store is away" in away and "Stop a service" in away
