"""Send a service's log entries to HiveMatrix Helm. A single file to copy into the service; Python 3.8 or later.

    logger = HelmLogger("codex", "http://localhost:5004")
    logger.info("started", context={"version": "1.0"})

    logging.getLogger().addHandler(HelmLogHandler("codex", "http://localhost:5004"))

Each call puts the entry into a queue and returns. A thread sends the queue at 10 entries, or 5 seconds after the first.
No call raises or waits for the network, except flush() and shutdown(), which wait up to their timeout. Needs the
standard library only; if `requests` is installed, it is used for HTTP, with the same behaviour.
"""

from __future__ import annotations

import atexit
import base64
import collections
import contextlib
import email.utils
import http.client
import json
import logging
import os
import random
import re
import socket
import ssl
import sys
import threading
import time
import uuid
import weakref
from datetime import date, datetime, timezone
from datetime import time as clock
from typing import Any, Mapping, NamedTuple
from urllib.parse import urlsplit

try:
    import requests
except ImportError:
    requests = None

__all__ = ["HelmLogHandler", "HelmLogger"]

HELM_URL = "http://localhost:5004"
THREAD_NAME = "helm-logger"

MAX_BATCH = 500
"""Maximum number of entries in a request if more than a batch is queued, as after an outage."""
BATCH_BYTES = 512 * 1024
"""Maximum size of a request with several entries, in bytes: proxies often accept no more than 1 MiB."""
QUEUE_BYTES = 16 * 1024 * 1024
MESSAGE_LIMIT = 1024 * 1024
"""Maximum length of a message in characters; Helm stores no more."""
ENTRY_LIMIT = 8 * 1024 * 1024
CONTEXT_PREFIX = 8192
MAX_DEPTH, MAX_NODES = 20, 10_000
RESPONSE_LIMIT = 65536

TOKEN_LIFETIME = 300.0
"""Lifetime in seconds of a token without the claims iat and exp."""
RENEWAL_PAUSE = 10.0
"""Seconds before another attempt to renew a token that is still valid."""
FIRST_PAUSE, MAX_PAUSE, MIN_PAUSE = 0.5, 30.0, 0.1
MAX_RETRY_AFTER = 300.0
EXIT_ATTEMPTS = 3
REPORT_AFTER = 3
"""Consecutive failures after which a line is written to stderr; a restart of Helm causes fewer."""

REFUSED = (400, 403, 413, 415, 422)
"""Status codes after which the same batch is not sent again."""
TRACE_FIELDS = ("trace_id", "correlation_id", "request_id", "otelTraceID")
_RECORD_FIELDS = frozenset(vars(logging.LogRecord("", 0, "", 0, "", (), None))) | {"message", "asctime", "taskName"}
_LEVELS = ((50, "CRITICAL"), (40, "ERROR"), (30, "WARNING"), (20, "INFO"))
_TOKEN = re.compile(r"[\x21-\x7e]+")
_formatter = logging.Formatter()
_thread_state = threading.local()


