#!/usr/bin/python3
"""A module with a stolen token: makes requests for whoever asks it to, from inside its own unit.

POST /try with `{"ways": [...], "requests": [{"url", "method", "token", "cookie"}]}` answers, for each way of making
requests, the results: `[status, code]`, the code being that of a problem document; or `[0, error]`. Its `replies` are
those that it saw, of alike ones one: `[method, path, status, content type, body]`. With the word `once` it reads the
requests from stdin and prints the results. Needs only the standard library.
"""

from __future__ import annotations

import array
import http.client
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

SECONDS = 20
"""For each request."""
SELF = os.path.abspath(__file__)


seen: dict[tuple[str, str, int, str], list[object]] = {}
"""Replies, by method, path, status and code."""


def answer_of(response: http.client.HTTPResponse, asked: dict[str, str]) -> list[object]:
    body = response.read()
    try:
        code = json.loads(body).get("code", "")
    except (ValueError, AttributeError):
        code = ""
    request = (asked["method"], urlsplit(asked["url"]).path)
    kind = response.headers.get_content_type()
    seen[*request, response.status, str(code)] = [*request, response.status, kind, body.decode(errors="replace")]
    return [response.status, code]


def send(connection: http.client.HTTPConnection, asked: dict[str, str]) -> list[object]:
    headers = {"Authorization": f"Bearer {asked['token']}"} if asked.get("token") else {}
    if asked.get("cookie"):
        # As a page of the gateway's origin would make the browser send it.
        origin = "{0.scheme}://{0.netloc}".format(urlsplit(asked["url"]))
        headers |= {"Cookie": asked["cookie"], "Origin": origin, "Sec-Fetch-Site": "same-origin"}
    target = urlsplit(asked["url"]).path
    body = "{}" if asked["method"] != "GET" else None
    connection.request(asked["method"], target, body, {"Content-Type": "application/json", **headers})
    return answer_of(connection.getresponse(), asked)


def connected(asked: dict[str, str], made: socket.socket | None = None) -> http.client.HTTPConnection:
    parts = urlsplit(asked["url"])
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=SECONDS)
    if parts.scheme == "https":
        # It has no reason to care who answers.
        trusting = ssl._create_unverified_context()
        connection = http.client.HTTPSConnection(parts.hostname or "", parts.port, timeout=SECONDS, context=trusting)
    if made is not None:
        made.settimeout(SECONDS)
        made.connect((parts.hostname, parts.port))
        connection.sock = made
    return connection


def plainly(asked: dict[str, str]) -> list[object]:
    return send(connected(asked), asked)


def as_ipv6(asked: dict[str, str]) -> list[object]:
    """By an IPv6 socket to the IPv4 address."""
    parts = urlsplit(asked["url"])
    made = socket.socket(socket.AF_INET6)
    made.settimeout(SECONDS)
    made.connect((f"::ffff:{parts.hostname}", parts.port))
    connection = connected(asked)
    connection.sock = made
    return send(connection, asked)


def bound_to_loopback_interface(asked: dict[str, str]) -> list[object]:
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
    return send(connected(asked, made), asked)


def half_closed(asked: dict[str, str]) -> list[object]:
    """Sends nothing more once the request is sent."""
    connection = connected(asked)
    headers = {"Authorization": f"Bearer {asked['token']}"}
    connection.request(asked["method"], urlsplit(asked["url"]).path, "{}", headers)
    connection.sock.shutdown(socket.SHUT_WR)
    return answer_of(connection.getresponse(), asked)


def by_an_orphan(asked: dict[str, str]) -> list[object]:
    """From a process whose parents have ended."""
    program = f"import os, sys; os.fork() and os._exit(0); os.execv({sys.executable!r}, ['python3', {SELF!r}, 'once'])"
    work = json.dumps({"ways": ["plainly"], "requests": [asked]})
    done = subprocess.run([sys.executable, "-c", program], input=work, capture_output=True, text=True, timeout=SECONDS)
    result: list[object] = json.loads(done.stdout)["plainly"][0]
    return result


def by_a_passed_socket(asked: dict[str, str]) -> list[object]:
    """On a socket that another process has made."""
    here, there = socket.socketpair()
    pid = os.fork()
    if not pid:
        made = socket.create_connection((urlsplit(asked["url"]).hostname, urlsplit(asked["url"]).port))
        there.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [made.fileno()]))])
        os._exit(0)
    _, ancillary, *_ = here.recvmsg(1, socket.CMSG_SPACE(4))
    os.waitpid(pid, 0)
    connection = connected(asked)
    connection.sock = socket.socket(fileno=array.array("i", ancillary[0][2][:4])[0])
    connection.sock.settimeout(SECONDS)
    return send(connection, asked)


def without_waiting(asked: dict[str, str]) -> list[object]:
    """Closes the connection, and ends, without waiting for the answer."""
    pid = os.fork()
    if not pid:
        connection = connected(asked)
        headers = {"Authorization": f"Bearer {asked['token']}"}
        connection.request(asked["method"], urlsplit(asked["url"]).path, "{}", headers)
        os._exit(0)
    os.waitpid(pid, 0)
    return [0, "not waited for"]


def by_the_unix_socket(asked: dict[str, str]) -> list[object]:
    made = socket.socket(socket.AF_UNIX)
    made.settimeout(SECONDS)
    made.connect(f"/run/user/{os.getuid()}/hivematrix/helm.sock")
    connection = connected(asked)
    connection.sock = made
    return send(connection, asked)


def from_a_scope(asked: dict[str, str]) -> list[object]:
    """From a scope of the user manager's, for which that has to be asked."""
    run = f"/run/user/{os.getuid()}"
    environment = {**os.environ, "XDG_RUNTIME_DIR": run, "DBUS_SESSION_BUS_ADDRESS": f"unix:path={run}/bus"}
    work = json.dumps({"ways": ["plainly"], "requests": [asked]})
    command = ["systemd-run", "--user", "--scope", "--quiet", sys.executable, SELF, "once"]
    done = subprocess.run(command, input=work, capture_output=True, text=True, env=environment, timeout=SECONDS)
    if done.returncode:
        return [0, done.stderr[-200:]]
    result: list[object] = json.loads(done.stdout)["plainly"][0]
    return result


WAYS = {
    "plainly": plainly,
    "as_ipv6": as_ipv6,
    "bound_to_loopback_interface": bound_to_loopback_interface,
    "half_closed": half_closed,
    "by_an_orphan": by_an_orphan,
    "by_a_passed_socket": by_a_passed_socket,
    "without_waiting": without_waiting,
    "by_the_unix_socket": by_the_unix_socket,
    "from_a_scope": from_a_scope,
}


def attempt(way: str, asked: dict[str, str]) -> list[object]:
    try:
        return WAYS[way](asked)
    except (OSError, ValueError, LookupError, http.client.HTTPException, subprocess.SubprocessError) as error:
        return [0, f"{type(error).__name__}: {error}"]


def results(work: dict[str, Any]) -> dict[str, list[list[object]]]:
    seen.clear()
    found = {way: [attempt(way, asked) for asked in work["requests"]] for way in work["ways"]}
    return {**found, "replies": list(seen.values())}


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        work = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        body = json.dumps(results(work)).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()


if __name__ == "__main__":
    if sys.argv[1:] == ["once"]:
        print(json.dumps(results(json.load(sys.stdin))))
    else:
        server = ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler)
        threading.Thread(target=server.serve_forever).start()
