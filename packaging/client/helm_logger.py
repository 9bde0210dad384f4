"""Sends a service's log entries to HiveMatrix Helm. One file to copy into the service; Python 3.8 or later.

    logger = HelmLogger("codex", "http://localhost:5004")
    logger.info("started", context={"version": "1.0"})

    logging.getLogger().addHandler(HelmLogHandler("codex", "http://localhost:5004"))

A call puts the entry into a queue and returns. A thread sends what waits: at 10 entries, or 5 seconds after the first.
No call raises or waits for the network, except flush() and shutdown(), which wait as long as they are told to. Needs
the standard library only; where `requests` is installed, it does the sending, to the same effect.
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
"""Entries of a request when more than a batch waits, as after an outage."""
BATCH_BYTES = 512 * 1024
"""A request's size, unless one entry alone is larger: proxies often take no more than 1 MiB."""
QUEUE_BYTES = 16 * 1024 * 1024
MESSAGE_LIMIT = 1024 * 1024
"""Characters of a message that are sent; Helm keeps no more."""
ENTRY_LIMIT = 8 * 1024 * 1024
CONTEXT_REST = 8192
DEPTH, NODES = 20, 10_000
ANSWER_LIMIT = 65536

TOKEN_LIFE = 300.0
"""Seconds; for a token that does not tell its own."""
FIRST_PAUSE, LONGEST_PAUSE, LEAST_PAUSE = 0.5, 30.0, 0.1
LONGEST_RETRY_AFTER = 300.0
EXIT_ATTEMPTS = 3
TELL_AFTER = 3
"""Failures in a row before stderr is told: a restart of Helm is not worth a line in every service."""

REFUSED = (400, 403, 413, 415, 422)
"""Answers that will not change when the same batch comes again."""
TRACE_FIELDS = ("trace_id", "correlation_id", "request_id", "otelTraceID")
_RECORD_FIELDS = frozenset(vars(logging.LogRecord("", 0, "", 0, "", (), None))) | {"message", "asctime", "taskName"}
_LEVELS = ((50, "CRITICAL"), (40, "ERROR"), (30, "WARNING"), (20, "INFO"))
_TOKEN = re.compile(r"[\x21-\x7e]+")
_formatter = logging.Formatter()
_here = threading.local()


