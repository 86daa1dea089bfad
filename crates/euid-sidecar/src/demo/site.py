"""The site of `euid-sidecar serve --demo`. All that it knows of EUID is the client in euid_sidecar.py."""

import html
import urllib.parse
from wsgiref.simple_server import WSGIRequestHandler, make_server

import euid_sidecar

PAGE = """<!doctype html><title>A site beside the sidecar</title><meta name=viewport content="width=device-width">
<style>body {{ font: 1rem/1.5 sans-serif; max-width: 40rem; margin: 2rem auto; padding: 0 1rem }}
code {{ overflow-wrap: anywhere }} input {{ font: inherit }}</style>
<h1>A site beside the sidecar</h1>
<p>State of this visitor: <b id=state>{state}</b></p>
<p>Token for the bid request: <code id=token>{token}</code></p>
<p>{error}</p>
<form method=post action=/login><input name=email type=email required value=user@example.com>
<button>Log in</button></form>
<form method=post action=/logout><button>Log out</button></form>
<p>A refresh is due after 10 s: reload the page to see the token change. optout@example.com has opted out.</p>"""


class Quiet(WSGIRequestHandler):
    def log_message(self, *_):
        pass


def site(environ, start_response):
    length = int(environ.get("CONTENT_LENGTH") or 0)
    form = dict(urllib.parse.parse_qsl(environ["wsgi.input"].read(length).decode()))
    if environ["REQUEST_METHOD"] == "POST":
        login = {"email": form["email"]} if environ["PATH_INFO"] == "/login" and "email" in form else {}
        environ["euid"] = euid_sidecar.ask(environ, "login" if login else "logout", login, 6)
    answer = environ["euid"]
    shown = {
        "state": answer.get("state", "unknown: the sidecar did not answer"),
        "token": answer.get("advertising_token") or "none",
        "error": answer.get("error", ""),
    }
    start_response("200 OK", [("Content-Type", "text/html; charset=utf-8"), ("Cache-Control", "public, max-age=60")])
    return [PAGE.format(**{name: html.escape(text) for name, text in shown.items()}).encode()]


server = make_server("127.0.0.1", 0, euid_sidecar.middleware(site), handler_class=Quiet)
print(f"site: http://127.0.0.1:{server.server_port}/", flush=True)
try:
    server.serve_forever()
except KeyboardInterrupt:
    pass
