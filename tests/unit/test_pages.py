"""Pages: what each role sees, under which policy, and what is served beside them."""

import gzip
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from helmd.journal.lines import PrintedLine
from helmd.model.api.audit import AuditRecord
from helmd.model.errors import HelmError
from helmd.model.metrics.summaries import DayShare, MinuteValues
from helmd.model.suite.causes import CauseGroup, troubles
from helmd.model.suite.effects import effect_text
from helmd.model.suite.service import Registry, Service
from helmd.model.units.health import HEALTHY, UNHEALTHY, HealthVerdict
from helmd.model.units.status import Observed, Status, service_status
from helmd.model.units.unit_state import UnitFacts
from helmd.operations.diagnostics.failures import FailureReader
from helmd.operations.monitoring.code_versions import CodeVersion
from helmd.operations.monitoring.service_history import ServiceRecord
from helmd.web.auth.identity import Callers
from helmd.web.auth.roles import Access, Identity, Role
from helmd.web.pages.assets import STATIC, Assets
from helmd.web.pages.graph import dependency_graph
from helmd.web.pages.navigation import RAIL_PLACES
from helmd.web.pages.overview import OverviewPage, OverviewSources, change_shown, changes_shown
from helmd.web.pages.overview_words import absent, alarms, headline, health_line, permissions, tone_of, well_since
from helmd.web.pages.policy import direct_policy, gateway_policy, own_path
from helmd.web.pages.rendering import TEMPLATES, Renderer
from helmd.web.pages.service_rows import STATES, rows, worst
from helmd.web.pages.words import NOTHING, duration_text
from helmd.web.route import Route
from helmd.web.server import application
from tests.fakes import Statuses
from tests.waiting import WITHIN

NOW = datetime(2026, 11, 28, 15, 0, tzinfo=UTC)
SUITE = Registry(
    {
        "nexus": Service("nexus", url="https://desk.example.org:443", port=443),
        "core": Service("core", url="http://localhost:5000"),
        "codex": Service("codex", url="http://localhost:5010", description="Customers & <b>notes</b>"),
        "ledger": Service("ledger", url="http://localhost:5030", billing_or_admin_only=True),
        "beacon": Service("beacon", url="http://localhost:5001", admin_only=True),
        "worker": Service("worker", visible=False),
    }
)
GATEWAY = {"X-Forwarded-Host": "desk.example.org", "X-Forwarded-Proto": "https", "X-Forwarded-Prefix": "/helm"}


def identity(role: Role, **facts: object) -> Identity:
    return replace(Identity("ada", role, "session"), **facts)  # type: ignore[arg-type]


def status(name: str, state: str = "healthy", message: str = "answered 200") -> Status:
    facts = UnitFacts(f"hivematrix-{name}.service", "loaded", "active", main_pid=5, started_at=NOW.timestamp() - 4000)
    verdict = HealthVerdict(HEALTHY if state == "healthy" else UNHEALTHY, message)
    made = service_status(Observed(name, SUITE.services.get(name), facts, verdict=verdict), NOW.timestamp())
    return replace(made, state=state)


STATUSES = {name: status(name) for name in (*SUITE.names, "helm", "leftover")}


@pytest.mark.parametrize(
    ("role", "seen"),
    [
        (Role.CLIENT, {"nexus", "core", "codex"}),
        (Role.BILLING, {"nexus", "core", "codex", "ledger"}),
        (Role.TECHNICIAN, set(STATUSES)),
        (Role.ADMIN, set(STATUSES)),
    ],
)
def test_who_sees_which_services(role: Role, seen: set[str]) -> None:
    assert {row.name for row in rows(STATUSES, SUITE, identity(role), NOW)} == seen


def test_a_client_reads_what_a_state_means_and_may_open_the_service() -> None:
    said = {**STATUSES, "codex": status("codex", "failed", "exit code 1: KeyError: 'password'")}
    codex = next(row for row in rows(said, SUITE, identity(Role.CLIENT), NOW) if row.name == "codex")
    assert (codex.tone, codex.message, codex.link) == ("error", "does not work", "https://desk.example.org/codex/")
    assert next(row for row in rows(said, SUITE, identity(Role.ADMIN), NOW)).message.startswith("exit code 1")
    core = next(row for row in rows(said, SUITE, identity(Role.CLIENT), NOW) if row.name == "core")
    assert not core.link


