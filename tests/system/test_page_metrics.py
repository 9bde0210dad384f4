"""The page of charts in a real browser: what was posted is seen in it, and zoomed, read and copied."""

import json
import secrets
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By

from tests.system.booted import Sandbox, until
from tests.system.dashboard import Dashboard
from tests.system.test_jobs import api

HOSTILE = "<b>mail</b>\u202e"
PEAK = 977.5
FIGURES = """
const [values, done] = arguments;
const { src } = document.querySelector("script[src$='/metrics.js']");
import(src.replace("metrics.js", "chart.js")).then(({ formatValue }) => done(values.map((each) => formatValue(each))));
"""
"""How a chart writes values."""


def measured(name: str, value: float, at: float) -> dict[str, Any]:
    when = datetime.fromtimestamp(at, UTC).isoformat()
    return {"name": name, "value": value, "timestamp": when, "tags": {"queue": HOSTILE}}


@pytest.fixture(scope="module")
def posted(demo: Sandbox) -> Iterator[str]:
    """A metric of its own: 1 each half minute with one peak, then nothing for six minutes, then 1 again."""
    name, now = f"test_queue_{secrets.token_hex(4)}", time.time()
    rows = [
        measured(name, PEAK if ago == 900 else 1.0, now - ago) for ago in range(1200, 60, -30) if not 60 < ago < 420
    ]
    rows.append(measured(name, 1.0, now - 60))
    status, reply = api(demo, "POST", "/api/metrics/ingest", {"service_name": "codex", "metrics": rows})
    assert (status, reply["ingested"]) == (200, len(rows))
    # These need two measurements of a service, which has just been started where this file is the first.
    both = "SELECT count(DISTINCT service_name) FROM service_metrics WHERE metric_name = 'cpu_percent' AND"
    until(lambda: demo.sql(f"{both} service_name IN ('codex', 'core')") == "2", 60)
    yield name


def chart(name: str) -> str:
    return f'[data-chart="{name}"]'


def legend(page: Dashboard, name: str) -> list[str]:
    """The first series of a chart: its name, and last, min, mean and max."""
    return page.browser.texts(f"{chart(name)} .helm-chart__plot + table tbody tr:first-child > *")


def zoomed(page: Dashboard) -> float:
    """The seconds that the URL says."""
    given = "return ['from', 'to'].map((each) => Date.parse(new URL(location.href).searchParams.get(each)) / 1000)"
    begin, end = page.browser.run(given)
    return float(end - begin)


def test_a_peak_is_seen_at_every_range_and_a_gap_is_a_gap(dashboard: Dashboard, posted: str) -> None:
    dashboard.console_messages()
    dashboard.open("metrics?service=codex,core&range=1h", "owner")
    browser = dashboard.browser
    browser.until_there(chart(posted))
    assert {"cpu_percent", "memory_mb", "log_rate", "restarts"} <= set(
        browser.run("return [...document.querySelectorAll('[data-chart]')].map((each) => each.dataset.chart)")
    )
    assert len(browser.texts(f"{chart('cpu_percent')} tbody tr")) == 2, "several services in one chart"
    shown = legend(dashboard, posted)
    assert shown[0] == r"codex · queue=<b>mail</b>\u202e" and shown[2] == "1" and shown[4] == "978"
    browser.click(f"{chart(posted)} summary")
    browser.until_there(f"{chart(posted)} .helm-chart__all tbody tr")
    rows = browser.texts(f"{chart(posted)} .helm-chart__all tbody tr")
    assert 25 < len(rows) < 45, "a row for each point, none for the gap"
    browser.run("scrollTo(0, 0)")
    browser.click('[data-range="24h"]')
    browser.until(lambda driver: "range=24h" in driver.current_url)
    browser.until(
        lambda driver: len(driver.find_elements(By.CSS_SELECTOR, f"{chart(posted)} .helm-chart__all tr")) < 12
    )
    assert legend(dashboard, posted)[4] == "978", "the mean hides it, the band does not"
    browser.click('[data-range="13mo"]')
    browser.until(lambda driver: "range=13mo" in driver.current_url)
    browser.until_there(chart(posted))
    assert legend(dashboard, posted)[4] == "978"
    assert dashboard.console_messages() == []