class HelmLogger:
    """Sends entries to Helm under the name of one service. Safe in threads, signal handlers and forked children.

    ``batch_size`` entries, or those waiting ``interval`` seconds, make a request. At most ``queue_size`` entries wait;
    beyond that the oldest are dropped, and a later entry says how many. ``timeout`` (seconds) is for each network
    operation. ``core_url`` is where tokens come from, the environment's CORE_SERVICE_URL unless given; with neither,
    requests carry no token.
    """

    def __init__(
        self,
        service_name: str,
        helm_url: str = HELM_URL,
        *,
        batch_size: int = 10,
        interval: float = 5.0,
        queue_size: int = 10_000,
        timeout: float = 5.0,
        core_url: str | None = None,
    ) -> None:
        self.service_name = str(service_name)
        self._url = str(helm_url).rstrip("/") + "/api/logs/ingest"
        self._core_url = core_url
        self._batch_size = max(1, batch_size)
        self._interval = interval
        self._queue_size = max(1, queue_size)
        self._timeout = timeout
        self._hostname = socket.gethostname()
        self._closed = False
        self._token: _Token | None = None
        self._begin()
        if hasattr(os, "register_at_fork"):
            itself = weakref.ref(self)

            def in_child() -> None:
                logger = itself()
                if logger is not None:
                    logger._begin()

            os.register_at_fork(after_in_child=in_child)
        atexit.register(self.shutdown)

    def _begin(self) -> None:
        """The state of a process in which nothing waits; also a forked child's.

        There the thread is gone, the locks may be held for ever, the connection is the parent's, and what waits is
        for the parent to send.
        """
        self._lock = threading.RLock()  # reentrant: a signal handler or a finalizer may log in the midst of a call
        # A lock used as a bell: unlike Condition and Event it may be rung by a signal handler while it is being rung.
        self._bell = threading.Lock()
        self._random = random.Random()  # noqa: S311 - jitter; the service's own sequence stays as it is
        self._post = _RequestsPost() if requests else _PlainPost()
        self._thread: threading.Thread | None = None
        self._starting = False
        self._queue: collections.deque[_Waiting] = collections.deque()
        self._queue_bytes = 0
        self._added = 0
        self._flight: _Batch | None = None
        self._flushes: list[_Flush] = []
        self._flush_to = 0
        self._nudged = False
        self._stop_at: float | None = None
        self._failures = 0
        self._sent = 0
        self._dropped = 0
        self._untold: collections.Counter[str] = collections.Counter()
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
        """Sends what waits, now, and waits up to ``timeout`` seconds for it; whether none of it waits any longer."""
        if _is_sender():
            return False
        with self._lock:
            flush = _Flush(self._added, threading.Event())
            if self._is_settled(flush.target):
                return True
            if not self._closed:
                self._start()
            if self._thread is None or not self._thread.is_alive():
                return False
            self._flushes.append(flush)
            self._flush_to = max(self._flush_to, flush.target)
            self._nudged = True
        self._ring()
        flush.done.wait(timeout)
        with self._lock:
            if flush in self._flushes:
                self._flushes.remove(flush)
            return self._is_settled(flush.target)

    def shutdown(self, timeout: float = 5.0) -> None:
        """Sends what waits and ends the thread, within ``timeout`` seconds. Runs by itself when the interpreter exits.

        With Helm away it gives up after a few attempts. Entries logged later are dropped.
        """
        if _is_sender():
            return
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._stop_at = time.monotonic() + timeout
            self._nudged = True
            self._failures = 0
            thread = self._thread
        atexit.unregister(self.shutdown)
        self._ring()
        if thread is not None and thread.is_alive():
            thread.join(timeout)
        else:  # none could be started, or none was yet in this child: late in an exit that is no longer possible
            self._run()
        left = self.status()["waiting"]
        if left:
            self._say(f"{left} entries were not sent: {self._last_error or 'no time was left'}")

    def status(self) -> dict[str, Any]:
        """Of this process: entries ``waiting``, ``sent``, ``dropped``, and why the last attempt failed."""
        with self._lock:
            waiting = len(self._queue) + (len(self._flight.entries) if self._flight else 0)
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
        if _is_sender():  # a handler of the service's own passes on what HTTP libraries say while they send for us
            return
        # The entry becomes text here, not in the thread: later its values may have changed, or have lost the
        # request that they belong to. They are the service's own objects, so anything may be raised.
        try:
            entry = _entry(level, message, context, trace_id, user_id, created)
            entry["hostname"] = self._hostname
            entry["process_id"] = process_id or os.getpid()
            self._enqueue(_encode_within_limit(entry))
        except Exception:  # noqa: BLE001 - what goes wrong with a log entry must not stop the service
            self._count_dropped("it could not be made into text")

    def _enqueue(self, text: bytes) -> None:
        with self._lock:
            if self._closed:
                self._drop("the logger was shut down")
                return
            self._queue.append(_Waiting(text, time.monotonic()))
            self._queue_bytes += len(text)
            self._added += 1
            while len(self._queue) > self._queue_size or (self._queue_bytes > QUEUE_BYTES and len(self._queue) > 1):
                self._queue_bytes -= len(self._queue.popleft().text)
                self._drop("the queue was full")
            waiting = len(self._queue)
            self._start()
        if waiting in (1, self._batch_size):
            self._ring()

    def _drop(self, why: str, entries: int = 1) -> None:
        self._dropped += entries
        self._untold[why] += entries

    def _count_dropped(self, why: str) -> None:
        with self._lock:
            self._drop(why)

    def _start(self) -> None:
        """Sees that the thread runs; it is begun with the first entry, so that a forked child has its own."""
        if self._starting or (self._thread is not None and self._thread.is_alive()):
            return
        self._starting = True
        try:
            thread = threading.Thread(target=self._run, name=f"{THREAD_NAME}-{self.service_name}", daemon=True)
            thread.start()
            self._thread = thread
        except RuntimeError:  # no more threads: the next entry tries again, and shutdown() does without
            pass
        finally:
            self._starting = False

    def _ring(self) -> None:
        with contextlib.suppress(RuntimeError):  # it rings already
            self._bell.release()

    def _is_settled(self, target: int) -> bool:
        """Whether none of the first ``target`` entries waits any longer."""
        flying = self._flight is not None and self._flight.first <= target
        return not flying and self._added - len(self._queue) >= target

    def _run(self) -> None:
        _here.sending = True
        try:
            while True:
                batch = self._next_batch()
                if batch is None or not self._deliver(batch):
                    return
        finally:
            _here.sending = False
            self._post.close()
            with self._lock:
                for flush in self._flushes:
                    flush.done.set()

    def _next_batch(self) -> _Batch | None:
        """Waits until a batch is due; None when the logger is shut down and nothing waits."""
        while True:
            with self._lock:
                if self._flight is not None:
                    return self._flight
                pause = -1.0
                if self._queue:
                    pause = self._queue[0].since + self._interval - time.monotonic()
                    hurry = self._closed or self._added - len(self._queue) < self._flush_to
                    if hurry or pause <= 0 or len(self._queue) >= self._batch_size:
                        self._flight = self._take()
                        return self._flight
                elif self._closed:
                    return None
            self._bell.acquire(timeout=min(pause, threading.TIMEOUT_MAX))

    def _take(self) -> _Batch:
        first = self._added - len(self._queue) + 1
        entries: list[bytes] = []
        size = 0
        while self._queue and len(entries) < MAX_BATCH:
            size += len(self._queue[0].text)
            if entries and size > BATCH_BYTES:
                break
            entries.append(self._queue.popleft().text)
        self._queue_bytes = self._queue_bytes - sum(map(len, entries)) if self._queue else 0
        told, self._untold = self._untold, collections.Counter()
        sent = [self._notice(told), *entries] if told else entries
        name = _encode(self.service_name)
        body = b'{"service_name":' + name + b',"logs":[' + b",".join(sent) + b"]}"
        return _Batch(first, entries, told, body, uuid.uuid4().hex)

    def _notice(self, told: collections.Counter[str]) -> bytes:
        count = sum(told.values())
        message = f"helm_logger dropped {count} log {'entry' if count == 1 else 'entries'}"
        entry = _entry("WARNING", message, {"dropped": count, "reasons": dict(told)}, None, None, None)
        return _encode({**entry, "hostname": self._hostname, "process_id": os.getpid()})

    def _deliver(self, batch: _Batch) -> bool:
        """Tries until Helm has stored or refused the batch; False when there is no time left for that."""
        while True:
            try:
                outcome = self._attempt(batch)
            except Exception as problem:  # noqa: BLE001 - an unforeseen one must not end the thread
                outcome = _Outcome("later", f"{type(problem).__name__}: {problem}")
            if outcome.result != "later":
                self._settle(batch, outcome)
                return True
            with self._lock:
                self._last_error = outcome.reason
                self._failures += 1
                failures = self._failures
            if failures == TELL_AFTER and not self._closed:
                self._say(f"log entries wait, and are sent later: {outcome.reason}")
            if not self._pause(failures, outcome.retry_after):
                return False

    def _settle(self, batch: _Batch, outcome: _Outcome) -> None:
        with self._lock:
            first_refusal = outcome.result == "refused" and outcome.reason != self._last_error
            self._flight = None
            self._failures = 0
            self._last_error = outcome.reason
            if outcome.result == "refused":
                self._untold.update(batch.told)
                self._drop(outcome.reason, len(batch.entries))
            else:
                self._sent += len(batch.entries)
            for flush in [flush for flush in self._flushes if self._is_settled(flush.target)]:
                self._flushes.remove(flush)
                flush.done.set()
        if first_refusal:
            self._say(f"log entries are dropped: {outcome.reason}")

    def _pause(self, failures: int, retry_after: float | None) -> bool:
        """Waits before the next attempt; False when the logger is shut down and shall not wait.

        A flush or shutdown ends it, but not a wait that the server asked for.
        """
        longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(failures - 1, 16))
        begun = time.monotonic()
        end = begun + (self._random.uniform(longest / 2, longest) if retry_after is None else retry_after)
        while True:
            with self._lock:
                if self._nudged and retry_after is None:
                    self._nudged = False
                    end = min(end, begun + LEAST_PAUSE)
                if self._stop_at is not None and (self._failures >= EXIT_ATTEMPTS or end >= self._stop_at):
                    return False
            left = end - time.monotonic()
            if left <= 0:
                return True
            self._bell.acquire(timeout=left)

    def _time_left(self) -> float:
        if self._stop_at is None:
            return self._timeout
        return max(0.1, min(self._timeout, self._stop_at - time.monotonic()))

    def _attempt(self, batch: _Batch) -> _Outcome:
        headers = {"Idempotency-Key": batch.key}
        try:
            token = self._bearer()
            answer = self._send(self._url, batch.body, headers, token)
            if answer.status == 401 and token:
                self._token = None
                answer = self._send(self._url, batch.body, headers, self._bearer())
        except _TryLaterError as problem:
            return _Outcome("later", str(problem), problem.retry_after)
        except (OSError, http.client.HTTPException, ValueError) as problem:
            return _Outcome("later", f"Helm can't be reached: {type(problem).__name__}: {problem}")
        if 200 <= answer.status < 300:
            return _Outcome("stored", "")
        reason = f"Helm answered {answer.status}{_sentence(answer.body)}"
        if answer.status in REFUSED:
            return _Outcome("refused", reason)
        if answer.status == 401 and not token:
            reason += " (no token is sent, since CORE_SERVICE_URL is not set)"
        return _Outcome("later", reason, answer.retry_after)

    def _send(self, url: str, body: bytes, headers: Mapping[str, str], token: str | None) -> _Answer:
        whole = {"Content-Type": "application/json", "User-Agent": "helm_logger", "Accept": "application/json"}
        whole.update(headers)
        if token:
            whole["Authorization"] = f"Bearer {token}"
        return self._post(url, body, whole, self._time_left())

    def _bearer(self) -> str | None:
        """The service's token for Helm, renewed when a fifth of its life is left; None without a Core to ask."""
        core = self._core_url or os.environ.get("CORE_SERVICE_URL")
        if not core:
            return None
        now = time.monotonic()
        kept = self._token
        if kept is not None and now < kept.renew_at:
            return kept.text
        try:
            self._token = self._new_token(core.rstrip("/") + "/service-token")
        except _TryLaterError:
            if kept is None or now >= kept.ends_at:
                raise
            self._token = kept._replace(renew_at=now + 10.0)
        return self._token.text

    def _new_token(self, url: str) -> _Token:
        body = _encode({"calling_service": self.service_name, "target_service": "helm"})
        asked = time.monotonic()
        try:
            answer = self._send(url, body, {}, None)
        except (OSError, http.client.HTTPException, ValueError) as problem:
            raise _TryLaterError(f"Core can't be reached for a token: {type(problem).__name__}: {problem}") from None
        if answer.status != 200:
            reason = f"Core gave no token: it answered {answer.status}{_sentence(answer.body)}"
            raise _TryLaterError(reason, answer.retry_after)
        try:
            text = json.loads(answer.body)["token"]
        except (ValueError, KeyError, TypeError):
            text = None
        if not isinstance(text, str) or not _TOKEN.fullmatch(text):
            raise _TryLaterError("Core gave no token: its answer has none")
        life = _life(text)
        return _Token(text, asked + life * 0.8, asked + life)

    def _say(self, text: str) -> None:
        try:
            line = "".join(char if char.isprintable() else "?" for char in f"helm_logger: {self.service_name}: {text}")
            print(line, file=sys.stderr, flush=True)
        except Exception:  # noqa: BLE001, S110 - stderr may be closed or be anything that the service put there
            pass


