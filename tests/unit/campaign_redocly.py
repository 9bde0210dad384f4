"""The OpenAPI document, checked by Redocly's linter with its recommended rules.

Not among the tests that run without a name (it needs npm and Node.js): ``scripts/campaign document``.
"""

import json
import subprocess
from pathlib import Path

import pytest

from tests.unit.test_openapi import DOCUMENT

REDOCLY = "@redocly/cli@2.77.0"


@pytest.fixture(scope="module")
def redocly(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("redocly")
    install = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(place), REDOCLY]
    subprocess.run(install, check=True, timeout=300)
    return place / "node_modules/.bin/redocly"


def test_redocly_finds_nothing(redocly: Path, tmp_path: Path) -> None:
    written = tmp_path / "openapi.json"
    written.write_text(json.dumps(DOCUMENT))
    lint = [str(redocly), "lint", str(written), "--format=json"]
    checked = subprocess.run(lint, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert checked.returncode == 0, checked.stderr
    assert json.loads(checked.stdout)["problems"] == []
