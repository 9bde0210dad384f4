"""The page by which helmd sees what the gateway adds to pages: it holds nothing but a text."""

from aiohttp import web

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Helm</title>
</head>
<body>
<p>{marker}</p>
</body>
</html>
"""


class ProbePage:
    """The handler.

    MARKER is the text; it must need no escaping. Scripts on this page, whoever added them, are not run.
    """

    def __init__(self, marker: str) -> None:
        self._page = _PAGE.format(marker=marker)

    async def show(self, request: web.Request) -> web.StreamResponse:
        """GET /page-probe"""
        return web.Response(text=self._page, content_type="text/html")