class HelmLogHandler(logging.Handler):
    """Sends the records of Python's logging to Helm, through a HelmLogger given or made from the arguments.

    A record's extra fields go into the context, with its logger, place and exception. ``trace_id`` (or
    ``correlation_id``, ``request_id``, OpenTelemetry's ``otelTraceID``) and ``user_id`` are the entry's own; a
    dictionary named ``context`` is merged. The message is the record's own, whatever formatter is set (basicConfig sets
    one): what it would add has fields, and a line that the service also prints is known to be the same.
    """

    def __init__(
        self,
        service_name_or_logger: str | HelmLogger,
        helm_url: str = HELM_URL,
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
        # Without the handler's lock, which logging.shutdown() holds while it waits in flush(). And what HTTP libraries
        # say while a HelmLogger sends would make it send that, and so on for ever; also if it is another copy's.
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
        except Exception:  # noqa: BLE001 - the record's values are the service's own objects
            self.logger._count_dropped("it could not be made into text")

    def _message(self, record: logging.LogRecord, context: dict[str, Any]) -> str:
        try:
            return record.getMessage()
        except Exception:  # noqa: BLE001 - arguments that do not fit the message are an everyday mistake
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
        """Shuts the HelmLogger down if it was made here."""
        if self._owned:
            self.logger.shutdown()
        super().close()


class _Waiting(NamedTuple):
    text: bytes
    since: float


class _Batch(NamedTuple):
    """A request, made once: sent again it is the same, key and all, so that Helm stores it once."""

    first: int
    entries: list[bytes]
    told: collections.Counter[str]
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


class _Answer(NamedTuple):
    status: int
    retry_after: float | None
    body: bytes


class _TryLaterError(Exception):
    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class _PlainPost:
    """POSTs by http.client over kept connections. Follows no redirect and uses no proxy: requests carry a token."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str], http.client.HTTPConnection] = {}

    def __call__(self, url: str, body: bytes, headers: Mapping[str, str], timeout: float) -> _Answer:
        parts = urlsplit(url)
        place = (parts.scheme, parts.netloc)
        connection = self._kept.pop(place, None)
        if connection is not None:
            try:
                return self._exchange(connection, place, url, body, headers, timeout)
            except (ConnectionError, http.client.BadStatusLine):
                pass  # the server has closed it meanwhile; a new one decides
        return self._exchange(self._connection(url, timeout), place, url, body, headers, timeout)

    def _connection(self, url: str, timeout: float) -> http.client.HTTPConnection:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("its URL is none of http or https")
        if parts.scheme == "https":
            return http.client.HTTPSConnection(
                parts.hostname, parts.port, timeout=timeout, context=ssl.create_default_context()
            )
        return http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout)

    def _exchange(
        self,
        connection: http.client.HTTPConnection,
        place: tuple[str, str],
        url: str,
        body: bytes,
        headers: Mapping[str, str],
        timeout: float,
    ) -> _Answer:
        keep = False
        try:
            if connection.sock is not None:
                connection.sock.settimeout(timeout)
            connection.request("POST", urlsplit(url).path, body, dict(headers))
            response = connection.getresponse()
            text = response.read(ANSWER_LIMIT)
            keep = response.isclosed() and not response.will_close
            return _Answer(response.status, _retry_after(response.getheader("Retry-After")), text)
        finally:
            if keep:
                self._kept[place] = connection
            else:
                connection.close()

    def close(self) -> None:
        while self._kept:
            self._kept.popitem()[1].close()


class _RequestsPost:
    """POSTs by requests, told to behave as _PlainPost: its own ways with .netrc would even replace the token."""

    def __init__(self) -> None:
        self._session: Any = None

    def __call__(self, url: str, body: bytes, headers: Mapping[str, str], timeout: float) -> _Answer:
        if self._session is None:
            self._session = requests.Session()
            self._session.trust_env = False
            paths = ssl.get_default_verify_paths()
            self._session.verify = paths.cafile or paths.capath or True
        with self._session.post(
            url, data=body, headers=headers, timeout=timeout, allow_redirects=False, stream=True
        ) as response:
            text = next(response.iter_content(ANSWER_LIMIT), b"")
            return _Answer(response.status_code, _retry_after(response.headers.get("Retry-After")), text)

    def close(self) -> None:
        if self._session is not None:
            self._session.close()


def _is_sender() -> bool:
    return getattr(_here, "sending", False)


def _retry_after(value: str | None) -> float | None:
    """Seconds to wait by a Retry-After header, a number or a date; None where it says nothing sensible."""
    if not value:
        return None
    if re.fullmatch(r"[0-9]{1,9}", value.strip()):
        seconds = float(value)
    else:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (TypeError, ValueError, IndexError, OverflowError):
            return None
    return min(max(seconds, LEAST_PAUSE), LONGEST_RETRY_AFTER)


def _sentence(body: bytes) -> str:
    """What an answer says in words, for people; empty if nothing."""
    try:
        said = json.loads(body).get("error")
    except (ValueError, AttributeError, RecursionError):
        return ""
    return f": {said[:200]}" if isinstance(said, str) else ""


def _life(token: str) -> float:
    """Seconds between a token's iat and exp. Its clock is Core's, which need not be this host's."""
    try:
        part = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
        life = float(claims["exp"] - claims["iat"])
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, RecursionError):
        return TOKEN_LIFE
    return life if 0 < life < 86400 else TOKEN_LIFE


