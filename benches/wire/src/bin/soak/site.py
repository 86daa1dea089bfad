"""The publisher's site behind the sidecar's proxy. It answers as the pages of `site.rs` do, but knows no token's expiry."""

import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, quote, urlsplit

# No time that a token is shown lies after it.
UNKNOWN_EXPIRY = 2**53


class Site(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self):
        wanted = parse_qs(urlsplit(self.path).query)
        seen = f"{self.headers['Euid-State']} {time.time_ns() // 1_000_000}"
        token = self.headers["Euid-Token"]
        shown = f" {UNKNOWN_EXPIRY} {token}" if token else ""
        self.answer(int(wanted["status"][0]), f"{wanted['word'][0]}\n{seen}{shown}")

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


class Server(ThreadingHTTPServer):
    request_queue_size = 1024
    daemon_threads = True

    def handle_error(self, *_):
        pass  # a visitor who has hung up


server = Server(("127.0.0.1", 0), Site)
print(server.server_port, flush=True)
server.serve_forever()
