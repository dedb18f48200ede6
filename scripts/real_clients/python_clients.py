"""Uploads with http.client, requests and httpx.

    python_clients.py LIBRARY

Each line that it reads is a case: a URL, a token, or - for none, the status that is expected, how
the body is sent, its size, and the number of requests. For each request it prints `read` or what
went wrong, and after the last one an empty line.
"""

import http.client
import sys
import time
import urllib.parse

PIECE, SECONDS = 16384, 10


def pieces(body, size=PIECE, pause=0):
    for start in range(0, len(body), size):
        if start:
            time.sleep(pause)
        yield body[start : start + size]


class HttpClient:
    """One connection, which http.client opens anew when it was closed."""

    def __init__(self, url, fields):
        self.url, self.fields = urllib.parse.urlsplit(url), fields
        self.connection = http.client.HTTPConnection(self.url.netloc, timeout=SECONDS)

    def request(self, body, chunked):
        body = pieces(body) if chunked else body
        self.connection.request("POST", self.url.path, body, self.fields, encode_chunked=chunked)

    def post(self, body, chunked):
        try:
            self.request(body, chunked)
            response = self.connection.getresponse()
            return response.status, response.read()
        except Exception:
            self.connection.close()
            raise


class OneByOne(HttpClient):
    """A connection for each request."""

    def post(self, body, chunked):
        try:
            return super().post(body, chunked)
        finally:
            self.connection.close()


class Later(HttpClient):
    """The body comes 3 ms after the head."""

    def request(self, body, chunked):
        assert not chunked
        self.connection.putrequest("POST", self.url.path)
        for name, value in {**self.fields, "Content-Length": len(body)}.items():
            self.connection.putheader(name, value)
        self.connection.endheaders()
        time.sleep(0.003)
        self.connection.send(body)


class Slowly(HttpClient):
    """8 kB every 20 ms."""

    def request(self, body, chunked):
        fields = self.fields if chunked else {**self.fields, "Content-Length": str(len(body))}
        body = pieces(body, 8192, 0.02)
        self.connection.request("POST", self.url.path, body, fields, encode_chunked=chunked)


class Requests:
    def __init__(self, url, fields):
        import requests

        self.url, self.fields, self.sends = url, fields, self.sender(requests)

    def sender(self, requests):
        return requests

    def post(self, body, chunked):
        response = self.sends.post(
            self.url,
            data=pieces(body) if chunked else body,
            headers=self.fields,
            timeout=SECONDS,
        )
        return response.status_code, response.content


class RequestsSession(Requests):
    def sender(self, requests):
        return requests.Session()


class HttpxClient:
    def __init__(self, url, fields):
        import httpx

        self.url, self.client = url, httpx.Client(headers=fields, timeout=SECONDS)

    def post(self, body, chunked):
        response = self.client.post(self.url, content=pieces(body) if chunked else body)
        return response.status_code, response.content


LIBRARIES = {
    "http.client": HttpClient,
    "http.client-one-by-one": OneByOne,
    "http.client-later": Later,
    "http.client-slowly": Slowly,
    "requests": Requests,
    "requests.Session": RequestsSession,
    "httpx.Client": HttpxClient,
}


def one_line(text):
    return " ".join(str(text).split())


def outcome(library, body, chunked, expected):
    try:
        status, text = library.post(body, chunked)
    except Exception as error:
        return f"{type(error).__name__}: {one_line(error)}"
    if status != expected or f'"status":{expected}'.encode() not in text:
        return one_line(f"status {status}: {text[:80]}")
    return "read"


def main(name):
    for line in sys.stdin:
        url, token, expected, framing, size, count = line.split()
        fields = {} if token == "-" else {"Authorization": f"Bearer {token}"}
        library, body = LIBRARIES[name](url, fields), b"x" * int(size)
        for _ in range(int(count)):
            print(outcome(library, body, framing == "chunked", int(expected)), flush=True)
        print(flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
