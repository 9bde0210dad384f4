"""Reading a request's body, with limits on size, encoding and time."""

import asyncio
from http import HTTPStatus

from aiohttp import HttpVersion11, web

from helmd.web.http.problems import RequestRefusedError

READ_SECONDS = 10.0
"""Time limit in seconds from the end of the headers to the end of the body."""

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def body_size(request: web.Request, limit: int) -> int:
    """Return the maximum size of the body: its Content-Length, or LIMIT.

    Raises RequestRefusedError for a body that is larger than LIMIT (413), or in a content encoding (415).
    """
    if request.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
        sentence = "a body is taken without a content encoding only"
        raise RequestRefusedError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "content_encoding", sentence, {"Accept-Encoding": "identity"}
        )
    size = limit if request.content_length is None else request.content_length
    if size > limit:
        raise _too_large(limit)
    return size


async def receive_body(request: web.Request, limit: int) -> bytes:
    """Return the body.

    A client that asked whether to send it (``Expect: 100-continue``) is answered now, and not before. Raises
    RequestRefusedError as `body_size`, and for one that comes too slowly (408) or is not validly encoded (400).
    """
    body_size(request, limit)
    body = bytearray()
    try:
        async with asyncio.timeout(READ_SECONDS):
            if request.get("expect") is not None and request.version == HttpVersion11 and request.can_read_body:
                await request.writer.write(_CONTINUE)
                request.writer.output_size = 0  # of the response, which has not begun
            async for part in request.content.iter_any():
                body += part
                if len(body) > limit:
                    raise _too_large(limit)
    except TimeoutError:
        sentence = f"the body did not come within {READ_SECONDS:g} s"
        raise RequestRefusedError(HTTPStatus.REQUEST_TIMEOUT, "request_timeout", sentence) from None
    except web.RequestPayloadError:
        raise RequestRefusedError(HTTPStatus.BAD_REQUEST, "bad_request", "the body is not validly encoded") from None
    return bytes(body)


def _too_large(limit: int) -> RequestRefusedError:
    size = f"{limit >> 20} MiB" if limit >= 1 << 20 else f"{limit} bytes"
    return RequestRefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too_large", f"a body may have at most {size}")