def test_what_is_wrong_comes_first_and_is_the_headline() -> None:
    admin = identity(Role.ADMIN)
    assert said(STATUSES) == "All 8 services healthy"
    worse = {**STATUSES, "core": status("core", "degraded", "slow"), "codex": status("codex", "failed", "exit code 1")}
    found = rows(worse, SUITE, admin, NOW)
    assert [row.name for row in found[:2]] == ["codex", "core"] and worst(found) == "error"
    assert said(worse) == "codex has failed: exit code 1; 1 other problem"
    assert said({**STATUSES, "core": status("core", "degraded", "slow")}) == "core is degraded: slow"
    assert said({"core": status("core", "failed", "core exited with code 1")}) == "core has failed: exited with code 1"
    ended = {"core": status("core", "flapping", "core is not running")}
    assert said(ended) == "core is failing: not running"
    assert [row.message for row in rows(ended, SUITE, admin, NOW)] == ["not running"]
    off = {"codex": status("codex", "stopped"), "core": status("core")}
    assert said(off) == "core is healthy, 1 is off"
    assert said({"codex": status("codex", "stopped")}) == "All services are switched off"
    assert said({**STATUSES, "core": status("core", "starting")}) == "core is starting or stopping"
    assert worst(rows({"codex": status("codex", "stopped")}, SUITE, admin, NOW)) == "off"


def said(statuses: dict[str, Status], suite: Registry = SUITE) -> str:
    """Return the headline."""
    found = rows(statuses, suite, identity(Role.ADMIN), NOW)
    made = headline(found, alarms(found, suite))
    return made.text + made.rest


def test_one_cause_is_one_alarm() -> None:
    needs = {"core": ("keycloak",), "nexus": ("core",), "codex": ("core",), "beacon": (), "keycloak": ()}
    suite = Registry({name: Service(name, depends_on=others) for name, others in needs.items()})
    wrong = {name: status(name, "degraded", "it waits") for name in ("core", "nexus", "codex", "beacon")}
    wrong["keycloak"] = status("keycloak", "failed", "exit code 1")
    found = alarms(rows(wrong, suite, identity(Role.ADMIN), NOW), suite)
    assert [(each.row.name, {row.name for row in each.affected}) for each in found] == [
        ("keycloak", {"core", "nexus", "codex"}),
        ("beacon", set()),
    ]
    assert found[0].because == "codex, core and nexus are degraded because of it."
    line = health_line(wrong, suite, identity(Role.ADMIN))
    assert (line.tone, line.sentence, line.trouble) == ("error", "2 problems, 3 affected", "(5) keycloak failing")
    # Switched off, but needed by what runs: that is wrong, too, and the cause of what is.
    wrong["keycloak"] = replace(status("keycloak", "stopped", "not running"), started_at=None)
    assert (
        said({**wrong, "beacon": status("beacon")}, suite) == "keycloak is stopped, and codex, core and nexus need it"
    )
    runs = {name: status(name) for name in needs} | {"keycloak": wrong["keycloak"]}
    seen = rows(runs, suite, identity(Role.ADMIN), NOW)
    (alarm,) = alarms(seen, suite)
    assert (alarm.row.name, alarm.affected, tone_of(seen, [alarm])) == ("keycloak", (), "warn")
    line = health_line(runs, suite, identity(Role.ADMIN))
    assert (line.tone, line.sentence, line.trouble) == ("warn", "keycloak stopped", "(1) keycloak stopped")
    idle = {name: replace(status(name, "stopped"), started_at=None) for name in needs}
    assert alarms(rows(idle, suite, identity(Role.ADMIN), NOW), suite) == ()
    circle = {"a": ("b",), "b": ("a",)}
    assert troubles(["a", "b"], circle) == (CauseGroup("a"), CauseGroup("b"))


def test_whom_a_stop_touches() -> None:
    suite = Registry(
        {name: Service(name, depends_on=("core",) if name != "core" else ()) for name in ("core", "a", "b")}
    )
    text = "a, b depend on it. Nobody can log in, and services get no tokens meanwhile."
    assert effect_text("stop", ("core",), suite) == text and effect_text("start", ("core",), suite) == ""
    assert effect_text("restart", ("a",), suite) == "" and effect_text("stop", ("core", "a", "b"), suite).startswith(
        "Nob"
    )


