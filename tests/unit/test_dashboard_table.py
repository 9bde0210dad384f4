"""The table of docs/dashboard.md: whatever it promises has a test."""

import ast
import re
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
PAGES = {
    "Every page", "Overview", "Logs", "Service", "Metrics", "Security", "Modules", "Apps", "Users", "Audit", "Errors",
}  # fmt: skip
"""Pages that must be there."""


def rows() -> list[tuple[str, str, str, str]]:
    lines = re.findall(
        r"^\| (.+?) \| (.+?) \| (.+?) \| (\S+) \|$", (TOP / "docs/dashboard.md").read_text(), re.MULTILINE
    )
    return [line for line in lines if line[0] not in ("page", "---")]


def named_in(path: Path) -> set[str]:
    return {
        node.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def test_every_row_has_its_test() -> None:
    found = rows()
    assert len(found) == len(set(found)) > 3
    wrong = []
    for page, element, _, evidence in found:
        name, _, test = evidence.partition("::")
        if not (TOP / name).is_file() or test not in named_in(TOP / name) or not test.startswith("test_"):
            wrong.append(f"{page}, {element}: {evidence}")
    assert not wrong


def test_every_line_of_the_table_is_read_and_every_page_is_there() -> None:
    text = (TOP / "docs/dashboard.md").read_text()
    assert len(rows()) == sum(line.startswith("|") for line in text.splitlines()) - 2
    assert {page for page, *_ in rows()} >= PAGES
