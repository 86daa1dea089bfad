#!/usr/bin/env python3
"""Tests of the reverse proxy as a process, in front of servers that fold the names of headers.

    python3 crates/euid-sidecar/tests/proxy.py [TEST...]

It needs `php`. Build the sidecar first: cargo build -p euid-sidecar. tests/run.sh does all of this.
"""

import collections
import contextlib
import http.client
import json
import pathlib
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import unittest
import urllib.parse

from process import DEADLINE, Case, free_port, until

SITES = pathlib.Path(__file__).resolve().parent / "sites"
MEGABYTE = 1 << 20
# All characters that the name of a header may have but letters and digits.
BETWEEN = "!#$%&'*+-.^_`|~"


class ProxyCase(Case):
    def serve_before(self, port, **changes):
        """Starts a sidecar in front of the site at a port."""
        self.port = free_port()
        proxy = {"EUID_SIDECAR_UPSTREAM": f"127.0.0.1:{port}", "EUID_SIDECAR_LISTEN": f"127.0.0.1:{self.port}"}
        return self.serve(self.sandbox() | self.settings(**proxy, **changes))

    def exchange(self, request):
        """Sends bytes, and returns all that comes back."""
        with socket.create_connection(("127.0.0.1", self.port), DEADLINE) as visitor:
            visitor.sendall(request)
            return b"".join(iter(lambda: visitor.recv(65536), b"")).decode("latin-1")

    def get(self, path="/", lines=(), cookies=""):
        """Requests a page as an old client, so that the body comes without chunks. Returns its head and its body."""
        lines = ["Host: site", *([f"Cookie: {cookies}"] if cookies else []), *lines]
        answer = self.exchange("\r\n".join([f"GET {path} HTTP/1.0", *lines, "", ""]).encode())
        head, _, body = answer.partition("\r\n\r\n")
        return head, body

    def played_site(self, play):
        """Starts a site that passes each of its connections to a function."""
        listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listener.close)

        def accept():
            with contextlib.suppress(OSError):
                while True:
                    threading.Thread(target=guarded, args=(listener.accept()[0],), daemon=True).start()

        def guarded(connection):
            with contextlib.suppress(OSError), connection:
                play(connection)

        threading.Thread(target=accept, daemon=True).start()
        return listener.getsockname()[1]


