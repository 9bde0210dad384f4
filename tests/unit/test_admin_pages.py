"""Pages for those who run the suite: metrics, security, jobs; and the words of error pages."""

import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from helmd.model.api.apps import AppBody, AppsReply
from helmd.model.api.backups import BackupBody, BackupList, BackupRunBody
from helmd.model.api.jobs import JobReply, JobResultReply, JobStepReply
from helmd.model.api.modules import AvailableModule, InstallModuleBody, ModuleBody
from helmd.model.api.security import FirewallStatus, SecurityAuditReply
from helmd.model.config.settings import Settings
from helmd.model.errors import HelmError, UsageError
from helmd.model.jobs.record import JOB_STATES
from helmd.model.layout import layout
from helmd.model.modules.check import UpdateCheck
from helmd.model.modules.plan import Commit
from helmd.model.modules.record import VERSION_STATES, HistoryEntry, ModuleRecord, Version
from helmd.model.problems import PROBLEMS
from helmd.model.security.acceptance import acceptance_of
from helmd.model.security.findings import SEVERITIES, security_finding
from helmd.model.security.listeners import DeclaredPort, OpenEnd
from helmd.model.security.report import AuditFacts, audit_reply, with_acceptances
from helmd.model.suite.service import Registry, Service
from helmd.model.units.health import UNHEALTHY, UNKNOWN
from helmd.operations.backup.kept import backups_listed
from helmd.operations.diagnostics.latest import Glance
from helmd.operations.modules.shown import module_body, plan_reply
from helmd.web.api.modules import installed_name
from helmd.web.auth.roles import Role
from helmd.web.pages.assets import Assets
from helmd.web.pages.error_words import Remedy, error_words, remedy_of
from helmd.web.pages.jobs import JOB_LOOKS, JobPages, job_context, jobs_context
from helmd.web.pages.metrics import RANGES, MetricsPage, metrics_context
from helmd.web.pages.modules import VERSION_LOOKS, ModulePages, apps_context, modules_context
from helmd.web.pages.rendering import Renderer
from helmd.web.pages.security import LOOKS, SecurityPage, port_rows, security_context
from helmd.web.route import Route
from helmd.web.server import application
from tests.fakes import Statuses
from tests.unit.test_module_plan import PLAN as OF_DESK
from tests.unit.test_pages import ADMIN, GATEWAY, EveryRole, status

NOW = datetime(2026, 11, 28, 15, 0, tzinfo=UTC)
UID = 1000
HIGH = security_finding(
    "wide-binding", "core 5000", "core listens on <b>0.0.0.0</b>", ["<script>"], "Bind it, then: helmctl restart core"
)
LOW = security_finding("anonymous-ingest", "ingest.anonymous", "everybody may post", ["helm.toml"], "Set it")
SOCKETS = [
    OpenEnd("tcp", "0.0.0.0", 5000, UID, "hivematrix-core.service", UID),
    OpenEnd("tcp", "0.0.0.0", 443, UID, "hivematrix-nexus.service", UID),
    OpenEnd("tcp", "::", 443, UID, "hivematrix-nexus.service", UID),
    OpenEnd("tcp", "127.0.0.1", 9000, UID, "hivematrix-ledger.service", UID),
    OpenEnd("tcp", "0.0.0.0", 22, 0, "ssh.service"),
]


NO_FIREWALL = FirewallStatus(None, None, ())


def declared(port: int, service: str, *, local: bool = True, encrypted: bool = False) -> DeclaredPort:
    return DeclaredPort(port, service, frozenset({f"hivematrix-{service}.service"}), local, encrypted, "x")


DECLARED = [declared(5000, "core"), declared(443, "nexus", local=False, encrypted=True), declared(5030, "ledger")]


def audit(firewall: FirewallStatus = NO_FIREWALL) -> SecurityAuditReply:
    reply = audit_reply(AuditFacts(NOW, 2.0, [HIGH, LOW], SOCKETS, DECLARED, firewall, ["updates: failed"]), UID)
    return with_acceptances(reply, {LOW.id: acceptance_of(LOW, "<i>known</i>", NOW + timedelta(days=9), "hive", NOW)})


