"""The OpenAPI document as a running helmd gives it, checked by a program that others wrote."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from helmd.store.maintenance.migrate import migrate
from tests.store.conftest import Database
from tests.store.log_server import serving, token


async def test_the_document_is_valid_openapi_and_has_a_tag(database: Database, tmp_path: Path) -> None:
    await migrate(database.owner, "helm")
    async with serving(database.store, tmp_path) as served:
        status, document = await served.get("/api/openapi.json", role="client")
        assert status == 200
        program = shutil.which("openapi-spec-validator")
        assert program, "scripts/test installs it"
        file = tmp_path / "openapi.json"
        file.write_text(json.dumps(document))
        done = subprocess.run([program, str(file)], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("header", "value", "status"),
    [("If-None-Match", "{etag}", 304), ("If-None-Match", '"other"', 200), ("If-Match", "{etag}", 200),
     ("If-Match", '"other"', 412), ("Accept", "text/html", 406), ("Accept", "text/*, application/json;q=0", 406),
     ("Accept", "text/html, */*;q=0.1", 200), ("Accept", "application/*", 200)],
)  # fmt: skip
async def test_conditions_and_negotiation(
    database: Database, tmp_path: Path, header: str, value: str, status: int
) -> None:

    await migrate(database.owner, "helm")
    async with serving(database.store, tmp_path) as served:
        given = {"Authorization": f"Bearer {token('client')}"}
        async with served.session.get(served.url("/api/openapi.json"), headers=given) as answer:
            etag = answer.headers["ETag"]
        given[header] = value.format(etag=etag)
        async with served.session.get(served.url("/helm/api/openapi.json"), headers=given) as answer:
            assert answer.status == status
            if status >= 400:
                body = await answer.json(content_type=None)
                assert body["type"] == f"/helm/docs/problems/{body['code']}"
                page = await served.session.get(served.url(body["type"]))
                assert page.status == 200 and "What to do" in await page.text()
                assert "default-src 'none'" in page.headers["Content-Security-Policy"]
