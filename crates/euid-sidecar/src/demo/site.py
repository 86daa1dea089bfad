"""The site of `euid-sidecar serve --demo`. All that it has of EUID is three headers of a request, and one of a response."""

import html
import urllib.parse
from wsgiref.simple_server import WSGIRequestHandler, make_server

PAGE = """<!doctype html><title>A site behind the sidecar</title><meta name=viewport content="width=device-width">
<style>body {{ font: 1rem/1.5 sans-serif; max-width: 40rem; margin: 2rem auto; padding: 0 1rem }}
code {{ overflow-wrap: anywhere }} input {{ font: inherit }}</style>
<h1>A site behind the sidecar</h1>
<p>State of this visitor, in <code>Euid-State</code>: <b id=state>{state}</b></p>
<p>Token for the bid request, in <code>Euid-Token</code>: <code id=token>{token}</code></p>
<p>Cookies that reach the site: <code id=cookies>{cookies}</code></p>
<form method=post action=/login><input name=email type=email required value=user@example.com>
<button>Log in</button></form>
<form method=post action=/logout><button>Log out</button></form>
<p>A refresh is due after 10 to 21 s: reload the page to see the token change. optout@example.com has opted out.</p>"""


class Quiet(WSGIRequestHandler):
    def log_message(self, *_):
        pass


def command(environ):
    """What the site asks of the sidecar, after a form has been sent."""
    length = int(environ.get("CONTENT_LENGTH") or 0)
    form = dict(urllib.parse.parse_qsl(environ["wsgi.input"].read(length).decode()))
    if environ["PATH_INFO"] != "/login":
        return "logout"
    fields = {"nonce": environ.get("HTTP_EUID_NONCE", ""), "email": form.get("email", "")}
    return "login?" + urllib.parse.urlencode(fields, quote_via=urllib.parse.quote)


def site(environ, start_response):
    if environ["REQUEST_METHOD"] == "POST":
        start_response("303 See Other", [("Location", "/"), ("Euid-Command", command(environ))])
        return []
    shown = {
        "state": environ.get("HTTP_EUID_STATE", "unknown: this request has not passed the sidecar"),
        "token": environ.get("HTTP_EUID_TOKEN", "none"),
        "cookies": environ.get("HTTP_COOKIE", "none"),
    }
    start_response("200 OK", [("Content-Type", "text/html; charset=utf-8"), ("Cache-Control", "public, max-age=60")])
    return [PAGE.format(**{name: html.escape(text) for name, text in shown.items()}).encode()]


server = make_server("127.0.0.1", 0, site, handler_class=Quiet)
print(server.server_port, flush=True)
try:
    server.serve_forever()
except KeyboardInterrupt:
    pass