class HelmLogger:
    """Sends log entries of one service to Helm. Safe with threads, signal handlers and fork().

    A request is sent at ``batch_size`` entries, or ``interval`` seconds after the first. At most ``queue_size`` entries
    are queued; beyond that the oldest are dropped, and a later entry reports how many. ``timeout`` (seconds) applies to
    each network operation. Tokens are requested from ``core_url``, by default the environment's CORE_SERVICE_URL;
    without either, requests have no token.
    """

    def __init__(
        self,
        service_name: str,
        helm_url: str | None = None,
        *,
        batch_size: int = 10,
        interval: float = 5.0,
        queue_size: int = 10_000,
        timeout: float = 5.0,
        core_url: str | None = None,
    ) -> None:
        self.service_name = str(service_name)
        url = helm_url or os.environ.get("HELM_SERVICE_URL") or HELM_URL
        self._url = str(url).rstrip("/") + "/api/logs/ingest"
        self._core_url = core_url
        self._batch_size = max(1, batch_size)
        self._interval = interval
        self._queue_size = max(1, queue_size)
        self._timeout = timeout
        self._hostname = socket.gethostname()
        self._closed = False
        self._token: _Token | None = None
        self._reset()
        if hasattr(os, "register_at_fork"):
            reference = weakref.ref(self)

            def in_child() -> None:
                logger = reference()
                if logger is not None:
                    logger._reset()

            os.register_at_fork(after_in_child=in_child)
        atexit.register(self.shutdown)

    def _reset(self) -> None:
        """Initialize the state of a process; also after fork() in the child.

        There the thread does not exist, locks may be held by threads of the parent, the connection belongs to the
        parent, and queued entries are sent by the parent.
        """
        self._lock = threading.RLock()  # reentrant: a signal handler or a finalizer may log during a call
        # A lock used as an event: unlike Condition and Event it may be set by a signal handler while it is being set.
        self._wakeup = threading.Lock()
        self._random = random.Random()  # noqa: S311 - jitter; the service's random state is not changed
        self._post = _RequestsPost() if requests else _HttpClientPost()
        self._thread: threading.Thread | None = None
        self._starting = False
        self._queue: collections.deque[_QueuedEntry] = collections.deque()
        self._queue_bytes = 0
        self._added = 0
        self._in_flight: _Batch | None = None
        self._flushes: list[_Flush] = []
        self._flush_to = 0
        self._retry_now = False
        self._stop_at: float | None = None
        self._failures = 0
        self._sent = 0
        self._dropped = 0
        self._unreported: collections.Counter[str] = collections.Counter()
        self._last_error = ""

    def debug(self, message: object, context: Any = None, trace_id: Any = None, user_id: Any = None) -> None:
        self._add("DEBUG", message, context, trace_id, user_id)

    def info(self, message: object, context: Any = None, trace_id: Any = None, user_id: Any = None) -> None:
        self._add("INFO", message, context, trace_id, user_id)

    def warning(self, message: object, context: Any = None, trace_id: Any = None, user_id: Any = None) -> None:
        self._add("WARNING", message, context, trace_id, user_id)

    def error(self, message: object, context: Any = None, trace_id: Any = None, user_id: Any = None) -> None:
        self._add("ERROR", message, context, trace_id, user_id)

    def critical(self, message: object, context: Any = None, trace_id: Any = None, user_id: Any = None) -> None:
        self._add("CRITICAL", message, context, trace_id, user_id)

    def flush(self, timeout: float = 5.0) -> bool:
        """Send queued entries now and wait up to ``timeout`` seconds; return whether all of them are done."""
        if _is_sender():
            return False
        with self._lock:
            flush = _Flush(self._added, threading.Event())
            if self._is_finished(flush.target):
                return True
            if not self._closed:
                self._start()
            if self._thread is None or not self._thread.is_alive():
                return False
            self._flushes.append(flush)
            self._flush_to = max(self._flush_to, flush.target)
            self._retry_now = True
        self._wake()
        flush.done.wait(timeout)
        with self._lock:
            if flush in self._flushes:
                self._flushes.remove(flush)
            return self._is_finished(flush.target)

    def shutdown(self, timeout: float = 5.0) -> None:
        """Send queued entries and stop the thread, within ``timeout`` seconds. Called at interpreter exit.

        If Helm is unavailable, it gives up after EXIT_ATTEMPTS attempts. Entries logged later are dropped.
        """
        if _is_sender():
            return
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._stop_at = time.monotonic() + timeout
            self._retry_now = True
            self._failures = 0
            thread = self._thread
        atexit.unregister(self.shutdown)
        self._wake()
        if thread is not None and thread.is_alive():
            thread.join(timeout)
        else:  # no thread could be started, or none was yet in a forked child; at exit it is too late for that
            self._run()
        left = self.status()["waiting"]
        if left:
            entries = "1 entry was" if left == 1 else f"{left} entries were"
            self._report(f"{entries} not sent: {self._last_error or 'timed out'}")

    def status(self) -> dict[str, Any]:
        """Return this process's numbers of entries ``waiting``, ``sent`` and ``dropped``, and ``last_error``."""
        with self._lock:
            waiting = len(self._queue) + (len(self._in_flight.entries) if self._in_flight else 0)
            return {
                "waiting": waiting,
                "sent": self._sent,
                "dropped": self._dropped,
                "last_error": self._last_error,
            }

    def _add(
        self,
        level: str,
        message: object,
        context: Any,
        trace_id: Any,
        user_id: Any,
        created: float | None = None,
        process_id: int | None = None,
    ) -> None:
        if _is_sender():  # records of HTTP libraries while sending, passed on by a handler of the service
            return
        # Encoded here, not in the thread: values may change later, or depend on the current request. They are
        # objects of the service, so encoding may raise anything.
        try:
            entry = _entry(level, message, context, trace_id, user_id, created)
            entry["hostname"] = self._hostname
            entry["process_id"] = process_id or os.getpid()
            self._enqueue(_encode_within_limit(entry))
        except Exception:  # noqa: BLE001 - logging must not raise into the service
            self._count_dropped("it could not be encoded")

    def _enqueue(self, text: bytes) -> None:
        with self._lock:
            if self._closed:
                self._drop("the logger was shut down")
                return
            self._queue.append(_QueuedEntry(text, time.monotonic()))
            self._queue_bytes += len(text)
            self._added += 1
            while len(self._queue) > self._queue_size or (self._queue_bytes > QUEUE_BYTES and len(self._queue) > 1):
                self._queue_bytes -= len(self._queue.popleft().text)
                self._drop("the queue was full")
            waiting = len(self._queue)
            self._start()
        if waiting in (1, self._batch_size):
            self._wake()

    def _drop(self, why: str, entries: int = 1) -> None:
        self._dropped += entries
        self._unreported[why] += entries

    def _count_dropped(self, why: str) -> None:
        with self._lock:
            self._drop(why)

    def _start(self) -> None:
        """Start the thread if it is not running. It is started by the first entry, so that a forked child has one."""
        if self._starting or (self._thread is not None and self._thread.is_alive()):
            return
        self._starting = True
        try:
            thread = threading.Thread(target=self._run, name=f"{THREAD_NAME}-{self.service_name}", daemon=True)
            thread.start()
            self._thread = thread
        except RuntimeError:  # no more threads: retried with the next entry; shutdown() needs none
            pass
        finally:
            self._starting = False

    def _wake(self) -> None:
        with contextlib.suppress(RuntimeError):  # already set
            self._wakeup.release()

    def _is_finished(self, target: int) -> bool:
        """Whether all of the first ``target`` entries were sent or dropped."""
        in_flight = self._in_flight is not None and self._in_flight.first <= target
        return not in_flight and self._added - len(self._queue) >= target

    def _run(self) -> None:
        _thread_state.sending = True
        try:
            while True:
                batch = self._next_batch()
                if batch is None or not self._deliver(batch):
                    return
        finally:
            _thread_state.sending = False
            self._post.close()
            with self._lock:
                for flush in self._flushes:
                    flush.done.set()

    def _next_batch(self) -> _Batch | None:
        """Wait until a batch is due and return it, or None after shutdown if the queue is empty."""
        while True:
            with self._lock:
                if self._in_flight is not None:
                    return self._in_flight
                pause = -1.0
                if self._queue:
                    pause = self._queue[0].since + self._interval - time.monotonic()
                    now = self._closed or self._added - len(self._queue) < self._flush_to
                    if now or pause <= 0 or len(self._queue) >= self._batch_size:
                        self._in_flight = self._make_batch()
                        return self._in_flight
                elif self._closed:
                    return None
            self._wakeup.acquire(timeout=min(pause, threading.TIMEOUT_MAX))

    def _make_batch(self) -> _Batch:
        first = self._added - len(self._queue) + 1
        entries: list[bytes] = []
        size = 0
        while self._queue and len(entries) < MAX_BATCH:
            size += len(self._queue[0].text)
            if entries and size > BATCH_BYTES:
                break
            entries.append(self._queue.popleft().text)
        self._queue_bytes = self._queue_bytes - sum(map(len, entries)) if self._queue else 0
        reported, self._unreported = self._unreported, collections.Counter()
        sent = [self._notice(reported), *entries] if reported else entries
        name = _encode(self.service_name)
        body = b'{"service_name":' + name + b',"logs":[' + b",".join(sent) + b"]}"
        return _Batch(first, entries, reported, body, uuid.uuid4().hex)

    def _notice(self, reported: collections.Counter[str]) -> bytes:
        count = sum(reported.values())
        message = f"helm_logger dropped {count} log {'entry' if count == 1 else 'entries'}"
        entry = _entry("WARNING", message, {"dropped": count, "reasons": dict(reported)}, None, None, None)
        return _encode({**entry, "hostname": self._hostname, "process_id": os.getpid()})

    def _deliver(self, batch: _Batch) -> bool:
        """Retry until Helm has stored or refused the batch; return False if shutdown ends that."""
        while True:
            try:
                outcome = self._attempt(batch)
            except Exception as problem:  # noqa: BLE001 - an unexpected error must not end the thread
                outcome = _Outcome("later", f"{type(problem).__name__}: {problem}")
            if outcome.result != "later":
                self._finish(batch, outcome)
                return True
            with self._lock:
                self._last_error = outcome.reason
                self._failures += 1
                failures = self._failures
            if failures == REPORT_AFTER and not self._closed:
                self._report(f"log entries are queued and will be sent later: {outcome.reason}")
            if not self._pause(failures, outcome.retry_after):
                return False

    def _finish(self, batch: _Batch, outcome: _Outcome) -> None:
        with self._lock:
            first_refusal = outcome.result == "refused" and outcome.reason != self._last_error
            self._in_flight = None
            self._failures = 0
            self._last_error = outcome.reason
            if outcome.result == "refused":
                self._unreported.update(batch.reported)
                self._drop(outcome.reason, len(batch.entries))
            else:
                self._sent += len(batch.entries)
            for flush in [flush for flush in self._flushes if self._is_finished(flush.target)]:
                self._flushes.remove(flush)
                flush.done.set()
        if first_refusal:
            self._report(f"log entries are dropped: {outcome.reason}")

    def _pause(self, failures: int, retry_after: float | None) -> bool:
        """Wait before the next attempt; return False if shutdown does not allow another one.

        A flush or shutdown shortens the pause, unless it was requested by Retry-After.
        """
        longest = min(MAX_PAUSE, FIRST_PAUSE * 2.0 ** min(failures - 1, 16))
        start = time.monotonic()
        end = start + (self._random.uniform(longest / 2, longest) if retry_after is None else retry_after)
        while True:
            with self._lock:
                if self._retry_now and retry_after is None:
                    self._retry_now = False
                    end = min(end, start + MIN_PAUSE)
                if self._stop_at is not None and (self._failures >= EXIT_ATTEMPTS or end >= self._stop_at):
                    return False
            left = end - time.monotonic()
            if left <= 0:
                return True
            self._wakeup.acquire(timeout=left)

    def _time_left(self) -> float:
        if self._stop_at is None:
            return self._timeout
        return max(0.1, min(self._timeout, self._stop_at - time.monotonic()))

    def _attempt(self, batch: _Batch) -> _Outcome:
        headers = {"Idempotency-Key": batch.key}
        try:
            token = self._bearer()
            response = self._send(self._url, batch.body, headers, token)
            if response.status == 401 and token:
                self._token = None
                response = self._send(self._url, batch.body, headers, self._bearer())
        except _RetryError as problem:
            return _Outcome("later", str(problem), problem.retry_after)
        except (OSError, http.client.HTTPException, ValueError) as problem:
            return _Outcome("later", f"could not reach Helm: {type(problem).__name__}: {problem}")
        if 200 <= response.status < 300:
            return _Outcome("stored", "")
        reason = f"Helm returned {response.status}{_error_suffix(response.body)}"
        if response.status in REFUSED:
            return _Outcome("refused", reason)
        if response.status == 401 and not token:
            reason += " (sent without token, since CORE_SERVICE_URL is not set)"
        return _Outcome("later", reason, response.retry_after)

    def _send(self, url: str, body: bytes, headers: Mapping[str, str], token: str | None) -> _Response:
        all_headers = {"Content-Type": "application/json", "User-Agent": "helm_logger", "Accept": "application/json"}
        all_headers.update(headers)
        if token:
            all_headers["Authorization"] = f"Bearer {token}"
        return self._post(url, body, all_headers, self._time_left())

    def _bearer(self) -> str | None:
        """Return the service's token for Helm, renewed after 80 % of its lifetime; None if no Core is configured."""
        core = self._core_url or os.environ.get("CORE_SERVICE_URL")
        if not core:
            return None
        now = time.monotonic()
        current = self._token
        if current is not None and now < current.renew_at:
            return current.text
        try:
            self._token = self._new_token(core.rstrip("/") + "/service-token")
        except _RetryError:
            if current is None or now >= current.ends_at:
                raise
            self._token = current._replace(renew_at=now + RENEWAL_PAUSE)
        return self._token.text

    def _new_token(self, url: str) -> _Token:
        body = _encode({"calling_service": self.service_name, "target_service": "helm"})
        requested_at = time.monotonic()
        try:
            response = self._send(url, body, {}, None)
        except (OSError, http.client.HTTPException, ValueError) as problem:
            raise _RetryError(f"could not reach Core for a token: {type(problem).__name__}: {problem}") from None
        if response.status != 200:
            reason = f"Core issued no token: it returned {response.status}{_error_suffix(response.body)}"
            raise _RetryError(reason, response.retry_after)
        try:
            text = json.loads(response.body)["token"]
        except (ValueError, KeyError, TypeError):
            text = None
        if not isinstance(text, str) or not _TOKEN.fullmatch(text):
            raise _RetryError("Core issued no token: the response has none")
        lifetime = _lifetime(text)
        return _Token(text, requested_at + lifetime * 0.8, requested_at + lifetime)

    def _report(self, text: str) -> None:
        try:
            line = "".join(char if char.isprintable() else "?" for char in f"helm_logger: {self.service_name}: {text}")
            print(line, file=sys.stderr, flush=True)
        except Exception:  # noqa: BLE001, S110 - stderr may be closed or replaced by the service
            pass


