#!/usr/bin/env python3
"""Tests of the executable as a process: start, signals, sockets and logs; of the clients inside real web servers; and
of nginx and Redis beside it.

    python3 crates/euid-sidecar/tests/process.py [TEST...]

It needs `php`, `node`, `nginx` and `redis-server`, and Express in $NODE_MODULES. Build the sidecar first:
cargo build -p euid-sidecar. tests/run.sh does all of this. $SCHEMATHESIS is the path of schemathesis; without it, the
test of the document is skipped.
"""

import base64
import contextlib
import http.client
import http.server
import json
import os
import pathlib
import re
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import unittest.mock

CRATE = pathlib.Path(__file__).resolve().parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", CRATE.parent.parent / "target"))
SIDECAR = TARGET / "debug/euid-sidecar"
NODE_MODULES = os.environ.get("NODE_MODULES", TARGET / "sidecar/node_modules")
SCHEMATHESIS = os.environ.get("SCHEMATHESIS")
TOKEN = "0123456789abcdef0123456789abcdef"
DEADLINE = 20  # seconds until a condition must hold that holds at once on an idle machine


def until(condition, what):
    """Waits until a condition holds, and returns its value."""
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            if value := condition():
                return value
        time.sleep(0.01)
    raise AssertionError(f"not within {DEADLINE} s: {what}")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Unix(http.client.HTTPConnection):
    """A connection to a unix socket."""

    def __init__(self, path):
        super().__init__("localhost", timeout=DEADLINE)
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Delay:
    """A port that passes bytes on to another one. What comes back is late."""

    def __init__(self, test, port, seconds):
        self.target, self.seconds = port, seconds
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        test.addCleanup(self.listener.close)
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                near, far = self.listener.accept()[0], socket.create_connection(("127.0.0.1", self.target))
                for source, sink, wait in ((near, far, 0), (far, near, self.seconds)):
                    threading.Thread(target=self.copy, args=(source, sink, wait), daemon=True).start()

    @staticmethod
    def copy(source, sink, seconds):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                time.sleep(seconds)
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)


