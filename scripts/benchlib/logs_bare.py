"""An aiohttp server that only parses and counts entries, as the upper limit. Prints its port."""

import asyncio
import json

from aiohttp import web


async def ingest(request: web.Request) -> web.Response:
    count = len(json.loads(await request.read())["logs"])
    return web.json_response({"success": True, "ingested": count, "message": ""})


async def main() -> None:
    application = web.Application(client_max_size=32 << 20)
    application.router.add_post("/api/logs/ingest", ingest)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
