"""A site on the WSGI client, for tests/process.py: python3 site.py PORT"""

import json
import sys
import time
import urllib.parse
from wsgiref.simple_server import WSGIRequestHandler, make_server
from wsgiref.validate import validator

import euid_sidecar


class Quiet(WSGIRequestHandler):
    def log_message(self, *_):
        pass


def site(environ, start_response):
    form = dict(urllib.parse.parse_qsl(environ["QUERY_STRING"]))
    if environ["PATH_INFO"] in ("/login", "/logout"):
        environ["euid.answer"] = euid_sidecar.ask(environ, environ["PATH_INFO"][1:], form)
    cache_control = "No-Store" if "strict" in form else "public, max-age=60"
    headers = [("Content-Type", "application/json"), ("Set-Cookie", "theme=dark"), ("Vary", "Accept-Encoding"), ("Server-Timing", "site")]
    headers.append(("Cache-Control", cache_control))
    start_response("200 OK", headers)
    milliseconds = (time.monotonic() - environ["site.began"]) * 1000
    return [json.dumps({"euid": environ["euid.answer"], "milliseconds": milliseconds}).encode()]


def clocked(application):
    return lambda environ, start: application(environ | {"site.began": time.monotonic()}, start)


# The client keeps to WSGI on both of its sides.
application = clocked(validator(euid_sidecar.middleware(validator(site))))
make_server("127.0.0.1", int(sys.argv[1]), application, handler_class=Quiet).serve_forever()