class Case(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="sidecar-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.api, self.log = self.folder / "api.sock", self.folder / "log"

    def start(self, *command, env=None, **options):
        process = subprocess.Popen([str(part) for part in command], env=os.environ | (env or {}), **options)

        def end():
            process.kill()
            process.wait()

        self.addCleanup(end)
        return process

    def start_activated(self, env, **listeners):
        """Starts a sidecar as systemd does, with listeners that are open already."""

        def activate():
            for number, listener in enumerate(listeners.values(), 3):
                os.dup2(listener.fileno(), number + 10, inheritable=True)
            for number in range(3, 3 + len(listeners)):
                os.dup2(number + 10, number, inheritable=True)

        # `sh` has the variables and the process id of the sidecar, which replaces it.
        script = f'LISTEN_FDS={len(listeners)} LISTEN_PID=$$ exec "{SIDECAR}" serve 2>>"{self.log}"'
        env = env | {"LISTEN_FDNAMES": ":".join(listeners)}
        return self.start("sh", "-c", script, env=env, preexec_fn=activate, close_fds=False)

    def sandbox(self, delay=None, **lifetimes):
        """Starts an operator, and returns the variables of its clients."""
        options = [part for name, seconds in lifetimes.items() for part in (f"--{name.replace('_', '-')}", seconds)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
        operator = self.start(SIDECAR, "sandbox", "--port", 0, *options, **pipes)
        self.addCleanup(operator.stdout.close)
        variables = dict(operator.stdout.readline().strip().split("=", 1) for _ in range(3))
        if delay:
            port = int(variables["EUID_OPERATOR_URL"].rpartition(":")[2])
            variables["EUID_OPERATOR_URL"] = f"http://127.0.0.1:{Delay(self, port, delay).port}"
        return variables

    def settings(self, **changes):
        self.admin = free_port()
        return {
            "EUID_SIDECAR_API": f"unix:{self.api}",
            "EUID_SIDECAR_ADMIN": f"127.0.0.1:{self.admin}",
            "EUID_COOKIE_KEYS": key(),
        } | changes

    def serve(self, env, *arguments, **options):
        """Starts a sidecar, and waits until it is ready."""
        log = open(self.log, "ab")
        self.addCleanup(log.close)
        process = self.start(SIDECAR, "serve", *arguments, env=env, stderr=log, **options)
        until(lambda: process.poll() is not None or self.ask_admin("/readyz")[0] == 200, "ready")
        self.assertIsNone(process.poll(), self.log.read_text())
        return process

    def ask_admin(self, path):
        connection = http.client.HTTPConnection("127.0.0.1", self.admin, timeout=DEADLINE)
        with contextlib.closing(connection):
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()

    def ask(self, method, path, form="", headers=None, connection=None):
        with contextlib.closing(connection or Unix(self.api)) as connection:
            types = {"Content-Type": "application/x-www-form-urlencoded"}
            connection.request(method, path, form, types | (headers or {}))
            response = connection.getresponse()
            return response.status, json.loads(response.read())

    def login(self, email="user%40example.com"):
        status, answer = self.ask("POST", "/v1/login", f"email={email}")
        self.assertEqual((status, answer["state"]), (200, "active"))
        return answer["advertising_token"], "; ".join(line.split(";")[0] for line in answer["set_cookie"])

    def redis(self):
        """Starts a Redis, and returns the variables of the store and the process."""
        path = self.folder / "redis.sock"
        options = ["--port", 0, "--unixsocket", path, "--save", "", "--dir", self.folder]
        process = self.start("redis-server", *options, stdout=subprocess.DEVNULL)

        def listens():
            with socket.socket(socket.AF_UNIX) as probe:
                return probe.connect_ex(str(path)) == 0

        until(listens, "Redis")
        return {"EUID_STORE_URL": f"unix://{path}"}, process

    def run_sidecar(self, *arguments, env=None):
        command = [SIDECAR, *arguments]
        return subprocess.run(command, env=os.environ | (env or {}), capture_output=True, text=True, timeout=DEADLINE)


def key():
    return base64.b64encode(secrets.token_bytes(32)).decode()


class Process(Case):
    def test_check_reports_all_that_is_wrong_at_once(self):
        env = self.settings(EUID_API_KEY="x y", EUID_SIDECAR_LOG="loud", EUID_SIDECAR_APPI="x")
        checked = self.run_sidecar("serve", "--check", env=env)
        self.assertNotEqual(checked.returncode, 0)
        for setting in ("OPERATOR_URL", "CLIENT_SECRET", "API_KEY", "SIDECAR_LOG", "SIDECAR_APPI"):
            self.assertIn(f"EUID_{setting}", checked.stderr)
        good = self.run_sidecar("serve", "--check", env=self.settings() | self.sandbox())
        self.assertEqual((good.returncode, good.stderr), (0, ""))
        self.assertIn(f"API at unix:{self.api}", good.stdout)

    def test_api_on_a_port_needs_a_token_and_loopback(self):
        operator, port = self.sandbox(), free_port()
        for api, token in ((f"127.0.0.1:{port}", ""), (f"0.0.0.0:{port}", TOKEN)):
            env = operator | self.settings(EUID_SIDECAR_API=api, EUID_SIDECAR_API_TOKEN=token)
            refused = self.run_sidecar("serve", env=env)
            self.assertNotEqual(refused.returncode, 0)
            self.assertIn("EUID_SIDECAR_API: ", refused.stderr)
        file = self.folder / "token"
        file.write_text(TOKEN + "\n")
        env = operator | self.settings(EUID_SIDECAR_API=f"127.0.0.1:{port}", EUID_SIDECAR_API_TOKEN_FILE=str(file))
        self.serve(env)
        connection = lambda: http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)
        self.assertEqual(self.ask("GET", "/v1/page", connection=connection())[0], 401)
        headers = {"Authorization": f"Bearer {TOKEN}"}
        self.assertEqual(self.ask("GET", "/v1/page", headers=headers, connection=connection())[1]["state"], "absent")

    def test_file_configures_both_scopes(self):
        euid, uid2 = self.sandbox(), self.sandbox(scope="uid2")
        lines = ["[sidecar]", f"api = 'unix:{self.api}'", f"admin = '127.0.0.1:{free_port()}'"]
        for table, variables in (("euid", euid | {"EUID_COOKIE_KEYS": key()}), ("uid2", uid2)):
            lines += [f"[{table}]", *(f"{name[5:].lower()} = '{value}'" for name, value in variables.items())]
        file = self.folder / "sidecar.toml"
        file.write_text("\n".join(lines))
        self.admin = int(lines[2].rpartition(":")[2][:-1])
        self.serve({}, "--config", file)
        self.assertEqual(self.run_sidecar("health", "--config", file).returncode, 0)
        for scope, source in (("euid", "euid.eu"), ("uid2", "uidapi.com")):
            _, answer = self.ask("POST", f"/v1/login?scope={scope}", "email=user%40example.com")
            self.assertEqual([eid["source"] for eid in answer["eids"]], [source])

    def test_living_socket_is_left_alone_and_dead_one_replaced(self):
        env = self.sandbox() | self.settings()
        first = self.serve(env)
        self.assertEqual(stat.S_IMODE(self.api.stat().st_mode), 0o660)
        second = self.run_sidecar("serve", env=env | {"EUID_SIDECAR_ADMIN": f"127.0.0.1:{free_port()}"})
        self.assertIn("a program listens on this socket", second.stderr)
        self.login()
        first.kill()
        first.wait()
        self.assertTrue(self.api.exists())
        self.serve(env)
        self.login()

    def test_end_turns_unready_then_waits_for_requests_under_way(self):
        env = self.sandbox(delay=1) | self.settings()
        process = self.serve(env)
        self.assertEqual(self.run_sidecar("health", env=env).returncode, 0)
        answers = []
        login = lambda: answers.append(self.ask("POST", "/v1/login", "email=user%40example.com"))
        thread = threading.Thread(target=login)
        thread.start()
        until(lambda: "euid_sidecar_requests_in_flight 1" in self.ask_admin("/metrics")[1], "the login is under way")
        process.terminate()
        until(lambda: self.ask_admin("/readyz") == (503, "draining\n"), "unready")
        self.assertEqual(self.ask_admin("/healthz")[0], 200)
        self.assertRaises(OSError, self.ask, "GET", "/v1/page")
        thread.join()
        self.assertEqual((answers[0][0], answers[0][1]["state"]), (200, "active"))
        self.assertEqual(process.wait(DEADLINE), 0)
        self.assertEqual(self.run_sidecar("health", env=env).returncode, 1)

    def test_request_whose_caller_hangs_up_is_logged_and_counted(self):
        self.serve(self.sandbox(delay=1) | self.settings())
        caller = Unix(self.api)
        caller.request("POST", "/v1/login", "email=user%40example.com")
        until(lambda: "euid_sidecar_requests_in_flight 1" in self.ask_admin("/metrics")[1], "the login is under way")
        caller.close()
        count = 'euid_sidecar_requests_total{route="/v1/login",status="aborted"} 1'
        until(lambda: count in self.ask_admin("/metrics")[1], "the login is counted")
        lines = [json.loads(line) for line in self.log.read_text().splitlines()]
        requests = [(line["route"], line["status"]) for line in lines if line["message"] == "request"]
        self.assertEqual(requests, [("/v1/login", "aborted")])

    def test_hangup_reloads_the_keys_and_keeps_the_old_ones_if_the_new_are_wrong(self):
        file, (old, new) = self.folder / "keys", (key(), key())
        file.write_text(old)
        process = self.serve(self.sandbox() | self.settings(EUID_COOKIE_KEYS="", EUID_COOKIE_KEYS_FILE=str(file)))
        _, cookies = self.login()
        state = lambda: self.ask("GET", "/v1/page", headers={"Cookie": cookies})[1]["state"]
        for text, line in (("x", "stay as they were"), (f"{new},{old}", "are reloaded")):
            file.write_text(text)
            process.send_signal(signal.SIGHUP)
            until(lambda: line in self.log.read_text(), line)
            self.assertEqual(state(), "active")
        file.write_text(new)
        process.send_signal(signal.SIGHUP)
        until(lambda: state() == "absent", "the old key is gone")
        self.assertNotIn(old, self.log.read_text())

    def test_sockets_of_systemd_are_taken_over(self):
        env = self.sandbox() | self.settings(EUID_SIDECAR_API="unix:/nowhere/api.sock")
        admin, api = socket.create_server(("127.0.0.1", self.admin)), socket.socket(socket.AF_UNIX)
        with admin, api:
            api.bind(str(self.api))
            api.listen()
            self.start_activated(env, admin=admin, api=api)
            until(lambda: self.ask_admin("/readyz")[0] == 200, "ready")
            self.login()

    def test_log_and_metrics_show_neither_queries_nor_headers_nor_forms(self):
        self.serve(self.sandbox() | self.settings(EUID_SIDECAR_LOG="debug"))
        token, cookies = self.login("hunter2%40example.com")
        headers = {"Cookie": f"hunter2=1; {cookies}"}
        self.ask("GET", "/v1/page?subject=hunter2", headers=headers)
        self.ask("GET", "/hunter2?hunter2=1")
        self.ask("POST", "/v1/login", "email=hunter2")
        metrics = self.ask_admin("/metrics")[1]
        for line in (
            'euid_sidecar_requests_total{route="/v1/page",status="200"} 1',
            'euid_sidecar_requests_total{route="other",status="404"} 1',
            'euid_sidecar_request_seconds_count{route="/v1/login"} 2',
            "euid_sidecar_requests_in_flight 0",
            'euid_requests_total{scope="euid",state="active",transport="cookies"} 2',
        ):
            self.assertIn(line, metrics.splitlines())
        lines = [json.loads(line) for line in self.log.read_text().splitlines()]
        routes = [(line["method"], line["route"], line["status"]) for line in lines if line["message"] == "request"]
        logins = [("POST", "/v1/login", status) for status in (200, 400)]
        self.assertEqual(routes, [logins[0], ("GET", "/v1/page", 200), ("GET", "other", 404), logins[1]])
        cookie_values = re.findall(r"=([^;]{8,})", cookies)
        self.assertGreaterEqual(len(cookie_values), 2)
        for secret in ("hunter2", token, *cookie_values):
            self.assertNotIn(secret, metrics + self.log.read_text())


class Store(Case):
    """The sidecar with a Redis."""

    def page(self, cookies="", subject=""):
        answer = self.ask("GET", f"/v1/page{subject}", headers={"Cookie": cookies})[1]
        return answer["state"], answer["advertising_token"]

    def test_login_is_in_the_store_and_two_sidecars_share_it(self):
        store, _ = self.redis()
        env = self.sandbox() | self.settings(**store)
        self.serve(env)
        token, cookies = self.login()
        self.assertLess(len(cookies), 60, "a handle")
        self.assertEqual(self.page(cookies), ("active", token))
        first, self.api = self.api, self.folder / "other.sock"
        self.admin = free_port()
        self.serve(env | {"EUID_SIDECAR_API": f"unix:{self.api}", "EUID_SIDECAR_ADMIN": f"127.0.0.1:{self.admin}"})
        self.assertEqual(self.page(cookies), ("active", token))
        _, logout = self.ask("POST", "/v1/logout", headers={"Cookie": cookies})
        self.assertEqual(logout["state"], "absent")
        self.api = first
        until(lambda: self.page(cookies) == ("absent", None), "what the first has read is no longer remembered")

    def test_user_has_one_login_and_loses_it_only_while_the_store_is_gone(self):
        store, redis = self.redis()
        secret = self.folder / "store_secret"
        secret.write_text(key())
        env = self.sandbox() | self.settings(**store, EUID_STORE_SECRET_FILE=str(secret))
        self.assertIn("a store by user", self.run_sidecar("serve", "--check", env=env).stdout)
        self.serve(env)
        _, login = self.ask("POST", "/v1/login", "email=user%40example.com&subject=17")
        self.assertEqual((login["state"], login["set_cookie"]), ("active", []))
        active = ("active", login["advertising_token"])
        self.assertEqual((self.page(subject="?subject=17"), self.page()), (active, ("absent", None)))
        redis.send_signal(signal.SIGSTOP)
        until(lambda: self.page(subject="?subject=17") == ("unavailable", None), "the store hangs")
        redis.send_signal(signal.SIGCONT)
        until(lambda: self.page(subject="?subject=17") == active, "the store answers again")
        _, logout = self.ask("POST", "/v1/logout?subject=17")
        self.assertEqual((logout["state"], self.page(subject="?subject=17")), ("absent", ("absent", None)))
        self.assertNotIn("the hook `subject` is not set", self.log.read_text())


class Site(http.server.ThreadingHTTPServer):
    """A site whose pages show the headers of their request, and count the pages."""

    request_queue_size, pages = 128, 0

    class RequestHandlerClass(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.server.pages += 1
            page = json.dumps([[name.lower(), value] for name, value in self.headers.items()]).encode()
            self.send_response(200)
            control = "no-store" if "strict" in self.path else "public, max-age=60"
            for name, value in (("Set-Cookie", "theme=dark"), ("Cache-Control", control), ("Vary", "Accept-Encoding")):
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)

        do_POST = do_GET

        def log_message(self, *_):
            pass

    def __init__(self):
        super().__init__(("127.0.0.1", 0), self.RequestHandlerClass)


class Nginx(Case):
    """nginx with the file in nginx/, in which only addresses are replaced, before a site."""

    def setUp(self):
        super().setUp()
        self.run_nginx()

    def run_nginx(self, api=None, token=None):
        """Starts nginx, before an API at this address, that needs this token."""
        self.site = Site()
        self.addCleanup(self.site.server_close)
        threading.Thread(target=self.site.serve_forever, daemon=True).start()
        self.addCleanup(self.site.shutdown)
        self.port = free_port()
        text = (CRATE / "nginx/euid-sidecar.conf").read_text()
        for old, new in (
            ("unix:/run/euid-sidecar/api.sock;", f"{api or f'unix:{self.api}'};"),
            ('Authorization "";', f'Authorization "{f"Bearer {token}" if token else ""}";'),
            ("http://127.0.0.1:8000;", f"http://127.0.0.1:{self.site.server_port};"),
            ("listen 80;", f"listen 127.0.0.1:{self.port};"),
        ):
            self.assertEqual(text.count(old), 1, old)
            text = text.replace(old, new)
        (self.folder / "site.conf").write_text(text)
        paths = "".join(f"{name}_temp_path {self.folder}/{name};" for name in PATHS)
        # One process, so that the end of the test is its end.
        main = f"daemon off; master_process off; pid {self.folder}/pid; error_log {self.folder}/error.log; events {{}}"
        (self.folder / "nginx.conf").write_text(f"{main} http {{ access_log off; {paths} include site.conf; }}")
        arguments = ["-p", self.folder, "-c", self.folder / "nginx.conf", "-e", self.folder / "error.log"]
        nginx = self.start("nginx", *arguments)
        until(lambda: nginx.poll() is not None or self.visit(), "nginx")
        self.assertIsNone(nginx.poll(), "nginx did not start")

    def visit(self, path="/", method="GET", **headers):
        """Requests a page. Returns the headers that the site got, and those of the response."""
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE)) as connection:
            headers = {name.replace("__", "-"): value for name, value in headers.items()}
            connection.request(method, path, headers={"Sec-Fetch-Dest": "document"} | headers)
            response = connection.getresponse()
            page = response.read()
        self.assertEqual(response.status, 200)
        return json.loads(page), response.headers

    def euid(self, got):
        return {name: value for name, value in got if name.startswith("euid")}

    def test_api_on_a_port_gets_its_token_and_no_other(self):
        port = free_port()
        self.run_nginx(f"127.0.0.1:{port}", TOKEN)
        self.serve(
            self.sandbox() | self.settings(EUID_SIDECAR_API=f"127.0.0.1:{port}", EUID_SIDECAR_API_TOKEN=TOKEN)
        )
        got, _ = self.visit(Authorization="Basic dXNlcjpwYXNz")
        self.assertEqual(self.euid(got), {"euid-state": "absent"})
        self.assertIn(["authorization", "Basic dXNlcjpwYXNz"], got, "the site has the visitor's own")
        self.run_nginx(f"127.0.0.1:{port}", TOKEN[::-1])
        self.assertEqual(self.euid(self.visit()[0]), {})
        self.assertIn("forward-auth gives no token", self.log.read_text())
        self.assertNotIn(TOKEN[::-1], self.log.read_text())

    def test_token_arrives_at_the_site_and_the_page_stays_private(self):
        self.serve(self.sandbox() | self.settings())
        got, headers = self.visit()
        self.assertEqual(self.euid(got), {"euid-state": "absent"})
        self.assertEqual(headers.get_all("Cache-Control"), ["public, max-age=60"])
        token, cookies = self.login()
        for method in ("GET", "POST"):
            got, headers = self.visit(method=method, Cookie=cookies)
            self.assertEqual(self.euid(got), {"euid-token": token, "euid-state": "active"})
            self.assertEqual(headers.get_all("Cache-Control"), ["private, no-cache"])
            self.assertEqual(headers.get_all("Set-Cookie"), ["theme=dark"])
            self.assertEqual(sorted(headers.get_all("Vary")), ["Accept-Encoding", "Cookie"])
        _, headers = self.visit("/?strict", Cookie=cookies)
        self.assertEqual(headers.get_all("Cache-Control"), ["no-store, private, no-cache"])

    def test_visitors_own_headers_never_arrive_as_the_sidecars(self):
        spoofed = {name: "spoofed" for name in SPOOFED}
        sidecar = self.serve(self.sandbox() | self.settings())
        token, cookies = self.login()
        self.assertEqual(self.euid(self.visit(**spoofed)[0]), {"euid-state": "absent"})
        got = self.visit(**spoofed, Cookie=cookies)[0]
        self.assertEqual(self.euid(got), {"euid-token": token, "euid-state": "active"})
        # The sidecar refuses so many headers, and the site would, too.
        many = {f"Many{number}": "1" for number in range(120)}
        with unittest.mock.patch.object(http.client, "_MAXHEADERS", 1000):
            self.assertEqual(self.euid(self.visit(**spoofed, **many, Cookie=cookies)[0]), {})
        sidecar.kill()
        sidecar.wait()
        self.assertEqual(self.euid(self.visit(**spoofed, Cookie=cookies)[0]), {})

    def renewed(self, **store):
        """Returns the cookies of a due visitor, what the site got with the new token, and the response's headers."""
        self.serve(self.sandbox(refresh_from=0, identity_expires=10) | self.settings(**store))
        token, cookies = self.login()

        def renewed():
            got, headers = self.visit(Cookie=cookies)
            return self.euid(got).get("euid-token", token) != token and (cookies, self.euid(got), headers)

        return until(renewed, "the new token")

    def test_due_visitor_gets_the_new_cookie(self):
        cookies, got, headers = self.renewed()
        self.assertEqual((got["euid-state"], headers.get_all("Cache-Control")), ("active", ["private, no-store"]))
        lines = headers.get_all("Set-Cookie")
        self.assertEqual((len(lines), "theme=dark" in lines), (2, True), lines)
        new = next(line for line in lines if line != "theme=dark")
        pairs = dict(pair.split("=", 1) for pair in [*cookies.split("; "), new.split(";")[0]])
        self.assertEqual(len(pairs), 2, "it replaces the identity of the login")
        cookies = "; ".join("=".join(pair) for pair in pairs.items())
        self.assertEqual(self.euid(self.visit(Cookie=cookies)[0])["euid-state"], "active")

    def test_due_visitor_gets_no_cookie_if_there_is_a_store(self):
        cookies, got, headers = self.renewed(**self.redis()[0])
        self.assertEqual((got["euid-state"], headers.get_all("Cache-Control")), ("active", ["private, no-cache"]))
        self.assertEqual(headers.get_all("Set-Cookie"), ["theme=dark"])
        self.assertLess(len(cookies), 60, "a handle")

    def test_page_goes_on_without_a_token_if_the_sidecar_is_gone_hung_slow_or_wrong(self):
        def answering(*parts, pause=0.0):
            def answer(listener):
                with contextlib.suppress(OSError):
                    while True:
                        connection = listener.accept()[0]
                        threading.Thread(target=send, args=(connection,), daemon=True).start()

            def send(connection):
                with contextlib.suppress(OSError), connection:
                    connection.recv(65536)
                    for part in parts:
                        time.sleep(pause)
                        connection.sendall(part)

            return answer

        head = b"HTTP/1.1 %s\r\nContent-Length: 0\r\n\r\n"
        for name, accept in {
            "gone": None,
            "dead": "dead",
            "hung": lambda listener: None,
            "slow": answering(head % b"200 OK\r\nEuid-Token: late", pause=0.2),
            "closing": answering(),
            **{status: answering(head % status.encode()) for status in ("401 No", "404 No", "431 No", "503 No")},
        }.items():
            with self.subTest(name), socket.socket(socket.AF_UNIX) as listener:
                self.api.unlink(missing_ok=True)
                if accept:
                    listener.bind(str(self.api))
                if callable(accept):
                    listener.listen()
                    threading.Thread(target=accept, args=(listener,), daemon=True).start()

                def is_quick():
                    began = time.monotonic()
                    got, headers = self.visit()
                    self.assertEqual((self.euid(got), headers["Cache-Control"]), ({}, "public, max-age=60"))
                    return time.monotonic() - began < 0.07

                # Other programs may hold up a page, but not each one.
                until(is_quick, "a page is not held up for longer than nginx waits")

    def test_no_page_fails_under_load_while_the_sidecar_ends_and_starts_again(self):
        env = self.sandbox() | self.settings()
        sidecar = self.serve(env)
        token, cookies = self.login()
        counts, errors, end = {"with": 0, "without": 0}, [], threading.Event()

        def visit():
            for _ in range(2000):
                if end.is_set():
                    return
                try:
                    got = self.euid(self.visit(Cookie=cookies)[0])
                    counts["with" if got.get("euid-token") == token else "without"] += 1
                except (AssertionError, OSError, http.client.HTTPException, ValueError) as error:
                    errors.append(repr(error))

        threads = [threading.Thread(target=visit) for _ in range(8)]
        for thread in threads:
            thread.start()
        try:
            until(lambda: counts["with"] > 200, "pages with a token")
            sidecar.kill()
            sidecar.wait()
            before = counts["without"]
            until(lambda: counts["without"] > before + 200, "pages without a token")
            self.serve(env)
            before = counts["with"]
            until(lambda: counts["with"] > before + 200, "pages with a token again")
        finally:
            end.set()
            for thread in threads:
                thread.join()
        self.assertEqual(errors, [])


