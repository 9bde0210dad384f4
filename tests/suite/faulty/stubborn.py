#!/usr/bin/python3
"""Healthy at http://127.0.0.1:PORT/health; ignores SIGTERM, so that only SIGKILL ends it."""

import os
import signal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Health(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b'{"status": "healthy", "service": "stubborn"}'
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


signal.signal(signal.SIGTERM, lambda *_: print("stubborn ignores SIGTERM", flush=True))
with ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Health) as server:
    print("stubborn listens", flush=True)
    server.serve_forever()
