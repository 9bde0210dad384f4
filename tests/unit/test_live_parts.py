"""Live updates of a page: what has not changed is not sent again, and sixty services fit into the budgets."""

import gzip
import random
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import aiohttp
import pytest
from aiohttp.test_utils import TestClient, TestServer

from helmd.model.metrics.summaries import DayShare, MinuteValues
from helmd.model.suite.service import Registry, Service
from helmd.model.units.status import Status
from helmd.operations.monitoring.service_history import ServiceHistory, ServiceRecord
from helmd.web.auth.roles import Role
from helmd.web.pages.assets import Assets
from helmd.web.pages.overview import OverviewPage, OverviewSources
from helmd.web.pages.rendering import Renderer
from helmd.web.route import Route
from helmd.web.server import application
from tests.unit.test_pages import ADMIN, EveryRole, status

NAMES = [f"service-{number:02}" for number in range(60)]
SUITE = Registry(
    {
        name: Service(name, url=f"http://localhost:{5000 + at}", description=f"Keeps {at} books")
        for at, name in enumerate(NAMES)
    }
)


class Sixty:
    """Sixty services that run, each with its own figures and history."""

    trouble = ""

    def __init__(self) -> None:
        self.random = random.Random(7)
        self.now = datetime.now(UTC)
        self.found = {name: self.measured(replace(status(name), started_at=self.now)) for name in NAMES}
        self.history = self.recorded()

    def measured(self, one: Status) -> Status:
        return replace(one, cpu_percent=self.random.random() * 9, memory_mb=80 + self.random.random() * 90)

    def statuses(self) -> dict[str, Status]:
        return self.found

    def status(self, name: str) -> Status:
        return self.found[name]

    def recorded(self) -> dict[str, ServiceRecord]:
        minutes = tuple(int(self.now.timestamp()) - 60 * back for back in range(60, 0, -1))
        days = {
            self.now.date() - timedelta(days=back): DayShare(0.97 if back % 7 == 0 else 1, 1, None)
            for back in range(90)
        }

        def series() -> MinuteValues:
            return MinuteValues(minutes, tuple(self.random.random() for _ in minutes))

        levels = {"ERROR": 2, "WARNING": 3}
        return {name: ServiceRecord(levels, self.now, 1, series(), series(), days) for name in NAMES}

    async def records(self) -> dict[str, ServiceRecord]:
        return self.history


class Reader:
    """A page that is kept up to date, as live.js does it. ``bytes`` is the size of the last answer, compressed."""

    def __init__(self, session: aiohttp.ClientSession, client: TestClient) -> None:
        self._session = session
        self._client = client
        self.status = self.bytes = 0
        self.tag = ""

    async def get(self, path: str) -> str:
        headers = {**ADMIN, "Accept-Encoding": "gzip", "If-None-Match": f'"{self.tag}"'}
        async with self._session.get(self._client.make_url(path), headers=headers) as answer:
            body = await answer.read()
            self.status, self.bytes = answer.status, len(body)
            text = (gzip.decompress(body) if answer.headers.get("Content-Encoding") == "gzip" else body).decode()
        found = re.search(r'data-live-tag="([^"]+)" data-live-part="services"', text)
        self.tag = found[1] if found else self.tag
        return text


@asynccontextmanager
async def reader_of(source: Sixty) -> AsyncIterator[Reader]:
    assets = Assets()
    renderer = Renderer(assets)
    history: ServiceHistory = source  # type: ignore[assignment]
    page = OverviewPage(source, lambda: SUITE, None, renderer, OverviewSources(history=history))
    table = (
        Route("GET", "/", page.show, Role.CLIENT, "overview"),
        Route("GET", r"/static/{digest:[0-9a-f]+}/{name:[A-Za-z0-9./-]+}", assets.serve, Role.PUBLIC, "files"),
    )
    async with (
        TestClient(TestServer(application(table, EveryRole(), renderer=renderer))) as client,
        aiohttp.ClientSession(auto_decompress=False) as session,
    ):
        yield Reader(session, client)


@pytest.fixture
def sixty() -> Sixty:
    return Sixty()


async def test_an_update_has_only_the_rows_that_changed(sixty: Sixty) -> None:
    async with reader_of(sixty) as page:
        whole = await page.get("/helm/")
        size, nodes = page.bytes, len(re.findall(r"<[a-z]", whole))
        assert whole.count("data-row>") == 60 and "data-live-same" not in whole
        assert nodes < 2900, "budget: 3,000 with what scripts add"
        await page.get("/helm/?part=services")
        assert (page.status, page.bytes) == (304, 0)
        sixty.found["service-07"] = replace(sixty.found["service-07"], state="failed", health_message="exit code 1")
        text = await page.get("/helm/?part=services")
        assert text.count("data-live-same") == 59 and text.count("data-row>") == 1
        assert "exit code 1" in text and "service-07 has failed" in text
        assert page.bytes < size / 6
        await page.get("/helm/?part=services")
        assert page.status == 304
        # All are measured again.
        sixty.found = {name: sixty.measured(one) for name, one in sixty.found.items()}
        text = await page.get("/helm/?part=services")
        assert text.count("data-row>") == 60 and page.bytes < size
        # A service is gone, another has come: neither is left where the other was.
        del sixty.found["service-11"]
        text = await page.get("/helm/?part=services")
        assert text.count("data-live-same") == 59 and "service-11" not in text


async def test_who_has_an_unknown_tag_gets_all(sixty: Sixty) -> None:
    async with reader_of(sixty) as page:
        for tag in ("", "nosuch", '"; x', "W/"):
            page.tag = tag
            text = await page.get("/helm/?part=services")
            assert page.status == 200 and text.count("data-row>") == 60 and "data-live-same" not in text


async def test_old_tags_are_forgotten(sixty: Sixty, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("helmd.web.pages.live_parts._MOST_TAGS", 3)
    async with reader_of(sixty) as page:
        await page.get("/helm/")
        first = page.tag
        for number in range(3):
            sixty.found["service-01"] = replace(sixty.found["service-01"], health_message=f"answered {number}")
            await page.get("/helm/?part=services")
        page.tag = first
        assert "data-live-same" not in await page.get("/helm/?part=services")
