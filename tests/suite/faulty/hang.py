#!/usr/bin/python3
"""Listens on 127.0.0.1:PORT and is unhealthy; exits with 0 on SIGTERM.

HANG=silent (default) accepts connections and never responds, HANG=error returns 500. With HANG_AFTER=n it is healthy
for the first n seconds.
"""

import os
import signal
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

silent = os.environ.get("HANG", "silent") == "silent"
healthy_until = time.monotonic() + float(os.environ.get("HANG_AFTER", "0"))


class Health(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        healthy = time.monotonic() < healthy_until
        if silent and not healthy:
            while True:
                time.sleep(60)
        body = b'{"status": "healthy"}' if healthy else b'{"error": "An unexpected error occurred"}'
        self.send_response(200 if healthy else 500)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
server = ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Health)
server.daemon_threads = True
print("hang listens", flush=True)
server.serve_forever()