def _entry(
    level: str, message: object, context: Any, trace_id: Any, user_id: Any, created: float | None
) -> dict[str, Any]:
    try:
        moment = datetime.now(timezone.utc) if created is None else datetime.fromtimestamp(created, timezone.utc)
    except (TypeError, ValueError, OverflowError, OSError):
        moment = datetime.now(timezone.utc)
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
        "timestamp": moment.isoformat(timespec="microseconds").replace("+00:00", "Z"),
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
        rest = context[:CONTEXT_REST].decode("utf-8", "ignore")
        text = _encode({**entry, "context": {"context_length": len(context), "context_begin": rest}})
    if len(text) > ENTRY_LIMIT:
        raise ValueError("the entry is too large")
    return text


def _encode(value: Any) -> bytes:
    """JSON of anything at all; what JSON has no form for becomes text."""
    try:
        text = json.dumps(value, default=_readable, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except Exception:  # noqa: BLE001 - NaN, a circle, a key that is no text, a value whose own methods raise
        plain = _plain(value, DEPTH, [NODES])
        text = json.dumps(plain, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    try:
        return text.encode()
    except UnicodeEncodeError:  # lone surrogates, which no UTF-8 has
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()


def _readable(value: Any) -> Any:
    if isinstance(value, (set, frozenset, collections.deque)):
        return list(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (datetime, date, clock)):
        return value.isoformat()
    return _text(value)


def _plain(value: Any, depth: int, room: list[int]) -> Any:
    """The value in dictionaries, lists, texts and numbers, at most so deep and as large as there is room for."""
    room[0] -= 1
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, (str, int, float)):
        try:
            json.dumps(value, allow_nan=False)
        except ValueError:  # NaN, or an integer of more digits than Python writes
            return _text(value)
        return value
    if depth <= 0 or room[0] <= 0:
        return _text(value)[:1000]
    if isinstance(value, Mapping):
        return {_text(key): _plain(item, depth - 1, room) for key, item in list(value.items()) if room[0] > 0}
    if isinstance(value, (list, tuple, set, frozenset, collections.deque)):
        return [_plain(item, depth - 1, room) for item in list(value) if room[0] > 0]
    return _text(value)


def _text(value: object) -> str:
    if type(value) is str:
        return value
    try:
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    except Exception:  # noqa: BLE001 - __str__ is the service's, and may raise what it likes
        return f"<{type(value).__name__} that has no text>"