class HelmLogHandler(logging.Handler):
    """Sends records of Python's logging to Helm, through the given HelmLogger or one created from the arguments.

    A record's extra fields are stored in the context, with its logger, source location and exception. ``trace_id`` (or
    ``correlation_id``, ``request_id``, OpenTelemetry's ``otelTraceID``) and ``user_id`` become the entry's fields; a
    dictionary named ``context`` is merged. Formatters are ignored (basicConfig sets one): what they add is stored in
    fields anyway, and an equal message lets Helm recognize the line if the service also prints it.
    """

    def __init__(
        self,
        service_name_or_logger: str | HelmLogger,
        helm_url: str | None = None,
        level: int | str = logging.NOTSET,
        **settings: Any,
    ) -> None:
        super().__init__(level)
        self._owned = not isinstance(service_name_or_logger, HelmLogger)
        if isinstance(service_name_or_logger, HelmLogger):
            self.logger = service_name_or_logger
        else:
            self.logger = HelmLogger(service_name_or_logger, helm_url, **settings)

    def handle(self, record: logging.LogRecord) -> Any:
        # Without the handler's lock, which logging.shutdown() holds while it waits in flush(). Records that HTTP
        # libraries log in a sending thread (also of another copy of this module) are ignored, to avoid a loop.
        if str(record.threadName).startswith(THREAD_NAME):
            return False
        passed = self.filter(record)
        if passed:
            self.emit(passed if isinstance(passed, logging.LogRecord) else record)
        return passed

    def emit(self, record: logging.LogRecord) -> None:
        try:
            fields = {key: value for key, value in vars(record).items() if key not in _RECORD_FIELDS}
            trace_id = None
            for name in TRACE_FIELDS:
                if trace_id is None and fields.get(name) is not None and _text(fields[name]) not in ("", "0"):
                    trace_id = fields.pop(name)
            user_id = fields.pop("user_id", None)
            context = self._context(record)
            given = fields.pop("context", None)
            context.update(given if isinstance(given, Mapping) else {} if given is None else {"context": given})
            context.update(fields)
            level = next((name for least, name in _LEVELS if record.levelno >= least), "DEBUG")
            if record.levelname != level:
                context.setdefault("level", record.levelname)
            message = self._message(record, context)
            self.logger._add(level, message, context, trace_id, user_id, record.created, record.process)
        except Exception:  # noqa: BLE001 - the record's values are objects of the service
            self.logger._count_dropped("it could not be encoded")

    def _message(self, record: logging.LogRecord, context: dict[str, Any]) -> str:
        try:
            return record.getMessage()
        except Exception:  # noqa: BLE001 - arguments that do not match the format are a common mistake
            context["args"] = record.args
            return _text(record.msg)

    def _context(self, record: logging.LogRecord) -> dict[str, Any]:
        context: dict[str, Any] = {
            "logger": record.name,
            "file": record.pathname,
            "line": record.lineno,
            "function": record.funcName,
        }
        if record.exc_info and record.exc_info[0] is not None:
            context["exception"] = record.exc_text or _formatter.formatException(record.exc_info)
        elif record.exc_text:
            context["exception"] = record.exc_text
        if record.stack_info:
            context["stack"] = record.stack_info
        return context

    def flush(self) -> None:
        self.logger.flush()

    def close(self) -> None:
        """Shut the HelmLogger down if this handler created it."""
        if self._owned:
            self.logger.shutdown()
        super().close()


