"""A site that answers with its environment, for tests/proxy.py: python3 environ.py PORT"""

import json
import sys
import urllib.parse
from wsgiref.simple_server import make_server


def site(environ, start_response):
    form = dict(urllib.parse.parse_qsl(environ["QUERY_STRING"]))
    headers = [("Content-Type", "application/json")]
    if "command" in form:
        headers.append(("Euid-Command", form["command"].replace("NONCE", environ["HTTP_EUID_NONCE"])))
    start_response("200 OK", headers)
    return [json.dumps({name: value for name, value in environ.items() if isinstance(value, str)}).encode()]


make_server("127.0.0.1", int(sys.argv[1]), site).serve_forever()
