#!/usr/bin/python3
"""Runs a Python program and notes the replies that it gets from helmd by http.client, which urllib uses, too.

``noting.py -c PROGRAM`` or ``noting.py FILE``, each with the program's own arguments. When it ends, the last line on
stderr has the replies as JSON: ``[method, path, status, content type, body]`` each, of alike ones `MOST`. Needs only
the standard library.
"""

from __future__ import annotations

import atexit
import http.client
import json
import runpy
import socket
import sys
from collections import Counter
from typing import Any

MARK = "replies noted: "
MOST = 20
"""Replies to keep of one method, path and status."""
PORT = 5004

_replies: list[list[Any]] = []
_kept: Counter[tuple[str, str, int]] = Counter()


class NotingResponse(http.client.HTTPResponse):
    """A response that is noted once it was read at one go."""

    noted: tuple[str, str] | None = None
    """Method and path of the request, if it went to helmd."""

    def read(self, amt: int | None = None) -> bytes:
        body = super().read() if amt is None else super().read(amt)
        if amt is None and self.noted is not None and body:
            key = (*self.noted, self.status)
            _kept[key] += 1
            if _kept[key] <= MOST:
                kind = self.headers.get_content_type()
                _replies.append([*key, kind, body.decode(errors="replace")])
            self.noted = None
        return body


def _note_requests() -> None:
    plain_request, plain_response = http.client.HTTPConnection.putrequest, http.client.HTTPConnection.getresponse

    def putrequest(self: Any, method: str, url: str, *given: Any, **named: Any) -> None:
        self.noted = (method, url.partition("?")[0])
        plain_request(self, method, url, *given, **named)

    def getresponse(self: Any) -> http.client.HTTPResponse:
        helmd = self.port == PORT or (self.sock is not None and self.sock.family == socket.AF_UNIX)
        answer = plain_response(self)
        if helmd and isinstance(answer, NotingResponse):
            answer.noted = self.noted
        return answer

    http.client.HTTPConnection.putrequest = putrequest  # type: ignore[method-assign]
    http.client.HTTPConnection.getresponse = getresponse  # type: ignore[method-assign]
    http.client.HTTPConnection.response_class = NotingResponse


def _say() -> None:
    print(f"\n{MARK}{json.dumps(_replies)}", file=sys.stderr)


if __name__ == "__main__":
    _note_requests()
    atexit.register(_say)
    if sys.argv[1] == "-c":
        program = sys.argv[2]
        sys.argv[:] = ["-c", *sys.argv[3:]]
        exec(compile(program, "<program>", "exec"), {"__name__": "__main__"})
    else:
        del sys.argv[0]
        runpy.run_path(sys.argv[0], run_name="__main__")