class _QueuedEntry(NamedTuple):
    text: bytes
    since: float


class _Batch(NamedTuple):
    """A request. Retries send the same body and key, so that Helm stores it once."""

    first: int
    entries: list[bytes]
    reported: collections.Counter[str]
    body: bytes
    key: str


class _Flush(NamedTuple):
    target: int
    done: threading.Event


class _Outcome(NamedTuple):
    result: str  # "stored", "refused" or "later"
    reason: str
    retry_after: float | None = None


class _Token(NamedTuple):
    text: str
    renew_at: float
    ends_at: float


class _Response(NamedTuple):
    status: int
    retry_after: float | None
    body: bytes


class _RetryError(Exception):
    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class _HttpClientPost:
    """POST by http.client with persistent connections. Redirects and proxies are not used: requests carry a token."""

    def __init__(self) -> None:
        self._connections: dict[tuple[str, str], http.client.HTTPConnection] = {}

    def __call__(self, url: str, body: bytes, headers: Mapping[str, str], timeout: float) -> _Response:
        parts = urlsplit(url)
        origin = (parts.scheme, parts.netloc)
        connection = self._connections.pop(origin, None)
        if connection is not None:
            try:
                return self._exchange(connection, origin, url, body, headers, timeout)
            except (ConnectionError, http.client.BadStatusLine):
                pass  # closed by the server meanwhile: retry with a new connection
        return self._exchange(self._connection(url, timeout), origin, url, body, headers, timeout)

    def _connection(self, url: str, timeout: float) -> http.client.HTTPConnection:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("the URL must be http or https")
        if parts.scheme == "https":
            return http.client.HTTPSConnection(
                parts.hostname, parts.port, timeout=timeout, context=ssl.create_default_context()
            )
        return http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout)

    def _exchange(
        self,
        connection: http.client.HTTPConnection,
        origin: tuple[str, str],
        url: str,
        body: bytes,
        headers: Mapping[str, str],
        timeout: float,
    ) -> _Response:
        keep = False
        try:
            if connection.sock is not None:
                connection.sock.settimeout(timeout)
            connection.request("POST", urlsplit(url).path, body, dict(headers))
            response = connection.getresponse()
            text = response.read(RESPONSE_LIMIT)
            keep = response.isclosed() and not response.will_close
            return _Response(response.status, _retry_after(response.getheader("Retry-After")), text)
        finally:
            if keep:
                self._connections[origin] = connection
            else:
                connection.close()

    def close(self) -> None:
        while self._connections:
            self._connections.popitem()[1].close()


