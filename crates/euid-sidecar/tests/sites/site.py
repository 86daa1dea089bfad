"""A site on the WSGI client, for tests/process.py: python3 site.py PORT"""

import json
import sys
import time
import urllib.parse
from wsgiref.simple_server import WSGIRequestHandler, make_server

import euid_sidecar


class Quiet(WSGIRequestHandler):
    def log_message(self, *_):
        pass


def site(environ, start_response):
    form = dict(urllib.parse.parse_qsl(environ["QUERY_STRING"]))
    if environ["PATH_INFO"] in ("/login", "/logout"):
        environ["euid"] = euid_sidecar.ask(environ, environ["PATH_INFO"][1:], form)
    cache_control = "No-Store" if "strict" in form else "public, max-age=60"
    headers = [("Set-Cookie", "theme=dark"), ("Vary", "Accept-Encoding"), ("Server-Timing", "site")]
    headers.append(("Cache-Control", cache_control))
    start_response("200 OK", headers)
    milliseconds = (time.monotonic() - environ["began"]) * 1000
    return [json.dumps({"euid": environ["euid"], "milliseconds": milliseconds}).encode()]


def clocked(application):
    return lambda environ, start: application(environ | {"began": time.monotonic()}, start)


make_server("127.0.0.1", int(sys.argv[1]), clocked(euid_sidecar.middleware(site)), handler_class=Quiet).serve_forever()
