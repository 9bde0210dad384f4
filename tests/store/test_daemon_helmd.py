"""helmd as a process: its sockets, what it starts on, and reloads that are adopted whole or not at all."""

import asyncio
import json
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from helmd.health.listeners import holder_of
from tests.free_ports import free_port
from tests.replies import faults_in_reply
from tests.store.test_daemon_journal import ROOT, Manager, configured, started
from tests.waiting import WITHIN, eventually

HELMD = (str(ROOT / "packaging/libexec/helmd"),)

SHOP = '[services.shop]\ntype = "command"\nport = 7001\nstart_command = ["sleep", "9"]\n'


@asynccontextmanager
async def helmd(home: Path, *command: str) -> AsyncIterator[tuple[Manager, asyncio.subprocess.Process]]:
    (home / "notify").unlink(missing_ok=True)
    async with started(home, *(command or HELMD)) as (manager, process):
        await manager.receive("READY=1")
        yield manager, process
        process.send_signal(signal.SIGTERM)
        _, errors = await asyncio.wait_for(process.communicate(), WITHIN)
        assert (process.returncode, "Traceback" in errors.decode()) == (0, False), errors.decode()


async def over_unix(home: Path, path: str) -> tuple[int, Any]:
    connector = aiohttp.UnixConnector(str(home / "run/hivematrix/helm.sock"))
    async with aiohttp.ClientSession(connector=connector) as session:
        async with session.get(f"http://helm{path}") as answer:
            body = await answer.text()
            assert faults_in_reply("GET", path, answer.status, answer.content_type, body) == []
            return answer.status, json.loads(body)


async def http_is(home: Path, key: str, part: str) -> bool:
    """Return whether PART is in what helmd's health says of its sockets."""
    return part in (await over_unix(home, "/health"))[1]["checks"]["http"].get(key, "")


async def over_tcp(port: int, path: str = "/health") -> int:
    async with aiohttp.ClientSession() as session:
        async with session.get(f"http://127.0.0.1:{port}{path}") as answer:
            return answer.status