def test_the_figures_of_a_row() -> None:
    day = NOW.date()
    minutes = tuple(int(NOW.timestamp()) - 60 * back for back in (50, 49, 48, 10, 9))
    record = ServiceRecord(
        {"ERROR": 3, "CRITICAL": 1, "WARNING": 2},
        NOW,
        2,
        MinuteValues(minutes, (1.0, 2.0, 1.0, 4.0, 0.0)),
        days={day: DayShare(0.9, 0, NOW), day - timedelta(days=1): DayShare(1.0, 1.0, None)},
    )
    admin, records = identity(Role.ADMIN), {"core": record}
    versions = {"core": CodeVersion("module", "0123456789ab", "main", 3)}
    row = next(row for row in rows(STATUSES, SUITE, admin, NOW, records, versions) if row.name == "core")
    assert row.version == versions["core"]
    assert (row.errors, row.warnings, row.restarts, row.last_error) == (4, 2, 2, NOW)
    assert row.cpu_path == "M3 11 4 15M16 3 17 19", "three minutes a point, the peak of each; a gap is a gap"
    assert [each.path for each in row.days] == ["M0 1h176V17h-176z", "M176 1h2V17h-2z", "M178 11h2V17h-2z"]
    assert [each.tone for each in row.days] == ["", "ok", "error"]
    assert row.days_text == "Healthy 95.00 % of 2 known days, 1 with trouble"
    assert row.verbs == ("restart", "stop") and not row.keeps
    own = next(row for row in rows(STATUSES, SUITE, admin, NOW) if row.name == "helm")
    assert not own.verbs and "Helm does not stop itself" in own.keeps
    reader = next(row for row in rows(STATUSES, SUITE, identity(Role.TECHNICIAN), NOW) if row.name == "core")
    assert not reader.verbs and not reader.keeps


def test_what_is_stored_is_shown_until_the_next_measurement() -> None:
    """After a restart of helmd there are neither figures nor a beginning; the store has them."""
    newest = int(NOW.timestamp()) - 60
    record = ServiceRecord(cpu=MinuteValues((newest,), (2.5,)), memory=MinuteValues((newest,), (80.0,)))

    def shown(record: ServiceRecord, one: Status) -> tuple[str, str]:
        (row,) = rows({"core": one}, SUITE, identity(Role.ADMIN), NOW, {"core": record})
        return row.cpu, row.memory

    core = replace(status("core"), started_at=NOW - timedelta(hours=1))
    assert shown(record, core) == ("2.5 %", "80 MiB")
    assert shown(record, replace(core, cpu_percent=7.0)) == ("7.0 %", "80 MiB")
    assert shown(record, replace(core, started_at=NOW - timedelta(seconds=30))) == (NOTHING, NOTHING), (
        "of the process before"
    )
    assert shown(record, replace(core, started_at=None)) == (NOTHING, NOTHING)
    old = MinuteValues((newest - 600,), (2.5,))
    assert shown(ServiceRecord(cpu=old, memory=old), core) == (NOTHING, NOTHING)


def test_since_when_all_is_well() -> None:
    """The last trouble that is stored, or a newer start; not that of helmd, nor a run by schedule."""
    suite = Registry({"core": Service("core"), "nightly": Service("nightly", schedule="daily")})
    begun = {"core": 5, "nightly": 0.1, "helm": 0.2}
    seen = {name: replace(status(name), started_at=NOW - timedelta(hours=hours)) for name, hours in begun.items()}
    assert well_since(seen, {}, suite) == NOW - timedelta(hours=5)
    trouble = ServiceRecord(last_trouble=NOW - timedelta(hours=2))
    assert well_since(seen, {"core": trouble}, suite) == NOW - timedelta(hours=2)
    assert well_since(seen, {"gone": trouble}, suite) == NOW - timedelta(hours=5)
    assert well_since({}, {}, suite) is None


def test_the_picture_of_dependencies() -> None:
    graph = {"core": ("keycloak",), "codex": ("core", "keycloak"), "keycloak": (), "alone": ()}
    suite = Registry({name: Service(name, depends_on=others) for name, others in graph.items()})
    seen = rows({name: status(name) for name in graph}, suite, identity(Role.ADMIN), NOW)
    made = dependency_graph(seen, graph)
    assert made is not None and {node.name: node.x for node in made.nodes} == {"keycloak": 8, "core": 192, "codex": 376}
    assert len(made.edges) == 3 and made.width >= 376 + made.node_width
    assert dependency_graph(seen, {}) is None
    assert dependency_graph(seen, {"core": ("codex",), "codex": ("core",)}) is not None


