"""Schemathesis against helmd as a process, as every role. What it does not check: schemathesis.toml."""

import asyncio
import json
import shutil
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict

from helmd.store.maintenance.migrate import migrate
from tests.campaign import scaled
from tests.free_ports import free_port
from tests.store.conftest import Database
from tests.store.test_daemon_helmd import helmd, over_unix
from tests.store.test_daemon_journal import configured
from tests.unit.core_stand_in import SERVICE, USER, signed, standing_in

WAIVERS = Path(__file__).with_name("schemathesis.toml")
SECONDS = scaled(90, 0)
"""How long each role is tested; 0 for a few examples of each route."""
SEED = "20261128"


def credential(role: str) -> list[str]:
    """Return the header with the token of a ROLE; none for "socket" and "nobody"."""
    if role in ("socket", "nobody"):
        return []
    now = int(time.time())
    if role == "service":
        claims = {**SERVICE, "sub": "service:codex", "calling_service": "codex", "exp": now + 3600}
    else:
        claims = {**USER, "preferred_username": role, "permission_level": role, "jti": role, "exp": now + 7200}
    return ["--header", f"Authorization: Bearer {signed(claims)}"]


@asynccontextmanager
async def forwarded(path: Path) -> AsyncIterator[int]:
    """Yield a TCP port whose connections go to the unix socket at PATH: whoever connects is the account itself."""
    open_ones: set[asyncio.Task[None]] = set()

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        open_ones.add(task)
        try:
            there, back = await asyncio.open_unix_connection(path)
            await asyncio.gather(copy(reader, back), copy(there, writer))
        finally:
            open_ones.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()
        for task in list(open_ones):
            task.cancel()
        await asyncio.gather(*open_ones, return_exceptions=True)


async def run(document: Path, port: int, words: Sequence[str], *, whole: bool) -> tuple[int, str]:
    """Return what Schemathesis says about helmd on PORT, which has this DOCUMENT; WHOLE with all phases."""
    program = shutil.which("schemathesis")
    assert program, "scripts/test installs it"
    words = (
        [*words] if words else ["--generation-with-security-parameters", "false", "--exclude-checks", "ignored_auth"]
    )
    if SECONDS:
        limits = ["--max-time", str(SECONDS)]
    else:
        # What it tries of each single parameter takes longest, and is the same for every role that is let in.
        phases = "examples,coverage,fuzzing,stateful" if whole else "examples,stateful"
        limits = ["--max-examples", "3", "--phases", phases]
    command = [
        program, "--config-file", str(WAIVERS), "run", str(document),
        "--url", f"http://127.0.0.1:{port}", "--seed", SEED, "--generation-database", "none",
        "--continue-on-failure", "--request-timeout", "20", "--no-color", *limits, *words,
    ]  # fmt: skip
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await process.communicate()
    return int(process.returncode or 0), said.decode()


@pytest.mark.parametrize("role", ["socket", "admin", "technician", "billing", "client", "service", "nobody"])
async def test_no_role_finds_a_fault(database: Database, tmp_path: Path, role: str) -> None:
    await migrate(database.owner, "helm")
    port, document = free_port(), tmp_path / "openapi.json"
    given = conninfo_to_dict(database.store)
    store = f"postgresql://{given['user']}@/{given['dbname']}?host={given['host']}&port={given['port']}"
    async with standing_in() as core:
        settings = f'http.port = {port}\nstore.database = "{store}"\ncore.url = "{core.url}"\n'
        configured(tmp_path, "helm.toml", settings)
        async with helmd(tmp_path), forwarded(tmp_path / "run/hivematrix/helm.sock") as by_socket:
            document.write_text(json.dumps((await over_unix(tmp_path, "/api/openapi.json"))[1]))
            status, said = await run(
                document, by_socket if role == "socket" else port, credential(role), whole=role == "socket"
            )
    assert status == 0, said