def test_zoom_by_mouse_and_by_keys_with_one_cursor_for_all_charts(dashboard: Dashboard, posted: str) -> None:
    dashboard.open("metrics?service=codex&range=1h", "owner")
    browser = dashboard.browser
    browser.until_there(f"{chart(posted)} .u-over")

    def over(press: bool) -> None:
        box = browser.driver.find_element(By.CSS_SELECTOR, f"{chart('cpu_percent')} .u-over")
        chain = ActionChains(browser.driver).move_to_element_with_offset(box, -40, 0)
        if press:
            chain = chain.click_and_hold().move_by_offset(60, 0).move_by_offset(60, 0).release()
        chain.perform()

    browser.do(lambda: over(False))
    heads = (
        "return [...document.querySelectorAll('[data-chart] thead th:nth-child(2)')].map((each) => each.textContent)"
    )
    times = browser.run(heads)
    assert len(times) >= 4 and len(set(times)) == 1 and times[0] != "Last"
    browser.do(lambda: over(True))
    browser.until(lambda driver: "from=" in driver.current_url)
    by_mouse = zoomed(dashboard)
    assert 300 < by_mouse < 3000
    browser.run("history.back()")
    browser.until(lambda driver: "range=1h" in driver.current_url)
    browser.until_there(f"{chart('memory_mb')} .u-over")
    browser.run(f"document.querySelector('{chart('memory_mb')} [tabindex]').focus()")
    dashboard.press("End")
    said = browser.run("return document.querySelector('[data-metrics-spoken]').textContent")
    assert "codex" in said and ("MiB" in said or "nothing measured" in said)
    dashboard.press("Home", "Arrow_Right", "Enter", *["Arrow_Right"] * 9, "Enter")
    browser.until(lambda driver: "from=" in driver.current_url)
    assert 240 <= zoomed(dashboard) <= 360
    browser.click("[data-to-now]")
    browser.until(lambda driver: "range=" in driver.current_url)


def test_services_are_chosen_and_what_comes_is_shown_live(demo: Sandbox, dashboard: Dashboard, posted: str) -> None:
    dashboard.open("metrics?service=core&range=15m", "technician")
    browser = dashboard.browser
    browser.until_there(f"{chart('cpu_percent')} .u-over")
    assert not browser.texts(chart(posted))
    browser.click('[data-service="codex"] label')
    browser.until_there(chart(posted))
    assert "service=core,codex" in browser.url
    api(demo, "POST", "/api/metrics/ingest", {"service_name": "codex", "metrics": [measured(posted, 5.0, time.time())]})
    browser.until(
        lambda driver: driver.find_element(By.CSS_SELECTOR, f"{chart(posted)} tbody td").text.startswith("5"), 90
    )
    browser.click('[data-service="core"] label')
    browser.until(lambda driver: "service=codex" in driver.current_url)
    browser.until(lambda driver: len(driver.find_elements(By.CSS_SELECTOR, f"{chart('cpu_percent')} tbody tr")) == 1)
    browser.click('[data-service="codex"] label')
    browser.until_there("[data-metrics-empty]:not([hidden])")
    assert "Choose a service" in browser.text("[data-metrics-empty]")


def test_it_fits_and_can_be_read_by_everybody_who_may(dashboard: Dashboard, posted: str) -> None:
    dashboard.console_messages()
    dashboard.open("metrics?service=codex&range=15m", "owner")
    dashboard.browser.until_there(f"{chart(posted)} .u-over")
    dashboard.check_width()
    dashboard.screenshots("metrics")
    driver = dashboard.browser.driver
    values = [0, 0.005, 0.01, 0.015, 1.25, 12.34, 1234]
    shown = dashboard.browser.do(lambda: driver.execute_async_script(FIGURES, values))
    assert shown == ["0", "0.005", "0.01", "0.015", "1.25", "12.3", "1,234"], "lines of a chart differ in their names"
    dashboard.browser.click(f"{chart('cpu_percent')} summary")
    assert dashboard.violations() == []
    assert dashboard.console_messages() == []
    dashboard.open_behind_gateway("metrics?service=codex&range=15m", "technician")
    dashboard.browser.until_there(f"{chart('cpu_percent')} .u-over")
    assert json.loads(
        dashboard.browser.run("return JSON.stringify([...document.querySelectorAll('[data-chart]')].length)")
    )
    dashboard.log_in_as("client")
    dashboard.browser.get("http://localhost:5004/helm/metrics")
    assert "You may not open this" in dashboard.browser.text("main")
    assert "Metrics" not in dashboard.browser.texts(".helm-rail__label")
