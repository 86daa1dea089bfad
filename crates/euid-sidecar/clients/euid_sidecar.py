"""The visitor's EUID in WSGI: after `application = middleware(site)`, `environ["euid.answer"]` is the answer for the page.
A login is `environ["euid.answer"] = ask(environ, "login", {"email": address})`, a logout the same with "logout" alone."""
import contextlib, json, socket, time, urllib.parse

def ask(environ, call="page", form=(), path="/run/euid-sidecar/api.sock"):
    end, body = time.monotonic() + (patience := 0.05 if call.startswith("page") else 6), urllib.parse.urlencode(form)
    passed = [name for name in environ if name.startswith(("HTTP_COOKIE", "HTTP_SEC_", "HTTP_EUID_", "HTTP_UID2_"))]
    head = f"{'GET' if call.startswith('page') else 'POST'} /v1/{call} HTTP/1.0\r\nContent-Length: {len(body)}\r\n"
    head += "".join(f"{name[5:].replace('_', '-')}: {environ[name]}\r\n" for name in passed)
    with contextlib.suppress(OSError, ValueError), socket.socket(socket.AF_UNIX) as api:
        api.settimeout(patience), api.connect(path), api.sendall(f"{head}\r\n{body}".encode("latin1"))
        part = lambda: (api.settimeout(max(end - time.monotonic(), 1e-6)), api.recv(65536))[1]
        return json.loads(b"".join(iter(part, b"")).partition(b"\r\n\r\n")[2])
    return {}

def middleware(site):
    def page(environ, start_response):
        def start(status, headers, *error):
            set_cookie, ours = (environ["euid.answer"].get(name, {}) for name in ("set_cookie", "headers"))
            kept = [it for it in headers if it[0].lower() not in ours.keys() & {"cache-control"} or "no-store" in it[1].lower()]
            return start_response(status, kept + [*ours.items()] + [("Set-Cookie", it) for it in set_cookie], *error)
        environ["euid.answer"] = ask(environ)
        return site(environ, start)
    return page