def test_the_services_that_use_most_are_chosen() -> None:
    given = {name: replace(status(name), cpu_percent=use) for name, use in (("a", 1.0), ("b", 3.0), ("c", None))}
    given["d"] = replace(status("d", "failed"), cpu_percent=0.5)
    context = metrics_context(given, 15.0)
    assert [each.name for each in context.services] == ["a", "b", "c", "d"]
    assert context.chosen == ["b", "a", "d"]
    assert [each.note for each in context.services] == ["", "", "", "failed"]
    assert metrics_context({}, 15.0).chosen == []
    assert RANGES[0].seconds == 900 and RANGES[-1].seconds == 396 * 86_400, "from minutes to 13 months"


def test_findings_that_are_accepted_stand_apart() -> None:
    context = security_context(audit(), "http://localhost:5004/helm/security")
    assert [each.finding.id for each in context.open_findings] == [HIGH.id]
    assert [each.finding.id for each in context.accepted_findings] == [LOW.id]
    assert context.headline.text == "1 finding: 1 high" and context.score == 85
    assert context.open_findings[0].fix == Remedy("Bind it", "helmctl restart core")
    assert set(LOOKS) == set(SEVERITIES)
    well = security_context(audit_reply(AuditFacts(NOW, 1.0, []), UID), "")
    assert (well.headline.tone, well.score) == ("ok", 100)


def test_before_the_first_audit_and_when_none_can_be_made() -> None:
    assert security_context(None, "", running=True).headline.text == "The first audit is being made"
    failed = security_context(None, "", failure=HelmError("no suite"))
    assert (failed.headline.tone, failed.headline.text, failed.score) == ("warn", "No audit could be made", None)


def test_ports_against_the_declaration() -> None:
    found = {(row.port, row.group): row for row in port_rows(audit(FirewallStatus(True, "ufw", (443,))))}
    assert list(found) == [
        (5000, "wrong"), (9000, "wrong"), (443, "suite"), (5030, "suite"), (22, "other"),
    ]  # fmt: skip
    core, ledger, nexus = found[5000, "wrong"], found[9000, "wrong"], found[443, "suite"]
    assert core.tone == "error" and "firewall" in core.verdict and core.reach == "other machines"
    assert (ledger.tone, ledger.verdict, ledger.reach) == ("warn", "not declared for ledger", "this machine")
    assert (nexus.verdict, nexus.addresses) == ("as declared", "0.0.0.0, ::") and "keeps others out" in nexus.reach
    assert found[5030, "suite"].verdict == "declared, nobody listens"
    assert (found[22, "other"].verdict, found[22, "other"].unit) == ("not of the suite", "ssh.service")


@pytest.mark.parametrize(
    ("text", "words", "command"),
    [
        ("helmctl keycloak setup", "", "helmctl keycloak setup"),
        ("Start it: helmctl start keycloak", "Start it", "helmctl start keycloak"),
        ("Move it away, then: helmctl apply; helmctl restart x", "Move it away", "helmctl apply; helmctl restart x"),
        ("chmod 600 '/home/a b'", "", "chmod 600 '/home/a b'"),
        ("helmctl apply writes x again; then: helmctl restart y", "helmctl apply writes x again", "helmctl restart y"),
        ("sudo gpasswd -d a docker; or move the suite", "sudo gpasswd -d a docker; or move the suite", ""),
        ("helmctl why core says how it is.", "helmctl why core says how it is", ""),
        ("Log in again.", "Log in again", ""),
    ],
)
def test_commands_are_found_in_what_is_to_be_done(text: str, words: str, command: str) -> None:
    assert remedy_of(text) == Remedy(words, command)


@pytest.mark.parametrize("code", PROBLEMS)
def test_every_error_has_a_title_and_something_to_do(code: str) -> None:
    said = error_words(code, int(PROBLEMS[code].status), "", correlation="c-1")
    assert said.title[0].isupper() and said.title not in ("Internal Server Error", "") and "!" not in said.title
    assert said.steps or code == "not_found"


def test_words_of_errors() -> None:
    away = error_words("keycloak_away", 503, "Start it: helmctl start keycloak")
    assert [step.command for step in away.steps] == ["helmctl start keycloak", "helmctl dashboard"] and away.again
    inside = error_words("internal", 500, "", correlation="c-1")
    assert inside.steps[-1].command == "helmctl logs helm -g c-1"
    user = error_words("store", 503, "See: helmctl doctor", runs_it=False)
    assert [step.text for step in user.steps] == ["Report it to your administrator, with the id below"]
    assert error_words("a_new_one", 409, "").title == "Conflict"