class Spoofing(ProxyCase):
    """What a visitor sends under a name that a server could take for one of the sidecar's."""

    def each_site(self):
        for name, command in (
            ("wsgi", lambda port: [sys.executable, SITES / "environ.py", port]),
            ("php", lambda port: ["php", "-S", f"127.0.0.1:{port}", SITES / "environ.php"]),
        ):
            with self.subTest(name):
                port = free_port()
                self.start(*command(port), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                until(lambda: socket.create_connection(("127.0.0.1", port)).close() or True, "the site listens")
                process = self.serve_before(port)
                yield port
                process.terminate()
                process.wait()

    def test_no_name_of_a_visitor_is_taken_for_one_of_the_sidecars(self):
        names = [f"{stem}{between}{name}" for between in BETWEEN for stem in ("Euid", "EUID", "euid", "eUiD")
                 for name in ("Token", "STATE", "nonce")]
        seen = 0
        for port in self.each_site():
            requests = [[f"{name}: spoofed"] for name in names]
            requests += [[f"{name}: spoofed", f"{name}: spoofed"] for name in names[:6]]
            requests += [[f"{name}: spoofed", f"Connection: {name}"] for name in names]
            requests.append([f"{name}: spoofed" for name in names[:150]])
            requests.append(["Connection: Euid-Token, Euid-State, Euid-Nonce"])
            for lines in requests:
                _, body = self.get(lines=lines)
                environ = json.loads(body)
                self.assertEqual(environ["HTTP_EUID_STATE"], "absent", lines)
                self.assertRegex(environ["HTTP_EUID_NONCE"], "^[0-9a-f]{32}$")
                self.assertNotIn("HTTP_EUID_TOKEN", environ)
                self.assertNotIn("spoofed", body)
                seen += 1
            # Without the sidecar both servers do fold names.
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)
            with contextlib.closing(connection):
                connection.request("GET", "/", headers={"Euid-Token": "spoofed"})
                self.assertEqual(json.loads(connection.getresponse().read())["HTTP_EUID_TOKEN"], "spoofed")
        self.assertGreater(seen, 700)

    def test_no_trailer_of_a_visitor_reaches_the_site_under_a_reserved_name(self):
        for _ in self.each_site():
            trailers = "".join(f"Euid{between}Token: spoofed\r\n" for between in BETWEEN)
            announced = ", ".join(f"Euid{between}Token" for between in BETWEEN)
            request = (f"POST / HTTP/1.1\r\nHost: site\r\nConnection: close\r\nTrailer: {announced}\r\n"
                       f"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n{trailers}\r\n")
            answer = self.exchange(request.encode())
            self.assertIn(" 200 ", answer.splitlines()[0])
            self.assertNotIn("spoofed", answer)
            self.assertNotIn("HTTP_TRAILER", answer)

    def test_login_and_logout_are_commands(self):
        for _ in self.each_site():
            command = "login?nonce=NONCE&email=user%2Btag%40example.com"
            head, _ = self.get(f"/?{urllib.parse.urlencode({'command': command})}")
            self.assertNotIn("Euid-Command", head.title())
            cookies = "; ".join(re.findall(r"(?i)set-cookie: ([^;]+)", head))
            head, body = self.get(cookies=f"theme=dark; {cookies}")
            environ = json.loads(body)
            self.assertEqual((environ["HTTP_EUID_STATE"], environ["HTTP_COOKIE"]), ("active", "theme=dark"))
            self.assertGreater(len(environ["HTTP_EUID_TOKEN"]), 200)
            self.assertIn("cache-control: private, no-cache", head.lower())
            head, _ = self.get("/?command=logout", cookies=cookies)
            self.assertIn("max-age=0", head.lower())


