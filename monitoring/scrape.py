#!/usr/bin/env python3
"""Tests the dashboard and the alert rules with a Prometheus that scrapes two sidecars with some traffic.

    python3 monitoring/scrape.py

1. Every metric has a description, and every histogram has buckets. Every counter begins before the first request.
2. Every query of the dashboard returns a number.
3. Every alert rule can be evaluated, and none fires: the traffic has failures, but few.

It needs `prometheus`. Build the sidecar first: cargo build -p euid-sidecar. All ports are on 127.0.0.1.
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
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse

FOLDER = pathlib.Path(__file__).resolve().parent
sys.path.append(str(FOLDER.parent / "crates/euid-sidecar/tests"))

from process import DEADLINE, free_port, until  # noqa: E402

TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", FOLDER.parent / "target"))
SIDECAR = TARGET / "debug/euid-sidecar"
TRAFFIC = 15  # seconds
VARIABLES = {"$__rate_interval": "1m", "$job": ".*", "$scope": ".*"}


def ask(port, method, path, form=None, headers=None):
    """Returns the status, the headers and the text of a response."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)) as connection:
        types = {"Content-Type": "application/x-www-form-urlencoded"} if form else {}
        connection.request(method, path, form, types | (headers or {}))
        response = connection.getresponse()
        return response.status, response.headers, response.read().decode()


class Gate:
    """A port that passes connections on to the operator, unless it is shut."""

    def __init__(self, port):
        self.target, self.is_shut = port, False
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.open = set()
        threading.Thread(target=self.accept, daemon=True).start()

    def shut(self):
        self.is_shut = True
        for connection in list(self.open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def accept(self):
        while True:
            near = self.listener.accept()[0]
            if self.is_shut:
                near.close()
                continue
            far = socket.create_connection(("127.0.0.1", self.target))
            self.open |= {near, far}
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self.copy, args=(source, sink), daemon=True).start()

    def copy(self, source, sink):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)


class Page(http.server.BaseHTTPRequestHandler):
    """A site behind the proxy. It breaks off one path."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path == "/broken":
            self.close_connection = True
            return
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_):
        pass


class Sidecar:
    TOKEN = secrets.token_hex(16)

    def __init__(self, run, operator, **changes):
        self.api, self.admin = free_port(), free_port()
        self.headers = {"Authorization": f"Bearer {self.TOKEN}"}
        settings = {
            "EUID_SIDECAR_API": f"127.0.0.1:{self.api}",
            "EUID_SIDECAR_API_TOKEN": self.TOKEN,
            "EUID_SIDECAR_ADMIN": f"127.0.0.1:{self.admin}",
            "EUID_SIDECAR_LOG": "off",
            "EUID_COOKIE_KEYS": base64.b64encode(secrets.token_bytes(32)).decode(),
        }
        run([SIDECAR, "serve"], env=os.environ | operator | settings | changes)
        until(lambda: ask(self.admin, "GET", "/readyz")[0] == 200, "the sidecar is ready")

    def call(self, method, path, form=None, cookies=""):
        status, _, body = ask(self.api, method, path, form, self.headers | ({"Cookie": cookies} if cookies else {}))
        return status, json.loads(body)

    def metrics(self):
        return ask(self.admin, "GET", "/metrics")[2]


class Visitor:
    """A browser's cookies at a site that asks the API of a sidecar."""

    def __init__(self, sidecar, name):
        self.sidecar, self.name, self.jar = sidecar, name, {}

    def cookies(self):
        return "; ".join(f"{name}={value}" for name, value in self.jar.items())

    def take(self, answer):
        for line in answer["set_cookie"]:
            name, _, value = line.partition(";")[0].partition("=")
            self.jar[name] = value
            if "Max-Age=0" in line:
                del self.jar[name]
        return answer["state"]

    def login(self):
        form = urllib.parse.urlencode({"email": f"{self.name}@example.com"})
        return self.take(self.sidecar.call("POST", "/v1/login", form, self.cookies())[1])

    def page(self):
        return self.take(self.sidecar.call("GET", "/v1/page", cookies=self.cookies())[1])

    def logout(self):
        return self.take(self.sidecar.call("POST", "/v1/logout", cookies=self.cookies())[1])


def check_start(metrics):
    """Checks the metrics of a sidecar that has served nothing."""
    names = set(re.findall(r"^(euid_\w+?)(?:_bucket|_sum|_count)?[ {]", metrics, re.M))
    types = dict(re.findall(r"^# TYPE (\w+) (\w+)$", metrics, re.M))
    described = set(re.findall(r"^# HELP (\w+) \w", metrics, re.M))
    assert names and names == types.keys() == described, names ^ types.keys() | types.keys() ^ described
    assert "summary" not in types.values(), types
    kinds = {"counter": "_total", "histogram": ("_seconds", "_bytes")}
    assert all(name.endswith(kinds.get(kind, "")) for name, kind in types.items()), types
    counted = [line for line in metrics.splitlines() if line.startswith("euid_") and not line.endswith(" 0")]
    assert not counted, counted
    for series in ('euid_refresh_total{scope="euid",outcome="timeout"}', 'euid_generate_total{scope="euid",outcome="failed"}'):
        assert f"{series} 0" in metrics.splitlines(), series