def job(state: str = "failed", **facts: object) -> JobReply:
    steps = (
        JobStepReply("core", "in_progress", "starts", "", 0.0, "", (), NOW),
        JobStepReply("core", "failed", "exit code 1 <b>", "start_failed", 1.5, "", (), NOW),
    )
    result = JobResultReply(1, "start_failed", "core: exit code 1", "See: helmctl why core", ("<i>x</i>",))
    made = JobReply(
        "20261128-150000-abcdef", "start", "core", "failed", "core: exit code 1", steps, NOW, NOW,
        NOW + timedelta(seconds=2), "ada", "session", "192.0.2.7", "<u>why</u>", result, "hivematrix-job-x.service",
    )  # fmt: skip
    return replace(made, state=state, **facts)  # type: ignore[arg-type]


BACKUPS = BackupList((BackupBody("a.age", NOW, 1 << 20),), "/b", "age1", "daily", BackupRunBody(NOW, True, "a.age", ""))


def test_jobs() -> None:
    assert set(JOB_LOOKS) == set(JOB_STATES)
    running = job("running", ended_at=None, result=None)
    context = jobs_context([running, job()], BACKUPS)
    assert (context.running, context.verified) == (1, "a.age")
    assert [(row.seconds, row.sentence) for row in context.jobs] == [
        (None, "core: exit code 1"),
        (2.0, "core: exit code 1"),
    ]
    assert [(each.step.kind, each.tone) for each in job_context(job()).steps] == [("failed", "error")]
    failed = replace(BACKUPS, last=BackupRunBody(NOW, False, "", "the disk is full"))
    assert jobs_context([], failed).verified == ""
    assert jobs_context([job("queued", steps=(), step="", result=None)], failed).jobs[0].sentence.startswith("waits")


async def test_jobs_are_listed_where_the_backups_can_t_be(tmp_path: Path) -> None:
    class Engine:
        async def jobs(self) -> list[SimpleNamespace]:
            return [SimpleNamespace(reply=job())]

    (directory := tmp_path / "<i>backups").write_text("a file")
    account, settings = layout({}, tmp_path, UID, tmp_path), Settings(backup_directory=str(directory))
    engine: object = Engine()
    renderer = Renderer(assets := Assets())
    pages = JobPages(engine, lambda: backups_listed(account, settings), renderer)  # type: ignore[arg-type]
    table = (
        Route("GET", "/jobs", pages.list, Role.ADMIN, "x"),
        Route("GET", "/static/{digest}/{name:.+}", assets.serve, Role.PUBLIC, "x"),
    )
    async with TestClient(TestServer(application(table, EveryRole(), renderer=renderer))) as client:
        answer = await client.get("/helm/jobs", headers=ADMIN)
        text = await answer.text()
    assert answer.status == 200 and "core: exit code 1" in text
    assert "&lt;i&gt;backups can&#39;t be read: Not a directory." in text and "Back up now" not in text


RECORD = ModuleRecord(
    "codex", "https://git.example.org/codex.git", "main", "4" * 40, "20261128T150000Z-444444444444", True,
    "<b>fair</b>",
    versions=(
        Version("20261127T150000Z-333333333333", "3" * 40, "kept", 1.0, served_at=2.0),
        Version("20261128T150000Z-444444444444", "4" * 40, "active", 3.0, served_at=4.0),
    ),
    history=(HistoryEntry(1.0, "install", "done", by="ada"), HistoryEntry(3.0, "update", "<i>evil</i>", downtime=2.5)),
)  # fmt: skip
PLAN = replace(
    OF_DESK, name="codex", before="4" * 40, after="5" * 40, ref="main", behind=34, migrate="<i>migrate</i>",
    commits=(Commit("5" * 40, "<i>subject</i>", "<i>author</i>", 1e9),), lost=(Commit("3" * 40),),
    requirements=tuple(f"+<i>{each}</i>" for each in range(23)), obstacles=("no <i>space</i>",), downtimes=(2.0, 4.0),
    database="codex_db", shared_paths=("<i>uploads</i>",), effect="nexus <i>depends</i> on it",
)  # fmt: skip
CHECK = UpdateCheck(NOW.timestamp(), "<i>away</i>", NOW.timestamp(), PLAN)
BROKEN = ModuleBody("ledger", "", "", "", "", False, "", False, (), (), "the record is <u>not</u> JSON")
CATALOGUE = (
    AvailableModule("codex", "Codex", "https://x/codex.git", "", True),
    AvailableModule("tree", "KnowledgeTree", "https://x/tree.git", "", False),
)