def test_a_change_in_few_words() -> None:
    def shown(action: str, detail: str | None, service: str | None) -> tuple[str, str]:
        record = AuditRecord(NOW, action, service, "done", "ada", None, detail, *(None,) * 5, "1-0")
        change = change_shown(record, {"POST /api/backups": "Makes a backup; a job"})
        return change.service, change.text

    assert shown("POST /api/services/{name}/restart", "restart core; job 2026-1", "core") == ("core", "restart")
    assert shown("apply", None, None) == ("", "apply")
    assert shown("POST /api/backups", None, None) == ("", "Makes a backup")
    rest = (*(None,) * 5, "1-0")
    path = "POST /api/services/actions"
    records = [AuditRecord(NOW, path, None, "done", "ada", None, detail, *rest) for detail in (None, "stop a; job 1")]
    records.append(AuditRecord(NOW, path, None, "refused", "ada", None, None, *rest))
    records.append(
        AuditRecord(NOW, "PUT /api/services/{name}/config", "core", "done", "ada", None, "dry run: x", *rest)
    )
    for result in ("done", "refused"):
        records.append(AuditRecord(NOW, "POST /login/once", None, result, "ada", None, None, *rest))
    assert [each.result for each in changes_shown(records, {})] == ["refused", "refused"]


@pytest.mark.parametrize("role", [Role.ADMIN, Role.TECHNICIAN, Role.BILLING, Role.CLIENT])
def test_an_empty_page_says_what_would_be_there_and_how_to_get_it(role: Role) -> None:
    who = identity(role)
    own = rows({"helm": status("helm"), "postgres": status("postgres")}, Registry({}), who, NOW)
    said = absent(own, who)
    assert said is not None and "would be listed here" in said.text
    assert [each.command for each in said.steps] == (
        ["man services.toml", "helmctl setup", "helmctl up"] if role is Role.ADMIN else []
    )
    runs_it = role in (Role.ADMIN, Role.TECHNICIAN)
    assert headline(own).text == ("No services yet" if runs_it else "No services to show")
    assert worst(own) == ("ok" if runs_it else "off")
    assert absent(rows(STATUSES, SUITE, who, NOW), who) is None
    broken = rows({"helm": status("helm", "failed")}, Registry({}), identity(Role.ADMIN), NOW)
    assert headline(broken, alarms(broken, Registry({}))).text.startswith("helm has failed")


async def test_an_empty_page() -> None:
    async with served(Statuses()) as client:
        text = await (await client.get("/helm/", headers={**ADMIN, "Test-Role": "billing"})).text()
    assert "No services to show" in text and "helm-headline--off" in text and "would be listed here" in text
    assert "open one by its name" not in text


def test_what_each_role_is_offered() -> None:
    offered = {role: " ".join(each.text + each.command for each in permissions(identity(role))) for role in Role}
    assert "helmctl restart" in offered[Role.ADMIN] and "helmctl restart" not in offered[Role.TECHNICIAN]
    assert "logs of all" in offered[Role.TECHNICIAN] and "logs" not in offered[Role.CLIENT]
    billing = permissions(identity(Role.BILLING, services=frozenset({"ledger", "books"})))
    assert billing[0].text == "Read the logs of books and ledger"
    assert not permissions(identity(Role.BILLING, services=frozenset()))[0].link


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0 s"),
        (59, "59 s"),
        (60, "1 min"),
        (3599, "59 min"),
        (3600, "1 h"),
        (7260, "2 h 1 min"),
        (90_000, "1 d 1 h"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/helm/", "/helm/"),
        ("/helm/logs?q=a%20b&x=1", "/helm/logs?q=a%20b&x=1"),
        ("", "/helm/"),
        ("/", "/helm/"),
        ("/helm", "/helm/"),
        ("/helmet/", "/helm/"),
        ("/helm/a\r\nSet-Cookie: x", "/helm/"),
        ("/helm/ä", "/helm/"),
        ("/helm//evil", "/helm/"),
        ("/helm/%2e%2e/codex", "/helm/"),
        ("/helm/%2F/evil", "/helm/"),
        ("/helm/%5cevil", "/helm/"),
        ("/helm/login?next=/helm/", "/helm/"),
        ("/helm/logout", "/helm/"),
        ("javascript:alert(1)", "/helm/"),
    ],
)
def test_where_a_login_may_lead(target: str, path: str) -> None:
    assert own_path(target) == path


