"""An application that routes by the path that its WSGI server hands over. Each handler counts its
calls."""

import json
import re

counts = dict.fromkeys("cael", 0)
ROUTES = {
    "c": "/call",
    "l": "/v2/agent/all",
    "a": "/v2/agent/[^/]+",
    "e": "/v2/agent/[^/]+/executions",
}


def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/counts":
        start_response("200 OK", [])
        return [json.dumps(counts).encode()]
    letter = next((it for it, pattern in ROUTES.items() if re.fullmatch(pattern, path)), None)
    if letter is None:
        start_response("404 Not Found", [("Content-Length", "0")])
        return []
    counts[letter] += 1
    start_response("200 OK", [("Content-Length", "0"), ("Route", letter)])
    return []