def test_modules_with_their_versions_and_history() -> None:
    suite = Registry({"codex": Service("codex", description="Companies"), "core": Service("core", path="/srv/core")})
    statuses = {"codex": status("codex"), "core": status("core", "failed")}
    context = modules_context([module_body(RECORD), BROKEN], CATALOGUE, suite, statuses)
    codex, ledger = context.modules
    assert (codex.description, codex.state, codex.previous) == ("Companies", "healthy", "3" * 12)
    assert [each.state for each in codex.module.versions] == ["active", "kept"]
    assert [each.action for each in codex.history] == ["update", "install"] and codex.history[0].downtime == 2.5
    assert (ledger.module.trouble, ledger.state, ledger.since) == (BROKEN.trouble, "unknown", None)
    assert [each.name for each in context.available] == ["tree"]
    assert [(each.name, each.place, each.tone) for each in context.own] == [("core", "/srv/core", "error")]
    assert context.headline == "2 modules from git, 1 held" and context.checked_at is None
    plans = {"codex": plan_reply(RECORD, CHECK)}
    context = modules_context([module_body(RECORD, CHECK), BROKEN], CATALOGUE, suite, statuses, plans)
    assert context.headline == "2 modules from git, 1 with an update, 1 held"
    assert context.modules[0].update == plans["codex"] and context.checked_at == plans["codex"].checked_at
    served = replace(RECORD, commit="5" * 40)
    context = modules_context(
        [module_body(served, CHECK)], CATALOGUE, suite, statuses, {"codex": plan_reply(served, CHECK)}
    )
    assert context.modules[0].update is None and context.modules[0].module.behind_by == 0, "it was updated since"
    assert [each.why for each in context.modules] == [""]
    kept = "codex is not started: <b>recover</b> it"
    for state, message, why in (
        ("failed", kept, kept), ("stopped", kept, kept), ("stopped", "not running", ""), ("starting", "starting", ""),
    ):  # fmt: skip
        health = UNHEALTHY if state == "failed" else UNKNOWN
        statuses["codex"] = replace(status("codex", state), health=health, health_message=message)
        assert modules_context([module_body(RECORD)], (), suite, statuses).modules[0].why == why
    assert modules_context([], (), Registry({}), {}).headline == "No module from git yet"
    assert set(VERSION_LOOKS) == set(VERSION_STATES)


def app(name: str, version: str | None = "1", update: str | None = None, **facts: Any) -> AppBody:
    return replace(AppBody(name, name, name, version, update, False, True, ("helm",), "", ""), **facts)


def test_apps() -> None:
    well = apps_context(AppsReply((app("java"), app("age")), NOW, (), False))
    assert (well.tone, well.headline) == ("ok", "Everything is installed and up to date")
    assert ([each.name for each in well.leading], [each.name for each in well.packages]) == (["java"], ["age"])
    worse = apps_context(AppsReply((app("java", None), app("age", update="2", security=True)), NOW, None, True))
    assert worse.tone == "error"
    assert worse.headline == "1 app missing; 1 update, 1 of them for security; a reboot is needed"


@pytest.mark.parametrize(
    ("body", "name"),
    [
        (InstallModuleBody("codex"), "codex"),
        (InstallModuleBody("codex", name="other"), "other"),
        (InstallModuleBody("https://git.example.org/suite/hivematrix-tree.git", "v1"), "tree"),
    ],
)
def test_installing_a_module_is_a_job(body: InstallModuleBody, name: str) -> None:
    assert installed_name(body) == name


@pytest.mark.parametrize(
    "body",
    [
        InstallModuleBody("--upload-pack=x"),
        InstallModuleBody("ext::sh -c x"),
        InstallModuleBody("../codex"),
        InstallModuleBody("codex", "--upload-pack=x"),
        InstallModuleBody("https://git.example.org/a.git", name="../a"),
    ],
)
def test_what_can_never_be_installed(body: InstallModuleBody) -> None:
    with pytest.raises(UsageError):
        installed_name(body)


