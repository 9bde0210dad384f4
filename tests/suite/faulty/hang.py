#!/usr/bin/python3
"""Listens at 127.0.0.1:PORT and is not well; ends on SIGTERM with 0.

HANG=silent (default) takes the connection and never answers, HANG=error answers 500. With HANG_AFTER=n it is healthy
for its first n seconds.
"""

import os
import signal
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

silent = os.environ.get("HANG", "silent") == "silent"
well_until = time.monotonic() + float(os.environ.get("HANG_AFTER", "0"))


class Health(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        well = time.monotonic() < well_until
        if silent and not well:
            while True:
                time.sleep(60)
        body = b'{"status": "healthy"}' if well else b'{"error": "An unexpected error occurred"}'
        self.send_response(200 if well else 500)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
server = ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Health)
server.daemon_threads = True
print("hang listens", flush=True)
server.serve_forever()