class Running(ProxyCase):
    def test_large_bodies_pass_in_constant_memory(self):
        sent = [0]

        def play(connection):
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += connection.recv(1)
            if head.startswith(b"GET"):
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (256 * MEGABYTE))
                for _ in range(256):
                    connection.sendall(bytes(MEGABYTE))
                    sent[0] += 1
            else:
                left = 256 * MEGABYTE
                while left:
                    left -= len(connection.recv(min(left, MEGABYTE)))
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine")

        process = self.serve_before(self.played_site(play), EUID_SIDECAR_WORKERS="1")
        status = pathlib.Path(f"/proc/{process.pid}/status")
        peak = lambda: int(re.search(r"VmHWM:\s+(\d+)", status.read_text())[1]) // 1024
        before = peak()
        with socket.create_connection(("127.0.0.1", self.port), DEADLINE) as visitor:
            visitor.sendall(b"POST / HTTP/1.1\r\nHost: site\r\nContent-Length: %d\r\n\r\n" % (256 * MEGABYTE))
            for _ in range(256):
                visitor.sendall(bytes(MEGABYTE))
            self.assertIn(b" 200 ", visitor.recv(1000))
            visitor.sendall(b"GET / HTTP/1.1\r\nHost: site\r\nConnection: close\r\n\r\n")
            # All buffers are full: between two looks the site has sent nothing.
            looks = [-1]
            until(lambda: looks.append(sent[0]) or looks[-1] == looks[-2] > 0, "the site waits for the visitor")
            self.assertLess(sent[0], 100)
            received = sum(len(part) for part in iter(lambda: visitor.recv(MEGABYTE), b""))
        self.assertGreater(received, 256 * MEGABYTE)
        self.assertLess(peak() - before, 16, "megabytes")

    def test_end_waits_for_requests_under_way_and_a_bounded_time_for_tunnels(self):
        go_on = threading.Event()

        def play(connection):
            if b"Upgrade" in connection.recv(65536).title():
                head = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
                connection.sendall(head)
                while data := connection.recv(100):
                    connection.sendall(data)
            else:
                go_on.wait(DEADLINE)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine")

        process = self.serve_before(self.played_site(play))
        answers = []
        page = threading.Thread(target=lambda: answers.append(self.get()))
        page.start()
        with socket.create_connection(("127.0.0.1", self.port), DEADLINE) as tunnel:
            tunnel.sendall(b"GET / HTTP/1.1\r\nHost: site\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
            self.assertIn(b" 101 ", tunnel.recv(1000))
            both = "euid_sidecar_proxy_requests_in_flight 2"
            until(lambda: both in self.ask_admin("/metrics")[1], "both are under way")
            process.terminate()
            until(lambda: self.ask_admin("/readyz")[0] == 503, "unready")
            until(self.is_closed, "the listener has closed")
            go_on.set()
            page.join()
            self.assertEqual(answers[0][1], "fine")
            tunnel.sendall(b"still here")
            self.assertEqual(tunnel.recv(100), b"still here")
            began = time.monotonic()
            self.assertEqual(tunnel.recv(100), b"")
            self.assertLess(time.monotonic() - began, 12)
        self.assertEqual(process.wait(DEADLINE), 0)
        self.assertIn("cut off", self.log.read_text())

    def is_closed(self):
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) != 0

    def test_site_can_not_be_the_sidecar_itself(self):
        port = free_port()
        for listen, upstream in (
            (f"127.0.0.1:{port}", f"localhost:{port}"),
            (f"0.0.0.0:{port}", f"127.0.0.1:{port}"),
            (f"127.0.0.1:{port}", f"unix:{self.api}"),
        ):
            settings = self.settings(EUID_SIDECAR_LISTEN=listen, EUID_SIDECAR_UPSTREAM=upstream)
            refused = self.run_sidecar("serve", env=self.sandbox() | settings)
            self.assertEqual(refused.returncode, 1)
            self.assertIn("EUID_SIDECAR_UPSTREAM: ", refused.stderr)

    def test_log_and_metrics_show_neither_queries_nor_cookies(self):
        def play(connection):
            while connection.recv(65536):
                connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nfine")

        self.serve_before(self.played_site(play), EUID_SIDECAR_LOG="debug")
        self.get("/page?hunter2=1", [f"Authorization: hunter2", "Referer: http://site/?hunter2"], cookies="a=hunter2")
        lines = [json.loads(line) for line in self.log.read_text().splitlines()]
        proxied = [(line["method"], line["path"], line["status"]) for line in lines if line["message"] == "proxied"]
        self.assertEqual(proxied, [("GET", "/page", 404)])
        metrics = self.ask_admin("/metrics")[1]
        for line in (
            'euid_sidecar_proxy_requests_total{status="4xx"} 1',
            "euid_sidecar_proxy_request_seconds_count 1",
            "euid_sidecar_proxy_requests_in_flight 0",
            "euid_sidecar_upstream_connections 1",
        ):
            self.assertIn(line, metrics.splitlines())
        self.assertNotIn("hunter2", metrics + self.log.read_text())

    def test_all_workers_serve(self):
        threads = set()

        def play(connection):
            threads.add(threading.get_ident())
            while connection.recv(65536):
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine")

        process = self.serve_before(self.played_site(play), EUID_SIDECAR_WORKERS="3")
        names = [path.read_text().strip() for path in pathlib.Path(f"/proc/{process.pid}/task").glob("*/comm")]
        self.assertEqual(sorted(name for name in names if name.startswith("proxy-")), ["proxy-0", "proxy-1", "proxy-2"])
        answers = []
        visitors = [threading.Thread(target=lambda: answers.append(self.get()[1])) for _ in range(100)]
        for visitor in visitors:
            visitor.start()
        for visitor in visitors:
            visitor.join()
        self.assertEqual(answers, ["fine"] * 100)
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(DEADLINE), 0)