async def test_a_taken_port_leaves_the_unix_socket_and_is_said(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        configured(tmp_path, "helm.toml", f"http.port = {port}\n")
        async with helmd(tmp_path) as (manager, process):
            assert f"port {port} is taken by" in await manager.receive("STATUS=")
            _, body = await over_unix(tmp_path, "/health")
            assert body["checks"]["http"]["status"] == "degraded"
            assert f"port {port} is taken by" in body["checks"]["http"]["message"]
            holder.close()
            await eventually(lambda: http_is(tmp_path, "status", "healthy"), pause=0.3)
            assert await over_tcp(port) in (200, 503)
            assert process.returncode is None


async def test_it_starts_on_the_last_good_configuration(tmp_path: Path) -> None:
    port = free_port()
    configured(tmp_path, "helm.toml", f"http.port = {port}\n")
    configured(tmp_path, "services.toml", SHOP)
    async with helmd(tmp_path):
        pass
    kept = tmp_path / ".local/state/hivematrix/last-good.json"
    assert kept.stat().st_mode & 0o777 == 0o600
    configured(tmp_path, "helm.toml", "[http\n")
    configured(tmp_path, "services.toml", SHOP + "prot = 1\n")
    async with helmd(tmp_path):
        assert await over_tcp(port) in (200, 503)
        _, body = await over_unix(tmp_path, "/health")
        assert body["checks"]["configuration"] == {"status": "degraded", "faults": 1}
        assert "shop" in (await over_unix(tmp_path, "/api/services/status"))[1]


async def test_a_reload_logs_each_fault(tmp_path: Path) -> None:
    """Those of services too, which keep their last good definitions; and none once the file is correct."""
    configured(tmp_path, "helm.toml", f"http.port = {free_port()}\n")
    configured(tmp_path, "services.toml", SHOP)
    async with started(tmp_path, *HELMD) as (manager, process):
        await manager.receive("READY=1")
        for text in (SHOP + "prot = 1\n", SHOP):
            file = configured(tmp_path, "services.toml", text)
            process.send_signal(signal.SIGHUP)
            await manager.receive("RELOADING=1")
            await manager.receive("READY=1")
        process.terminate()
        _, errors = await process.communicate()
    assert errors.decode().count(f"{file}:") == 1


KEPT = ("", "[]", "{}", '{"settings": [{"file": 1}]}', '{"settings": [{"file": "x", "text": "["}]}')


@pytest.mark.parametrize("kept", KEPT)
async def test_it_starts_whatever_was_kept(tmp_path: Path, kept: str) -> None:
    state = tmp_path / ".local/state/hivematrix"
    state.mkdir(parents=True)
    (state / "last-good.json").write_text(kept)
    configured(tmp_path, "services.toml", SHOP + "prot = 1\n")
    configured(tmp_path, "helm.toml", f"http.port = {free_port()}\n")
    async with helmd(tmp_path):
        assert (await over_unix(tmp_path, "/health"))[1]["checks"]["configuration"]["faults"] == 1


async def test_a_reload_that_fails_changes_nothing(tmp_path: Path) -> None:
    """Its sentence says so; the part that could be applied was adopted before, and the rest was not."""
    port = free_port()
    configured(tmp_path, "helm.toml", f"http.port = {port}\n")
    configured(tmp_path, "services.toml", SHOP)
    async with helmd(tmp_path) as (manager, process):
        before = list((await over_unix(tmp_path, "/api/services/status"))[1])
        with socket.create_server(("127.0.0.1", 0)) as holder:
            configured(tmp_path, "helm.toml", f"http.port = {holder.getsockname()[1]}\n")
            configured(tmp_path, "services.toml", SHOP + SHOP.replace("shop", "till").replace("7001", "7002"))
            process.send_signal(signal.SIGHUP)
            assert "reload failed: port" in await manager.receive("READY=1")
            assert list((await over_unix(tmp_path, "/api/services/status"))[1]) == before
            assert await over_tcp(port) in (200, 503)
        process.send_signal(signal.SIGHUP)
        await manager.receive("READY=1")
        assert "till" in (await over_unix(tmp_path, "/api/services/status"))[1]
        with pytest.raises(aiohttp.ClientConnectorError):
            await over_tcp(port)


async def test_it_serves_sockets_that_were_made_for_it(tmp_path: Path) -> None:
    """systemd-socket-activate(1) listens as systemd does, and starts it at the first connection."""
    port = free_port()
    configured(tmp_path, "helm.toml", f"http.port = {port}\n")
    path = tmp_path / "run/hivematrix/helm.sock"
    path.parent.mkdir(parents=True)
    handed_on = [f"--setenv={name}" for name in ("HOME", "XDG_RUNTIME_DIR", "NOTIFY_SOCKET", "PATH")]
    listening = ["systemd-socket-activate", f"--listen={path}", f"--listen=127.0.0.1:{port}", "--fdname=unix:http"]
    async with started(tmp_path, *listening, *handed_on, *HELMD) as (manager, process):
        await eventually(lambda: path.exists() and holder_of(port))
        first = asyncio.create_task(over_tcp(port))
        await manager.receive("READY=1")
        assert await first in (200, 503)
        assert (await over_unix(tmp_path, "/health"))[1]["checks"]["http"] == {"status": "healthy"}
        configured(tmp_path, "helm.toml", f"http.port = {free_port()}\n")
        process.send_signal(signal.SIGHUP)
        await manager.receive("READY=1")
        # A report is given again for a second.
        await eventually(lambda: http_is(tmp_path, "message", "helmctl apply"), pause=0.3)
        process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(process.communicate(), WITHIN)
        assert process.returncode == 0
        assert path.exists(), "it is systemd's"