def test_no_policy_allows_inline_code() -> None:
    for policy in (direct_policy(), gateway_policy(GATEWAY), gateway_policy({})):
        assert policy.startswith("default-src 'none'; ") and "unsafe" not in policy and "*" not in policy
        assert "frame-ancestors 'none'" in policy and "base-uri 'none'" in policy and "form-action 'self'" in policy
    assert "require-trusted-types-for 'script'" in direct_policy()


@pytest.mark.parametrize(
    ("host", "scheme", "scripts"),
    [
        ("desk.example.org", "https", "https://desk.example.org/helm/static/"),
        ("Desk.example.org:8443", "https", "https://desk.example.org:8443/helm/static/"),
        ("[::1]:8443", "https", "https://[::1]:8443/helm/static/"),
        ("", "https", "'none'"),
        ("a; script-src *", "https", "'none'"),
        ("a b", "https", "'none'"),
        ("a/", "https", "'none'"),
        ("*.example.org", "https", "'none'"),
        ("desk.example.org", "data", "'none'"),
        ("desk.example.org", "", "'none'"),
    ],
)
def test_scripts_through_the_gateway_are_helms_own(host: str, scheme: str, scripts: str) -> None:
    policy = gateway_policy({"X-Forwarded-Host": host, "X-Forwarded-Proto": scheme})
    assert f"; script-src {scripts}; " in policy


def test_templates_have_neither_inline_scripts_nor_styles_nor_unescaped_text() -> None:
    for path in TEMPLATES.glob("*.html"):
        text = path.read_text()
        assert not re.search(r"<script(?![^>]* src=)|<style|\sstyle=|\son[a-z]+=|\|\s*safe|autoescape", text), path


def test_every_class_of_a_template_is_in_the_style_sheet() -> None:
    sheet = (STATIC / "helm.css").read_text()
    used = {
        name
        for path in TEMPLATES.glob("*.html")
        for classes in re.findall(r'class="([^"]*)"', path.read_text())
        for name in classes.split()
        if name.startswith("helm") and "{" not in name
    }
    assert len(used) > 40
    assert not {name for name in used if not re.search(rf"\.{re.escape(name)}(?![\w-])", sheet)}


def oklch(lightness: float, chroma: float, hue: float) -> tuple[float, float, float]:
    """Linear sRGB of a colour in OKLCH (CSS Color 4, section 10.2), clipped to the gamut."""
    from math import cos, radians, sin

    a, b = chroma * cos(radians(hue)), chroma * sin(radians(hue))
    l_, m_, s_ = (
        (lightness + p * a + q * b) ** 3
        for p, q in ((0.3963377774, 0.2158037573), (-0.1055613458, -0.0638541728), (-0.0894841775, -1.2914855480))
    )
    mixed = (
        4.0767416621 * l_ - 3.3077115913 * m_ + 0.2309699292 * s_,
        -1.2684380046 * l_ + 2.6097574011 * m_ - 0.3413193965 * s_,
        -0.0041960863 * l_ - 0.7034186147 * m_ + 1.7076147010 * s_,
    )
    red, green, blue = (min(1.0, max(0.0, part)) for part in mixed)
    return red, green, blue


