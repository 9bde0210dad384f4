"""docs/api.md against the code: routes, roles, error codes, fields and parameters."""

import ast
import re
from collections.abc import Iterator
from dataclasses import fields
from http import HTTPStatus
from pathlib import Path
from typing import Any, cast, get_args
from unittest.mock import Mock

from helmd.model.api.jobs import (
    MAX_REASON,
    MAX_SERVICES,
    ActionsBody,
    ControlBody,
    JobReply,
    JobResultReply,
    JobStepReply,
    StepOutcome,
)
from helmd.model.api.logs import DEFAULT_LIMIT, MAX_LIMIT
from helmd.model.config.schema import HELM_SETTINGS
from helmd.model.jobs.control import CONFIRMED
from helmd.model.jobs.record import JOB_STATES
from helmd.model.logs.entry import LogRow
from helmd.model.logs.filter import log_filter_of
from helmd.model.problems import PROBLEMS
from helmd.model.units.status import Status
from helmd.operations.jobs.directory import KEPT_JOBS, KEPT_SECONDS
from helmd.operations.jobs.engine import MAX_RUNNING
from helmd.operations.lifecycle.steps import StepKind
from helmd.web.api.ingest import MAX_BODY
from helmd.web.route import Route
from helmd.web.table import whole_table

TOP = Path(__file__).resolve().parents[2]
DOCUMENT = (TOP / "docs/api.md").read_text()


def section(title: str) -> str:
    """Return the text below a heading, up to the next heading of its level or above."""
    heading = re.search(rf"^(#+) {re.escape(title)}$", DOCUMENT, re.MULTILINE)
    assert heading, title
    return re.split(rf"^#{{1,{len(heading[1])}}} ", DOCUMENT[heading.end() :], maxsplit=1, flags=re.MULTILINE)[0]


def rows(text: str) -> list[list[str]]:
    """Return the cells of the table rows in TEXT, heads and rules left out."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    rules = {index for index, row in enumerate(cells) if set("".join(row)) <= set("- ")}
    return [row for index, row in enumerate(cells) if index not in rules and index + 1 not in rules]


def names(cell: str) -> list[str]:
    """Return what is in backticks."""
    return re.findall(r"`([^`]+)`", cell)


def table() -> list[Route]:
    return list(whole_table(cast(Any, Mock())))


def test_every_route_is_documented_with_its_role() -> None:
    documented = {
        (method, names(path)[0]): (role, {word for word in re.split(r",\s*", also) if word}, peer)
        for method, path, role, also, peer, _ in rows(section("Routes"))
    }
    served = {
        (route.method, re.sub(r"\{(\w+):[^}]*\}", r"{\1}", route.path)): (
            route.role.value,
            {word for word in ("services", "anonymous") if getattr(route, word)},
            "login" if route.recent_login else "checked" if route.checked else "any",
        )
        for route in table()
    }
    assert documented == served


def codes_in_handlers() -> Iterator[tuple[str, int]]:
    """Yield codes that handlers state beside a status, without an error of their own."""
    for path in (TOP / "helmd/web").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            for status, code in zip(node.args, node.args[1:], strict=False):
                if (
                    isinstance(status, ast.Attribute)
                    and isinstance(status.value, ast.Name)
                    and status.value.id == "HTTPStatus"
                    and isinstance(code, ast.Constant)
                    and isinstance(code.value, str)
                ):
                    yield code.value, int(HTTPStatus[status.attr])


def test_every_error_code_is_documented_with_its_status() -> None:
    documented = {names(code)[0]: (int(status), meaning) for code, status, meaning in rows(section("Errors"))}
    assert documented == {code: (int(kind.status), kind.meaning) for code, kind in PROBLEMS.items()}
    stated = dict(codes_in_handlers())
    assert "rate_limited" in stated, "the codes in handlers are not found any more"
    assert stated == {code: int(PROBLEMS[code].status) for code in stated}


def test_every_field_of_a_status_is_documented() -> None:
    documented = [name for row in rows(section("Services")) for name in names(row[0])]
    assert sorted(documented) == sorted(field.name for field in fields(Status))


def test_every_field_of_a_job_is_documented() -> None:
    fields_of_a_job, _, _ = section("Jobs").partition("`GET /api/jobs/{id}/log`")
    documented = [name for row in rows(fields_of_a_job) for name in names(row[0])]
    assert sorted(documented) == sorted(field.name for field in fields(JobReply))
    (steps,) = [row[2] for row in rows(fields_of_a_job) if row[0] == "`steps`"]
    kinds = get_args(StepKind)
    assert kinds == get_args(StepOutcome)
    assert set(names(steps)) == {field.name for field in fields(JobStepReply)} | set(kinds)
    (result,) = [row[2] for row in rows(fields_of_a_job) if row[0] == "`result`"]
    assert set(names(result)) == {field.name for field in fields(JobResultReply)}
    (states,) = [row[2] for row in rows(fields_of_a_job) if row[0] == "`state`"]
    assert tuple(names(states)) == JOB_STATES


def test_bodies_of_starts_and_actions_are_documented() -> None:
    text = section("Starting and stopping")
    assert [name for row in rows(text) for name in names(row[0])] == [field.name for field in fields(ControlBody)]
    assert {field.name for field in fields(ActionsBody)} <= set(re.findall(r'"(\w+)"', text))
    assert f"at most {MAX_SERVICES} names" in text and f"at most {MAX_REASON} characters" in text
    assert {f"`{name}`" for name in CONFIRMED} <= set(re.findall(r"`\w+`", rows(text)[-1][2]))
    jobs = section("Jobs")
    assert (
        f"The last {KEPT_JOBS} jobs of {KEPT_SECONDS / 86400:.0f} days" in jobs and f"at most {MAX_RUNNING} run" in jobs
    )


def test_every_field_of_an_entry_is_documented() -> None:
    entry, _, filters = section("Reading log entries").partition("### Filters")
    assert filters
    documented = [name for row in rows(entry) for name in names(row[0])]
    assert sorted(documented) == sorted(["id", *LogRow._fields])


class Asked(dict[str, str]):
    """Parameters that note which ones were looked for."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def get(self, name: str, default: Any = None) -> Any:
        self.names.add(name)
        return default


def test_every_filter_is_documented() -> None:
    asked = Asked()
    log_filter_of(asked)
    documented = {name for row in rows(section("Filters")) for name in names(row[0])}
    assert documented == asked.names


def test_figures() -> None:
    assert f"| `limit` | {DEFAULT_LIMIT} | entries per page, at most {MAX_LIMIT:,} |" in DOCUMENT
    assert f"{MAX_BODY >> 20} MiB" in section("Posting")


def test_settings_that_are_named_exist() -> None:
    settings = {setting.key for setting in HELM_SETTINGS}
    tables = {name.partition(".")[0] for name in settings}
    named = [name.partition(" ")[0] for name in names(DOCUMENT) if re.match(r"[a-z]+\.[a-z_.]+( =|$)", name)]
    named = [name for name in named if name.partition(".")[0] in tables]
    assert named
    assert [name for name in named if name not in settings] == []


def test_columns_of_the_tables_exist() -> None:
    created = "".join(path.read_text() for path in sorted((TOP / "helmd/store/migrations").glob("*.sql")))
    for name, columns in rows(section("Database")):
        found = re.search(rf"^CREATE TABLE {names(name)[0]} \((.*?)^\)", created, re.MULTILINE | re.DOTALL)
        assert found, name
        assert [
            column for column in names(columns) if not re.search(rf"^ +{column} ", found.group(1), re.MULTILINE)
        ] == []
