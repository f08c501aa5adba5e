"""A real web server on localhost that serves the test data, well or badly."""

import gzip
import threading
import time
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from conftest import ROOT

DATA = ROOT / "tests" / "data"


class Mirror(BaseHTTPRequestHandler):
    """`/BEHAVIOR/FILE` serves a file of tests/data in the way that BEHAVIOR names."""

    def __init__(self, requests, *args):
        self.requests = requests
        super().__init__(*args)

    def do_GET(self):
        self.requests.append(self.path)
        _, behavior, name = self.path.split("/")
        path = DATA / name
        if behavior.isdecimal():
            return self.send_error(int(behavior))
        if behavior == "plain":
            path = path.with_name(f"{name}.gz")
            content = gzip.decompress(path.read_bytes()) if path.exists() else None
        else:
            content = path.read_bytes() if path.exists() else None
        if content is None:
            return self.send_error(404)
        return getattr(self, behavior)(content)

    def good(self, content, size=None):
        self.send_response(200)
        self.send_header("Content-Length", str(size or len(content)))
        self.end_headers()
        self.wfile.write(content)

    plain = good

    def html(self, content):
        self.good(b"<!DOCTYPE html><title>Please log in</title>")

    def corrupt(self, content):
        middle = len(content) // 2
        self.good(content[:middle] + b"corrupt!" + content[middle + 8 :])

    def other(self, content):
        self.good(gzip.compress(b"another file"))

    def truncated(self, content):
        self.good(content[:-100])

    def cut(self, content):
        self.good(content[:-100], size=len(content))

    def oversized(self, content):
        self.good(gzip.compress(bytes(10_000_000)))

    def hang(self, content):
        self.rfile.read(1)  # until the client has gone

    def trickle(self, content):
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        for byte in content:
            self.wfile.write(bytes([byte]))
            time.sleep(0.05)

    def log_message(self, *_):
        pass


@contextmanager
def serve():
    """Yield the server's address and the list of paths that it is asked for."""
    requests = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Mirror, requests))
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # a client that has had enough
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", requests
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def refused():
    """Yield an address on which nothing listens."""
    with serve() as (address, _):
        pass
    yield address
