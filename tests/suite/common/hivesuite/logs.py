"""Log output of a service: JSON records, and access lines in the three formats that the real services use.

Records up to WARNING go to stdout; errors, which carry their traceback in the same line, and access lines go to
stderr. Every line is flushed as it is written.
"""

from __future__ import annotations

import json
import logging
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from enum import Enum
from typing import TextIO

from aiohttp import web
from aiohttp.abc import AbstractAccessLogger

correlation_id: ContextVar[str] = ContextVar("correlation_id", default="")

ACCESS_LOGGER = "access"


class AccessStyle(Enum):
    """The format of access log lines."""

    LOGGING = "logging"
    """`INFO:werkzeug:127.0.0.1 - - [23/Nov/2026 06:10:38] "GET / HTTP/1.1" 200 -`, as Core does."""
    WERKZEUG = "werkzeug"
    """The same without the logging prefix, as Codex, Ledger and KnowledgeTree do."""
    COMBINED = "combined"
    """The combined log format, as gunicorn under Nexus does."""


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created, UTC)
        entry: dict[str, object] = {
            "timestamp": when.isoformat(timespec="microseconds").replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "module": record.module,
            "function": record.funcName,
            "line": record.lineno,
        }
        if request := correlation_id.get():
            entry["correlation_id"] = request
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry)


class AccessLog(AbstractAccessLogger):
    """Writes access lines; aiohttp passes the style as the log format."""

    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        now = datetime.now(UTC)
        style = AccessStyle(self.log_format)
        protocol = f"HTTP/{request.version.major}.{request.version.minor}"
        line = f'"{request.method} {request.path_qs} {protocol}" {response.status}'
        if style is AccessStyle.COMBINED:
            referer = request.headers.get("Referer", "-")
            agent = request.headers.get("User-Agent", "-")
            when = now.strftime("%d/%b/%Y:%H:%M:%S +0000")
            self.logger.info(
                '%s - - [%s] %s %d "%s" "%s"', request.remote, when, line, response.body_length, referer, agent
            )
            return
        prefix = "INFO:werkzeug:" if style is AccessStyle.LOGGING else ""
        self.logger.info("%s%s - - [%s] %s -", prefix, request.remote, now.strftime("%d/%b/%Y %H:%M:%S"), line)


def configure_logs(mode: str) -> logging.Logger:
    """Set up logging, with level DEBUG in development mode; return the service's logger."""
    below_error = _stream(sys.stdout, JsonFormatter())
    below_error.addFilter(lambda record: record.levelno < logging.ERROR)
    errors = _stream(sys.stderr, JsonFormatter())
    errors.setLevel(logging.ERROR)
    logging.basicConfig(level=logging.INFO, handlers=[below_error, errors])

    access = logging.getLogger(ACCESS_LOGGER)
    access.propagate = False
    access.addHandler(_stream(sys.stderr, logging.Formatter("%(message)s")))

    log = logging.getLogger("app")
    log.setLevel(logging.DEBUG if mode == "development" else logging.INFO)
    return log


def _stream(target: TextIO, formatter: logging.Formatter) -> logging.StreamHandler[TextIO]:
    handler = logging.StreamHandler(target)
    handler.setFormatter(formatter)
    return handler