class _RequestsPost:
    """POST by requests, configured like _HttpClientPost; by default, .netrc would even replace the token."""

    def __init__(self) -> None:
        self._session: Any = None

    def __call__(self, url: str, body: bytes, headers: Mapping[str, str], timeout: float) -> _Response:
        if self._session is None:
            self._session = requests.Session()
            self._session.trust_env = False
            paths = ssl.get_default_verify_paths()
            self._session.verify = paths.cafile or paths.capath or True
        with self._session.post(
            url, data=body, headers=headers, timeout=timeout, allow_redirects=False, stream=True
        ) as response:
            text = next(response.iter_content(RESPONSE_LIMIT), b"")
            return _Response(response.status_code, _retry_after(response.headers.get("Retry-After")), text)

    def close(self) -> None:
        if self._session is not None:
            self._session.close()


def _is_sender() -> bool:
    return getattr(_thread_state, "sending", False)


def _retry_after(value: str | None) -> float | None:
    """Return the seconds to wait by a Retry-After header (a number or a date); None if it is missing or invalid."""
    if not value:
        return None
    if re.fullmatch(r"[0-9]{1,9}", value.strip()):
        seconds = float(value)
    else:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (TypeError, ValueError, IndexError, OverflowError):
            return None
    return min(max(seconds, MIN_PAUSE), MAX_RETRY_AFTER)


