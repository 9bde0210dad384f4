#!/usr/bin/python3
"""Returns 503 {"status": "degraded"} at http://127.0.0.1:PORT/health from the start; exits with 0 on SIGTERM."""

import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Health(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b'{"status": "degraded", "service": "degraded"}'
        self.send_response(503)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
server = ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Health)
print("degraded listens", flush=True)
server.serve_forever()