def contrast(one: tuple[float, float, float], other: tuple[float, float, float]) -> float:
    """Return the contrast ratio of two colours (WCAG 2.2)."""
    light, dark = sorted((0.2126 * c[0] + 0.7152 * c[1] + 0.0722 * c[2] for c in (one, other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def tokens() -> dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]]:
    """Return the colours of the style sheet, for light and for dark."""
    colour = r"oklch\(([\d.]+)% ([\d.]+) ([\d.]+)\)"
    found = {}
    for name, value in re.findall(r"--helm-([\w-]+): ((?:light-dark|oklch).*);", (STATIC / "helm.css").read_text()):
        if "/" in value:
            # A shadow, which nothing is written on.
            continue
        given = [oklch(float(a) / 100, float(b), float(c)) for a, b, c in re.findall(colour, value)]
        found[name] = (given[0], given[-1])
    return found


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_every_pair_of_colours_can_be_read(scheme: int) -> None:
    """AA: 4.5 for text (WCAG 2.2, 1.4.3)."""
    known = {name: pair[scheme] for name, pair in tokens().items()}
    pairs = [(text, on) for text in ("text", "muted") for on in ("ground", "surface", "raised")]
    tones = ("ok", "warn", "error", "info")
    pairs += [(text, on) for text in tones for on in ("surface", "ground", "raised", f"{text}-tint")]
    pairs += [("text", f"{tone}-tint") for tone in (*tones, "accent")]
    pairs += [("on-accent", "primary"), ("on-danger", "danger"), ("accent-text", "surface"), ("accent-text", "ground")]
    pairs += [("muted", "accent-tint")]
    low = {pair: ratio for pair in pairs if (ratio := contrast(known[pair[0]], known[pair[1]])) < 4.5}
    assert not low
    # 3 for marks, and for the edges of fields (1.4.11).
    marks = [("accent", "surface"), ("accent", "ground"), ("edge", "surface")]
    faint = {pair: ratio for pair in marks if (ratio := contrast(known[pair[0]], known[pair[1]])) < 3}
    assert not faint


def test_every_icon_that_is_named_is_in_the_sprite() -> None:
    sprite = (STATIC / "icons.svg").read_text()
    assert sprite.startswith("<!-- @license lucide-static v0.468.0 - ISC -->")
    named = {
        name for path in TEMPLATES.glob("*.html") for name in re.findall(r'icon\("([a-z0-9-]+)"\)', path.read_text())
    }
    named |= {name for _, name, _ in STATES.values()} | {place.icon for place in RAIL_PLACES}
    named |= {
        name
        for path in STATIC.glob("*.js")
        for name in re.findall(r'(?:icon\(|glyph: )"([a-z0-9-]+)"', path.read_text())
    }
    assert len(named) > 20 and not {name for name in named if f'id="{name}"' not in sprite}


class EveryRole(Callers):
    """Lets a request say who sends it."""

    async def authorize(self, request: web.Request, access: Access) -> Identity | None:
        found = identity(Role(request.headers["Test-Role"])) if "Test-Role" in request.headers else None
        if access.role is Role.PUBLIC or found is None:
            return None
        return found


class HostileError(HelmError):
    """An error whose text is hostile."""


async def broken(request: web.Request) -> web.StreamResponse:
    raise HostileError("<script>alert(1)</script>", hint="Run: helmctl <b>", lines=["<i>line</i>"])


NO_SOURCES = OverviewSources()


@asynccontextmanager
async def served(statuses: Statuses, sources: OverviewSources = NO_SOURCES) -> AsyncIterator[TestClient]:
    renderer = Renderer(assets := Assets())
    page = OverviewPage(statuses, lambda: SUITE, None, renderer, sources)
    table = (
        Route("GET", "/", page.show, Role.CLIENT, "overview"),
        Route("GET", r"/static/{digest:[0-9a-f]+}/{name:[A-Za-z0-9./-]+}", assets.serve, Role.PUBLIC, "files"),
        Route("GET", "/broken", broken, Role.PUBLIC, "broken"),
    )
    made = application(table, EveryRole(), renderer=renderer)
    async with TestClient(TestServer(made)) as client:
        yield client


@pytest.fixture
async def client() -> AsyncIterator[TestClient]:
    async with served(Statuses(codex=True, core=False)) as client:
        yield client


ADMIN = {"Test-Role": "admin", "Accept": "text/html"}


async def test_the_page_is_html_that_fits_its_policy(client: TestClient) -> None:
    answer = await client.get("/helm/", headers=ADMIN)
    text = await answer.text()
    assert answer.status == 200 and answer.content_type == "text/html"
    assert answer.headers["Content-Security-Policy"] == direct_policy()
    assert answer.headers["X-Content-Type-Options"] == "nosniff" and answer.headers["X-Frame-Options"] == "DENY"
    assert answer.headers["Referrer-Policy"] == "same-origin" and answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert "Customers &amp; &lt;b&gt;notes&lt;/b&gt;" in text and "<b>" not in text
    for url in re.findall(r'(?:href|src)="(/helm/static/[^"]+)"', text):
        assert (await client.get(url)).status == 200


class CoreFailed(Statuses):
    """Core alone, which has failed."""

    def statuses(self) -> dict[str, Status]:
        return {"core": status("core", "failed", "core exited with code 3")}


async def test_what_a_failed_service_printed_is_in_the_headline(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cause is seen without a click, by who may read the service's lines, and is text whatever it is."""
    monkeypatch.setattr("helmd.operations.diagnostics.failures._WAIT_SECONDS", WITHIN)
    facts = UnitFacts("hivematrix-core.service", "loaded", "failed", changed_at=NOW.timestamp(), restarts=5)
    seen = {"core": Observed("core", SUITE["core"], facts)}
    lines = [PrintedLine(NOW.timestamp(), "connecting"), PrintedLine(NOW.timestamp(), "ERROR: no table <b>users</b>")]
    sources = OverviewSources(failures=FailureReader(seen.get, lambda facts: lines))
    async with served(CoreFailed(), sources) as client:
        text, client_text = [
            await (await client.get("/helm/", headers={**ADMIN, "Test-Role": role})).text()
            for role in ("technician", "client")
        ]
    headline = text.partition("helm-headline__line")[2].partition("</div>")[0]
    assert "ERROR: no table &lt;b&gt;users&lt;/b&gt;</code>" in headline and "after 5 automatic restarts" in headline
    assert "no table" not in client_text and "<b>users" not in text


async def test_the_page_behind_the_gateway(client: TestClient) -> None:
    """The prefix is taken off there; links have it all the same."""
    answer = await client.get("/", headers={**ADMIN, **GATEWAY})
    assert answer.status == 200
    assert "script-src https://desk.example.org/helm/static/;" in answer.headers["Content-Security-Policy"]
    assert 'href="/helm/static/' in await answer.text()
    direct = await client.get("/", headers=ADMIN, allow_redirects=False)
    assert (direct.status, direct.headers["Location"]) == (303, "/helm/")


@pytest.mark.parametrize(
    ("cookie", "attribute"),
    [
        ("helm_theme=dark", ' data-theme="dark"'),
        ("helm_theme=light", ' data-theme="light"'),
        ('helm_theme="><script>', ""),
        ("helm_theme=", ""),
        ("of{another=1; helm_theme=dark", ' data-theme="dark"'),
    ],
)
async def test_colours_as_the_user_chose(client: TestClient, cookie: str, attribute: str) -> None:
    text = await (await client.get("/helm/", headers={**ADMIN, "Cookie": cookie})).text()
    assert f'<html lang="en"{attribute}>' in text


async def test_a_part_is_a_part_of_the_page(client: TestClient) -> None:
    part = await (await client.get("/helm/?part=services", headers=ADMIN)).text()
    page = await (await client.get("/helm/", headers=ADMIN)).text()
    assert re.match('<div class="helm-stack" data-live-tag="[0-9a-f]{24}" data-live-part="services"', part)
    assert "<html" not in part
    assert (await client.get("/helm/?part=nosuch", headers=ADMIN)).status == 404
    assert re.sub(r"<time.*?</time>", "", part).strip() in re.sub(r"<time.*?</time>", "", page)


async def test_files_are_kept_for_good_and_change_their_names(client: TestClient, tmp_path: Path) -> None:
    url = Assets().url("helm.css")
    plain = await client.get(url, headers={"Accept-Encoding": "identity"})
    assert plain.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert plain.headers["Content-Type"] == "text/css; charset=utf-8"
    assert await plain.read() == (STATIC / "helm.css").read_bytes()
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        async with session.get(client.make_url(url), headers={"Accept-Encoding": "gzip"}) as packed:
            assert gzip.decompress(await packed.read()) == (STATIC / "helm.css").read_bytes()
    assert (await client.get("/helm/static/helm.css")).status == 404
    (tmp_path / "helm.css").write_text("a {}")
    assert Assets(tmp_path).url("helm.css") != url


@pytest.mark.parametrize(
    "accept", ["*/*", "application/json", "text/html, application/json", "application/problem+json", ""]
)
async def test_programs_get_problem_documents(client: TestClient, accept: str) -> None:
    answer = await client.get("/helm/nosuch", headers={"Accept": accept})
    assert answer.status == 404 and answer.content_type == "application/problem+json"


async def test_errors_are_pages_for_browsers_and_escaped(client: TestClient) -> None:
    answer = await client.get("/helm/broken", headers={"Accept": "text/html"})
    text = await answer.text()
    assert answer.status == 500 and answer.content_type == "text/html"
    assert 'href="/helm/docs/problems/failed"' in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text and "<script>" not in text
    assert "helmctl &lt;b&gt;" in text and "&lt;i&gt;line&lt;/i&gt;" in text
    assert answer.headers["X-Correlation-ID"] in text
    refused = await client.post("/helm/broken", headers={"Accept": "text/html"})
    assert refused.status == 405 and refused.headers["Allow"] == "GET, HEAD"