def _error_suffix(body: bytes) -> str:
    """Return the field ``error`` of a response as a suffix for messages; empty if there is none."""
    try:
        error = json.loads(body).get("error")
    except (ValueError, AttributeError, RecursionError):
        return ""
    return f": {error[:200]}" if isinstance(error, str) else ""


def _lifetime(token: str) -> float:
    """Return the seconds between a token's iat and exp, since Core's clock may differ from this host's."""
    try:
        part = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
        lifetime = float(claims["exp"] - claims["iat"])
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, RecursionError):
        return TOKEN_LIFETIME
    return lifetime if 0 < lifetime < 86400 else TOKEN_LIFETIME


def _entry(
    level: str, message: object, context: Any, trace_id: Any, user_id: Any, created: float | None
) -> dict[str, Any]:
    try:
        timestamp = datetime.now(timezone.utc) if created is None else datetime.fromtimestamp(created, timezone.utc)
    except (TypeError, ValueError, OverflowError, OSError):
        timestamp = datetime.now(timezone.utc)
    text = _text(message)
    if context is None:
        fields = {}
    elif isinstance(context, Mapping):
        fields = dict(context)
    else:
        fields = {"context": context}
    if len(text) > MESSAGE_LIMIT:
        fields["message_length"] = len(text)
        text = text[:MESSAGE_LIMIT]
    entry: dict[str, Any] = {
        "level": level,
        "message": text,
        "timestamp": timestamp.isoformat(timespec="microseconds").replace("+00:00", "Z"),
    }
    if fields:
        entry["context"] = fields
    for name, value in (("trace_id", trace_id), ("user_id", user_id)):
        if value is not None:
            entry[name] = _text(value)
    return entry