class Many(ProxyCase):
    FINE = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine"

    def connect(self, request):
        """Opens a connection, sends a request, and returns the connection and the head that comes back."""
        visitor = socket.create_connection(("127.0.0.1", self.port), DEADLINE)
        self.addCleanup(visitor.close)
        visitor.sendall(request)
        return visitor, visitor.recv(1000)

    def test_site_that_closes_idle_connections_at_random_fails_no_page(self):
        chance = random.Random(1)

        def play(connection):
            while connection.recv(65536):
                connection.sendall(self.FINE)
                if chance.random() < 0.3:
                    time.sleep(chance.random() / 500)
                    return

        self.serve_before(self.played_site(play))
        statuses = collections.Counter()

        def visit():
            visitor = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE)
            with contextlib.closing(visitor):
                for _ in range(1250):
                    visitor.request("GET", "/")
                    response = visitor.getresponse()
                    response.read()
                    statuses[response.status] += 1

        visitors = [threading.Thread(target=visit) for _ in range(8)]
        for visitor in visitors:
            visitor.start()
        for visitor in visitors:
            visitor.join()
        self.assertEqual(statuses, {200: 10_000})
        retries = re.search(r"euid_sidecar_upstream_retries_total (\d+)", self.ask_admin("/metrics")[1])
        self.assertGreater(int(retries[1]), 0, "no connection was closed at the wrong moment")

    def test_restart_loses_no_page_if_systemd_keeps_the_socket(self):
        def play(connection):
            while connection.recv(65536):
                connection.sendall(self.FINE)

        listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listener.close)
        self.port = listener.getsockname()[1]
        env = self.sandbox() | self.settings(EUID_SIDECAR_UPSTREAM=f"127.0.0.1:{self.played_site(play)}")
        process = self.start_activated(env, proxy=listener)
        until(lambda: self.get()[1] == "fine", "the proxy serves")
        outcomes, stop = collections.Counter(), threading.Event()

        def visit():
            visitor, pages = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE), 0
            while not stop.is_set():
                try:
                    visitor.request("GET", "/")
                    response = visitor.getresponse()
                    response.read()
                    outcomes[response.status] += 1
                    pages = 0 if response.will_close else pages + 1
                except (http.client.RemoteDisconnected, ConnectionError):
                    # A browser, and nginx, then tries once more, on a new connection.
                    outcomes["again" if pages else "lost"] += 1
                    visitor.close()
                    pages = 0
            visitor.close()

        visitors = [threading.Thread(target=visit) for _ in range(8)]
        for visitor in visitors:
            visitor.start()
        for _ in range(3):
            seen = outcomes[200]
            until(lambda: outcomes[200] > seen + 200, "pages come")
            process.terminate()
            self.assertEqual(process.wait(DEADLINE), 0)
            process = self.start_activated(env, proxy=listener)
        seen = outcomes[200]
        until(lambda: outcomes[200] > seen + 200, "pages come again")
        stop.set()
        for visitor in visitors:
            visitor.join()
        outcomes.pop("again", None)
        self.assertEqual(set(outcomes), {200}, outcomes)

    def test_idle_connection_takes_at_most_20_kib(self):
        def play(connection):
            while connection.recv(65536):
                connection.sendall(self.FINE)

        process = self.serve_before(self.played_site(play), EUID_SIDECAR_WORKERS="1")
        status = pathlib.Path(f"/proc/{process.pid}/status")
        resident = lambda: int(re.search(r"VmRSS:\s+(\d+)", status.read_text())[1])
        self.get()
        before = resident()
        for _ in range(1000):
            _, head = self.connect(b"GET / HTTP/1.1\r\nHost: site\r\n\r\n")
            self.assertIn(b" 200 ", head)
        self.assertLessEqual((resident() - before) / 1000, 20, "KiB")

    def test_thousand_websockets_are_open_at_once(self):
        def play(connection):
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
            while data := connection.recv(100):
                connection.sendall(data)

        self.serve_before(self.played_site(play))
        upgrade = b"GET / HTTP/1.1\r\nHost: site\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
        tunnels = [self.connect(upgrade) for _ in range(1000)]
        for number, (tunnel, head) in enumerate(tunnels):
            self.assertIn(b" 101 ", head)
            tunnel.sendall(b"%d" % number)
        for number, (tunnel, _) in enumerate(tunnels):
            self.assertEqual(tunnel.recv(100), b"%d" % number)


if __name__ == "__main__":
    unittest.main(verbosity=2)
