"""The publisher's site in Python. It answers as the pages of `site.rs` do, but knows no token's expiry.

    python3 site.py SOCKET

It prints two ports. The first is for the proxies of the sidecars. At the second, the site asks the API of a sidecar, at this
socket, with the client for WSGI.
"""

import pathlib
import sys
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import ThreadingMixIn
from urllib.parse import parse_qs, quote, urlsplit
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

sys.path.append(str(pathlib.Path(__file__).parents[5] / "crates/euid-sidecar/clients"))

import euid_sidecar  # noqa: E402

# No time that a token is shown lies after it.
UNKNOWN_EXPIRY = 2**53


def page(query, state, token):
    """Returns the status and the text of a page."""
    wanted = parse_qs(query)
    shown = f" {UNKNOWN_EXPIRY} {token}" if token else ""
    return int(wanted["status"][0]), f"{wanted['word'][0]}\n{state} {time.time_ns() // 1_000_000}{shown}"


class Proxied(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self):
        self.answer(*page(urlsplit(self.path).query, self.headers["Euid-State"], self.headers["Euid-Token"]))

    def do_POST(self):
        address = self.rfile.read(int(self.headers["Content-Length"] or 0)).decode()
        if self.path == "/login":
            self.answer(200, "sent", f"login?nonce={self.headers['Euid-Nonce']}&email={quote(address)}")
        else:
            self.answer(200, "bye", "logout")

    def answer(self, status, text, command=None):
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        if command:
            self.send_header("Euid-Command", command)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        pass


def on_api(environ, start_response):
    if environ["REQUEST_METHOD"] == "GET":
        # Without an answer in time, the page goes on without a token.
        euid = {"state": "unavailable", "advertising_token": None} | environ["euid.answer"]
        status, text = page(environ["QUERY_STRING"], euid["state"], euid["advertising_token"])
    else:
        address = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"] or 0)).decode()
        call, form, text = ("login", {"email": address}, "sent") if address else ("logout", {}, "bye")
        environ["euid.answer"] = euid_sidecar.ask(environ, call, form)
        status = 200 if environ["euid.answer"] else 504
    start_response(f"{status} {HTTPStatus(status).phrase}", [("Content-Length", str(len(text)))])
    return [text.encode()]


class Quiet(WSGIRequestHandler):
    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 1024
    daemon_threads = True

    def handle_error(self, *_):
        pass  # a visitor who has hung up


class Wsgi(ThreadingMixIn, WSGIServer):
    request_queue_size = 1024
    daemon_threads = True
    handle_error = Server.handle_error


*others, _ = euid_sidecar.ask.__defaults__
euid_sidecar.ask.__defaults__ = (*others, sys.argv[1])
behind, asking = Server(("127.0.0.1", 0), Proxied), Wsgi(("127.0.0.1", 0), Quiet)
asking.set_app(euid_sidecar.middleware(on_api))
print(behind.server_port, asking.server_port, flush=True)
threading.Thread(target=asking.serve_forever).start()
behind.serve_forever()