def _encode_within_limit(entry: dict[str, Any]) -> bytes:
    text = _encode(entry)
    if len(text) > ENTRY_LIMIT and "context" in entry:
        context = _encode(entry["context"])
        rest = context[:CONTEXT_PREFIX].decode("utf-8", "ignore")
        text = _encode({**entry, "context": {"context_length": len(context), "context_begin": rest}})
    if len(text) > ENTRY_LIMIT:
        raise ValueError("the entry is too large")
    return text


def _encode(value: Any) -> bytes:
    """Encode any value as JSON; values that JSON does not support become text."""
    try:
        text = json.dumps(value, default=_readable, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except Exception:  # noqa: BLE001 - NaN, a cycle, a key that is not a string, a value whose methods raise
        plain = _plain(value, MAX_DEPTH, [MAX_NODES])
        text = json.dumps(plain, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    try:
        return text.encode()
    except UnicodeEncodeError:  # lone surrogates, which UTF-8 can't encode
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()


def _readable(value: Any) -> Any:
    if isinstance(value, (set, frozenset, collections.deque)):
        return list(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (datetime, date, clock)):
        return value.isoformat()
    return _text(value)


def _plain(value: Any, depth: int, remaining: list[int]) -> Any:
    """Convert a value to dictionaries, lists, strings and numbers, limited in depth and by ``remaining[0]`` nodes."""
    remaining[0] -= 1
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, (str, int, float)):
        try:
            json.dumps(value, allow_nan=False)
        except ValueError:  # NaN, or an integer with more digits than Python converts
            return _text(value)
        return value
    if depth <= 0 or remaining[0] <= 0:
        return _text(value)[:1000]
    if isinstance(value, Mapping):
        return {_text(key): _plain(item, depth - 1, remaining) for key, item in list(value.items()) if remaining[0] > 0}
    if isinstance(value, (list, tuple, set, frozenset, collections.deque)):
        return [_plain(item, depth - 1, remaining) for item in list(value) if remaining[0] > 0]
    return _text(value)


def _text(value: object) -> str:
    if type(value) is str:
        return value
    try:
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    except Exception:  # noqa: BLE001 - __str__ belongs to the service, and may raise anything
        return f"<{type(value).__name__} without text>"
