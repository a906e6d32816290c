"""An HTTP application that says what it was asked, and writes each delivery as a line of JSON.

usage: app.py NAME PORT LOG. Paths: /…/sNNN answers NNN, /…/bin what it was sent, /…/respN/ N bytes,
/…/slow after 12 s, /…/never not at all."""

import base64
import hashlib
import json
import re
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

NAME, PORT, LOG = sys.argv[1], int(sys.argv[2]), sys.argv[3]
LOCK = threading.Lock()


class App(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def body(self):
        if "chunked" not in (self.headers.get("Transfer-Encoding") or ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        whole = b""
        while True:
            size = int(self.rfile.readline().split(b";")[0], 16)
            whole += self.rfile.read(size)
            self.rfile.readline()
            if size == 0:
                return whole

    def answer(self):
        body = self.body()
        line = {
            "method": self.command,
            "uri": self.path,
            "headers": [[k.lower(), v] for k, v in self.headers.items()],
            "len": len(body),
            "sha256": hashlib.sha256(body).hexdigest(),
            "body": base64.b64encode(body[:4096]).decode(),
        }
        with LOCK, open(LOG, "a") as log:
            log.write(json.dumps(line) + "\n")
        status, said = 200, f"{NAME} answers {self.command} {self.path}".encode()
        if found := re.search(r"/s(\d{3})$", self.path):
            status = int(found[1])
        elif self.path.endswith("/bin"):
            said = body
        elif found := re.search(r"/resp(\d+)", self.path):
            said = b"y" * int(found[1])
        elif "/slow" in self.path:
            time.sleep(12)
        elif "/never" in self.path:
            time.sleep(3600)
        self.send_response(status)
        self.send_header("X-App", NAME)
        if status != 204:
            self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        if status != 204:
            self.wfile.write(said)

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = answer

    def log_message(self, *_):
        pass


ThreadingHTTPServer.request_queue_size = 128
ThreadingHTTPServer(("0.0.0.0", PORT), App).serve_forever()