class LastAudit:
    """An audit that has been made."""

    async def glance(self, max_age: float) -> Glance[SecurityAuditReply]:
        return Glance(audit(FirewallStatus(False, None, ())))


class Apps:
    """A machine."""

    async def report(self) -> AppsReply:
        return AppsReply((app("java", None, command="sudo apt install <b>"), app("age", update="2")), NOW, None, False)


@asynccontextmanager
async def served(installed: Sequence[ModuleBody] = ()) -> AsyncIterator[TestClient]:
    renderer = Renderer(assets := Assets())
    audits: object = LastAudit()
    security = SecurityPage(audits, lambda: "http://localhost:5004", renderer)  # type: ignore[arg-type]
    modules = ModulePages(
        Statuses(core=True),
        lambda: Registry({"core": Service("core")}),
        lambda: installed,
        lambda: CATALOGUE,
        Apps(),
        lambda name: plan_reply(RECORD, CHECK),
        renderer,
    )
    table = (
        Route("GET", "/modules", modules.modules, Role.ADMIN, "x"),
        Route("GET", "/apps", modules.apps, Role.ADMIN, "x"),
        Route("GET", "/metrics", MetricsPage(Statuses(core=True), lambda: 15.0, renderer).show, Role.TECHNICIAN, "x"),
        Route("GET", "/security", security.show, Role.ADMIN, "x"),
        Route("GET", "/static/{digest}/{name:.+}", assets.serve, Role.PUBLIC, "x"),
    )
    async with TestClient(TestServer(application(table, EveryRole(), renderer=renderer))) as client:
        yield client


async def test_the_page_of_modules_without_any() -> None:
    async with served() as client:
        answer = await client.get("/helm/modules", headers=ADMIN)
        assert answer.status == 200 and "helmctl setup --suite" in await answer.text()


async def test_the_plan_of_an_update_as_html() -> None:
    async with served((module_body(RECORD, CHECK), BROKEN)) as client:
        text = await (await client.get("/helm/modules", headers=ADMIN)).text()
    assert "<i>" not in text
    for each in ("subject", "author", "migrate", "space", "uploads", "depends", "away"):
        assert f"&lt;i&gt;{each}&lt;/i&gt;" in text, each
    assert "&lt;i&gt;19&lt;" in text and "&lt;i&gt;20&lt;" not in text
    for said in (
        "34 behind", "34 commits, 1 that it has would be gone", "and 14 more", "and 3 more", "(was: none)",
        "about 3.0 s, by 2 updates before", "database codex_db", "data-check", "1 with an update",
    ):  # fmt: skip
        assert said in text, said
    async with served((module_body(RECORD),)) as client:
        text = await (await client.get("/helm/modules", headers=ADMIN)).text()
    assert "updates not checked" in text and "data-plan" not in text and " behind" not in text


async def test_the_pages_as_html() -> None:
    async with served((module_body(RECORD), BROKEN)) as client:
        answer = await client.get("/helm/metrics", headers=ADMIN)
        metrics = await answer.text()
        assert answer.status == 200 and 'data-chosen="core"' in metrics and 'data-interval="15.0"' in metrics
        for url in re.findall(r'src="(/helm/static/[^"]+)"', metrics):
            assert (await client.get(url)).status == 200
        security = await (await client.get("/helm/security", headers=ADMIN)).text()
        assert "&lt;script&gt;" in security and "&lt;b&gt;0.0.0.0" in security and "&lt;i&gt;known" in security
        assert "<b>" not in security and "No firewall is active" in security and "Not checked" in security
        assert "sudo helmctl security confirm" in security and "disabled" not in security
        part = await (await client.get("/helm/security?part=audit", headers=ADMIN)).text()
        assert part.strip().startswith("<div") and HIGH.id in part and part.strip() in security
        gateway = await (await client.get("/security", headers={**ADMIN, **GATEWAY})).text()
        assert "open Helm itself" in gateway and gateway.count("disabled title=") == 2
        text = await (await client.get("/helm/modules", headers=ADMIN)).text()
        assert "&lt;b&gt;fair" in text and "&lt;i&gt;evil" in text and "&lt;u&gt;not" in text and "<i>" not in text
        assert "444444444444" in text and "2.5 s without service" in text and 'data-install="tree"' in text
        apps = await (await client.get("/helm/apps", headers=ADMIN)).text()
        assert "sudo apt install &lt;b&gt;" in apps and "needrestart is not installed" in apps