OTHERS = ("Euid__Nonce", "Euid__Command", "Euid__Login")
PATHS = ("client_body", "proxy", "fastcgi", "scgi", "uwsgi")
SPOOFED = ("Euid__Token", "EUID__STATE", "Euid_Token", "euid_state", "Euid.Token", *OTHERS)


class Demo(Case):
    def test_token_arrives_at_a_site_that_only_reads_headers(self):
        demo = self.start(SIDECAR, "serve", "--demo", stdout=subprocess.PIPE, text=True)
        self.addCleanup(demo.stdout.close)
        ports = {}
        for name, begin in (("site", "site: "), ("proxy", "Open ")):
            line = next(line for line in demo.stdout if line.startswith(begin))
            ports[name] = int(re.search(r"http://127.0.0.1:(\d+)/", line)[1])

        def visit(method, path, body="", cookies=""):
            with contextlib.closing(http.client.HTTPConnection("127.0.0.1", ports["proxy"], timeout=DEADLINE)) as visitor:
                visitor.request(method, path, body, {"Cookie": cookies})
                response = visitor.getresponse()
                return response.headers, response.read().decode()

        until(lambda: "<b id=state>absent</b>" in visit("GET", "/")[1], "the proxy answers")
        headers, _ = visit("POST", "/login", "email=user%2Btag%40example.com")
        self.assertNotIn("Euid-Command", headers)
        cookies = "; ".join(line.split(";")[0] for line in headers.get_all("Set-Cookie"))
        headers, page = visit("GET", "/", cookies=f"theme=dark; {cookies}")
        self.assertIn("<b id=state>active</b>", page)
        self.assertRegex(page, r"<code id=token>[\w-]{200,}</code>")
        self.assertIn("<code id=cookies>theme=dark</code>", page)
        self.assertEqual(headers["Cache-Control"], "private, no-cache")
        headers, _ = visit("POST", "/logout", cookies=cookies)
        self.assertTrue(all("Max-Age=0" in line for line in headers.get_all("Set-Cookie")))
        folder = pathlib.Path(tempfile.gettempdir()) / f"euid-sidecar-demo-{demo.pid}"
        self.assertTrue(folder.exists())
        demo.send_signal(signal.SIGINT)
        self.assertEqual(demo.wait(DEADLINE), 0)
        self.assertFalse(folder.exists())
        until(lambda: self.is_gone(ports["site"]), "the site has ended, too")

    def is_gone(self, port):
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) != 0


