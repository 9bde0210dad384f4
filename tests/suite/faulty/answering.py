#!/usr/bin/python3
"""Answers GET at BIND:PORT as the environment says, and logs each request with its User-Agent, as gunicorn does.

CODE (200), BODY, LOCATION and HOST (the only Host header it takes; others are answered 400) say what. FAILING: for so
many seconds it answers 500. LIMIT: after so many requests it answers 429. TLS=1: with a certificate of its own.
LISTENS: at this port instead.
"""

import os
import signal
import ssl
import subprocess
import sys
import tempfile
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

given = os.environ.get
began = time.monotonic()
asked = 0


class Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        global asked
        asked += 1
        code = int(given("CODE", "200"))
        if given("HOST") and self.headers.get("Host") != given("HOST"):
            code = 400
        if time.monotonic() - began < float(given("FAILING", "0")):
            code = 500
        if asked > int(given("LIMIT", "1000000")):
            code = 429
        body = given("BODY", "").encode()
        self.send_response(code)
        if given("LOCATION"):
            self.send_header("Location", given("LOCATION", ""))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, form: str, *words: object) -> None:
        line = form % words
        agent = self.headers.get("User-Agent", "-") if getattr(self, "headers", None) else "-"
        stamp = time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime())
        print(f'{self.client_address[0]} - - [{stamp}] {line} "-" "{agent}"', flush=True)


class Server(ThreadingHTTPServer):
    address_family = 10 if ":" in given("BIND", "") else 2


signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
server = Server((given("BIND", "127.0.0.1"), int(os.environ.get("LISTENS") or os.environ["PORT"])), Answer)
if given("TLS"):
    with tempfile.TemporaryDirectory() as place:
        key, certificate = f"{place}/key.pem", f"{place}/certificate.pem"
        words = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
        subprocess.run(["openssl", *words, "-keyout", key, "-out", certificate], check=True, capture_output=True)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
print("answering listens", flush=True)
server.serve_forever()