def traffic(sidecars, proxy, gate):
    """Visits for a while: logins, pages, refreshes, logouts, and some failures of each kind."""
    visitors = [Visitor(sidecar, f"user{number}") for sidecar in sidecars for number in range(6)]
    for visitor in visitors:
        assert visitor.login() == "active"
    opted_out = Visitor(sidecars[0], "optout")
    assert opted_out.login() == "opted_out"
    forger = Visitor(sidecars[0], "forger")
    forger.login()
    identity = max(forger.jar, key=lambda name: len(forger.jar[name]))
    value = forger.jar[identity]
    forged = forger.jar | {identity: value[:100] + ("B" if value[100] == "A" else "A") + value[101:]}
    begun, was_shut, states = time.monotonic(), False, set()
    while (now := time.monotonic() - begun) < TRAFFIC:
        states |= {visitor.page() for visitor in visitors}
        for path in ("/", "/broken") if now < 2 else ("/",):
            ask(proxy, "GET", path, headers={"Host": "site"})
        if now > 4 and not was_shut:
            was_shut = True
            # The operator is down for a moment. New visitors and due pages notice.
            gate.shut()
            assert Visitor(sidecars[0], "unlucky").login() == "absent"
            for visitor in visitors:
                visitor.page()
            time.sleep(1)
            gate.is_shut = False
            forger.jar = dict(forged)
            assert forger.page() == "absent"
        time.sleep(0.2)
    for visitor in visitors:
        visitor.page()
    assert visitors[-1].logout() == "absent"
    assert states == {"active"}, states


class Prometheus:
    def __init__(self, run, folder, ports):
        self.port = free_port()
        targets = [f"127.0.0.1:{port}" for port in ports]
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(FOLDER / "alerts.yml")],
            "scrape_configs": [{"job_name": "site", "static_configs": [{"targets": targets}]}],
        }
        # JSON is YAML.
        (folder / "prometheus.yml").write_text(json.dumps(config))
        run([
            "prometheus",
            f"--config.file={folder}/prometheus.yml",
            f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--log.level=warn",
        ])
        until(lambda: ask(self.port, "GET", "/-/ready")[0] == 200, "Prometheus is ready")
        ready = lambda: len(self.query("up == 1")) == len(ports)
        until(ready, "Prometheus scrapes the sidecars")

    def ask(self, path):
        status, _, body = ask(self.port, "GET", path)
        assert status == 200, f"{path}: {body}"
        return json.loads(body)["data"]

    def query(self, text):
        return self.ask("/api/v1/query?" + urllib.parse.urlencode({"query": text}))["result"]


def check_dashboard(prometheus):
    """Returns how many queries the dashboard has, and which of them return no number."""
    dashboard = json.loads((FOLDER / "dashboard.json").read_text())
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    positions = {tuple(sorted(panel["gridPos"].items())) for panel in dashboard["panels"]}
    assert len(positions) == len(dashboard["panels"]) == len({panel["id"] for panel in dashboard["panels"]})
    empty, count = [], 0
    for panel in panels:
        assert panel["datasource"]["uid"] == "${datasource}", panel["title"]
        for target in panel["targets"]:
            text = target["expr"]
            for name, value in VARIABLES.items():
                text = text.replace(name, value)
            assert "$" not in text, text
            count += 1
            if not any(sample["value"][1] not in ("NaN", "+Inf") for sample in prometheus.query(text)):
                empty.append(f"{panel['title']}: {text}")
    return count, empty


def check_alerts(prometheus):
    # The server has loaded the rules, and evaluates them every second.
    rules = [rule for group in prometheus.ask("/api/v1/rules")["groups"] for rule in group["rules"]]
    for rule in rules:
        assert (rule["health"], rule["state"]) == ("ok", "inactive"), rule
        assert rule["duration"] > 0, f"{rule['name']} has no `for`"
        assert set(rule["annotations"]) == {"summary", "description"}, rule["name"]
        assert prometheus.query(rule["query"]) == [], rule["name"]
    # Each has a test in which it fires.
    tested = set(re.findall(r'alertname="(\w+)"', (FOLDER / "alerts_test.yml").read_text()))
    assert {rule["name"] for rule in rules} == tested, tested
    return len(rules)


@contextlib.contextmanager
def processes():
    """Yields a function that starts processes, the stack that ends them, and a folder for them."""
    with contextlib.ExitStack() as stack:

        def run(command, **options):
            process = subprocess.Popen([str(part) for part in command], **options)
            stack.callback(process.wait)
            stack.callback(process.kill)
            return process

        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="monitoring-"))
        yield run, stack, pathlib.Path(folder)


def main():
    with processes() as (run, stack, folder):
        command = [SIDECAR, "sandbox", "--port", 0, "--refresh-from", 2, "--identity-expires", 20]
        sandbox = run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        stack.callback(sandbox.stdout.close)
        operator = dict(sandbox.stdout.readline().strip().split("=", 1) for _ in range(3))
        gate = Gate(int(operator["EUID_OPERATOR_URL"].rpartition(":")[2]))
        operator["EUID_OPERATOR_URL"] = f"http://127.0.0.1:{gate.port}"
        site = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
        stack.callback(site.shutdown)
        threading.Thread(target=site.serve_forever, daemon=True).start()
        proxy = free_port()
        front = {
            "EUID_SIDECAR_UPSTREAM": f"127.0.0.1:{site.server_port}",
            "EUID_SIDECAR_LISTEN": f"127.0.0.1:{proxy}",
            "EUID_SIDECAR_WORKERS": "1",
        }
        sidecars = [Sidecar(run, operator, **front), Sidecar(run, operator, EUID_STORE_URL="memory:")]
        for sidecar in sidecars:
            check_start(sidecar.metrics())
        prometheus = Prometheus(run, folder, [sidecar.admin for sidecar in sidecars])
        traffic(sidecars, proxy, gate)
        time.sleep(1.5)  # until the last pages are scraped
        (queries, empty), rules = check_dashboard(prometheus), check_alerts(prometheus)
        assert not empty, "queries without a number:\n" + "\n".join(empty)
        print(f"{queries} queries of the dashboard return a number, {rules} alert rules are evaluated and do not fire")


if __name__ == "__main__":
    main()