@unittest.skipUnless(SCHEMATHESIS, "without $SCHEMATHESIS")
class Document(Case):
    """The API against its own document, by requests that schemathesis makes up."""

    def test_answers_are_as_the_document_says(self):
        port = free_port()
        self.serve(self.sandbox() | self.settings(EUID_SIDECAR_API=f"127.0.0.1:{port}", EUID_SIDECAR_API_TOKEN=TOKEN))
        document = self.folder / "openapi.json"
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)) as connection:
            connection.request("GET", "/openapi.json")
            document.write_bytes(connection.getresponse().read())
        url, header = f"http://127.0.0.1:{port}", f"Authorization: Bearer {TOKEN}"
        # Not each valid request is accepted: the other scope may not be served, and a TC string be none.
        options = ["--url", url, "--header", header, "--exclude-checks", "positive_data_acceptance"]
        options += ["--max-examples", "60", "--seed", "1", "--no-color"]
        run = subprocess.run([SCHEMATHESIS, "run", document, *options], capture_output=True, text=True, cwd=self.folder)
        self.assertEqual(run.returncode, 0, run.stdout + run.stderr)


class Client(Case):
    """The clients in real web servers, whose pages set a cookie of their own and a late `Cache-Control: public`."""

    def each_site(self):
        """Starts a site in each language."""
        for file in [*(CRATE / "clients").glob("euid_sidecar.*"), *(CRATE / "tests/sites").glob("site.*")]:
            text = file.read_text()
            (self.folder / file.name).write_text(text.replace("/run/euid-sidecar/api.sock", str(self.api)))
        modules = self.folder / "node_modules"
        if not modules.exists():
            modules.symlink_to(pathlib.Path(NODE_MODULES).resolve())
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": self.folder}
        for name, command in (
            ("php", lambda port: ["php", "-S", f"127.0.0.1:{port}", "site.php"]),
            ("wsgi", lambda port: [sys.executable, "site.py", str(port)]),
            ("express", lambda port: ["node", "site.mjs", str(port)]),
        ):
            with self.subTest(name):
                self.port, self.jar = free_port(), {}
                process = self.start(*command(self.port), **quiet)
                until(lambda: process.poll() is not None or self.listens(), "the site")
                self.assertIsNone(process.poll(), f"{name} did not start")
                yield name

    def listens(self):
        with socket.create_connection(("127.0.0.1", self.port)):
            return True

    def visit(self, path="/"):
        """Requests a page as a browser. Returns the client's answer, its milliseconds and the response's headers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE)
        with contextlib.closing(connection):
            cookies = "; ".join(f"{name}={value}" for name, value in self.jar.items())
            connection.request("GET", path, headers={"Cookie": cookies, "Sec-Fetch-Dest": "document"})
            response = connection.getresponse()
            page = json.loads(response.read())
        self.assertEqual(response.status, 200)
        for line in response.headers.get_all("Set-Cookie"):
            name, _, value = line.split(";")[0].partition("=")
            self.jar.pop(name, None)
            if value:
                self.jar[name] = value
        self.assertEqual(self.jar["theme"], "dark")
        return page["euid"], page["milliseconds"], response.headers

    def page(self, path="/"):
        """Requests a page until the client has an answer: on a busy machine it may have given up."""
        return until(lambda: (page := self.visit(path))[0] and page, "an answer")

    def cache_control(self, headers):
        self.assertIn("Accept-Encoding", ", ".join(headers.get_all("Vary")))
        return ", ".join(headers.get_all("Cache-Control"))

    def test_site_shows_the_token_and_stays_private(self):
        self.serve(self.sandbox() | self.settings())
        for _ in self.each_site():
            euid, _, headers = self.page()
            self.assertEqual((euid["state"], self.cache_control(headers)), ("absent", "public, max-age=60"))
            euid, _, headers = self.visit("/login?email=user%2Btag%40example.com")
            self.assertEqual((euid["state"], self.cache_control(headers)), ("active", "private, no-store"))
            token = euid["advertising_token"]
            euid, _, headers = self.page()
            self.assertEqual((euid["advertising_token"], self.cache_control(headers)), (token, "private, no-cache"))
            self.assertIn("Cookie", ", ".join(headers.get_all("Vary")))
            _, _, headers = self.page("/?strict=1")
            self.assertEqual(self.cache_control(headers), "No-Store, private, no-cache")
            self.assertEqual(self.visit("/login?mail=user")[0]["state"], "absent")
            self.assertEqual(self.page()[0]["state"], "absent")
            self.visit("/login?email=user%40example.com")
            euid, _, headers = self.visit("/logout")
            self.assertEqual((euid["state"], self.cache_control(headers)), ("absent", "private, no-store"))
            self.assertEqual((self.page()[0]["state"], list(self.jar)), ("absent", ["theme"]))

    def test_explanation_stands_beside_the_pages_own_server_timing(self):
        self.serve(self.sandbox() | self.settings(EUID_EXPLAIN="1"))
        for _ in self.each_site():
            timing = ", ".join(self.page()[2].get_all("Server-Timing"))
            self.assertRegex(timing, "^site, euid;desc=\"absent;")

    def test_page_in_express_may_go_out_before_the_sidecar_answers(self):
        for name in self.each_site():
            if name == "express":
                self.assertIsNone(self.visit("/early")[0])

    def test_due_visitor_has_a_valid_token_on_every_page_while_the_operator_is_slow(self):
        self.serve(self.sandbox(delay=0.15, refresh_from=0, identity_expires=10) | self.settings())
        for _ in self.each_site():
            self.page()
            self.assertEqual(self.visit("/login?email=user%40example.com")[0]["state"], "active")
            tokens, end = [], time.monotonic() + 3
            while time.monotonic() < end:
                tokens.append(self.visit()[0].get("advertising_token"))
            # Each of some hundred pages has one. Other programs may hold up a few of them.
            self.assertLessEqual(tokens.count(None), len(tokens) // 50)
            self.assertGreater(len({*tokens} - {None}), 1, "there was a refresh")

    def test_site_goes_on_without_a_token_if_the_sidecar_is_gone_hung_or_slow(self):
        def answering(*parts, pause=0.0):
            def accept(listener):
                with contextlib.suppress(OSError):
                    while True:
                        connection = listener.accept()[0]
                        threading.Thread(target=answer, args=(connection,), daemon=True).start()

            def answer(connection):
                with contextlib.suppress(OSError), connection:
                    connection.recv(65536)
                    for part in parts:
                        time.sleep(pause)
                        connection.sendall(part)
                    if pause == float("inf"):
                        connection.recv(1)

            return accept

        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n"
        body = b'{"state": "active", "advertising_token": "late", "set_cookie": ["late=1"], "headers": {}}'
        for _ in self.each_site():
            for name, accept in {
                "gone": None,
                "dead": "dead",
                "hung": lambda listener: None,
                "slow": answering(head + body, pause=0.2),
                "dripping": answering(*(bytes([byte]) for byte in head + body), pause=0.01),
                "garbage": answering(head + b"<html>"),
                "closing": answering(),
            }.items():
                with self.subTest(name), socket.socket(socket.AF_UNIX) as listener:
                    self.api.unlink(missing_ok=True)
                    if accept:
                        listener.bind(str(self.api))
                    if callable(accept):
                        listener.listen()
                        threading.Thread(target=accept, args=(listener,), daemon=True).start()

                    def is_quick():
                        euid, milliseconds, headers = self.visit()
                        self.assertEqual((euid, self.cache_control(headers)), ({}, "public, max-age=60"))
                        return milliseconds < 60

                    # Other programs may hold up a page, but not each one.
                    until(is_quick, "a page is not held up for longer than the client waits")


if __name__ == "__main__":
    unittest.main(verbosity=2)
