"""What scripts/record-server and scripts/real-servers send requests with: targets as raw bytes, as
no HTTP client of a library sends them, and every wait bounded.
"""

import gzip
import pathlib
import select
import socket
import time

FOLDER = pathlib.Path(__file__).resolve().parent.parent / "tests/vectors/servers"
TARGETS, ROUTES = FOLDER / "targets.hex.gz", FOLDER / "routes.tsv.gz"

# A target that each route has to answer, and one that none of them may answer.
PLAIN = {
    "c": b"/call",
    "a": b"/v2/agent/x7",
    "e": b"/v2/agent/x7/executions",
    "l": b"/v2/agent/all",
}
UNKNOWN = b"/unknown"


def targets():
    return [bytes.fromhex(line) for line in gzip.decompress(TARGETS.read_bytes()).decode().split()]


def rows():
    """The recorded rows: the names of configurations, and their letters."""
    text = gzip.decompress(ROUTES.read_bytes()).decode()
    return [tuple(line.split("\t")) for line in text.splitlines()]


class Closed(Exception):
    """The server closed the connection before it answered."""


class NoAnswer(Exception):
    """The answer took too long."""


class Nonsense(Exception):
    """What the server sent is no response."""


class Response:
    def __init__(self, status, fields, body):
        self.status, self.fields, self.body = status, fields, body

    def route(self):
        """The letter of the route that answered, if it says so."""
        letter = self.fields.get("route")
        if letter is None:
            letter = self.body.partition(b"route: ")[2][:1].decode("latin-1")
        return letter if letter in PLAIN else None

    def letter(self):
        if route := self.route():
            return route
        if self.status == 404:
            return "."
        return {2: "?", 3: "r", 5: "s"}.get(self.status // 100, "x")


class Connection:
    """A connection of HTTP/1.1 that is opened when it is needed. No answer is waited for longer
    than `seconds`."""

    def __init__(self, host, port, seconds):
        self.address, self.seconds = (host, port), seconds
        self.socket, self.received, self.used = None, b"", False

    def close(self):
        if self.socket:
            self.socket.close()
        self.socket, self.received, self.used = None, b"", False

    def send(self, data):
        """Over the open connection, unless the server has closed it, or sent what nothing was asked
        for."""
        if self.socket and (self.received or select.select([self.socket], [], [], 0)[0]):
            self.close()
        if not self.socket:
            self.socket = socket.create_connection(self.address, self.seconds)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.deadline = time.monotonic() + self.seconds
        try:
            self.socket.settimeout(self.seconds)
            self.socket.sendall(data)
        except TimeoutError:
            raise NoAnswer from None
        except OSError:
            raise Closed from None

    def more(self):
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise NoAnswer
        self.socket.settimeout(left)
        try:
            data = self.socket.recv(1 << 16)
        except TimeoutError:
            raise NoAnswer from None
        except OSError:
            raise Closed from None
        if not data:
            raise Closed
        self.received += data

    def until(self, end):
        while end not in self.received:
            if len(self.received) > 1 << 20:
                raise Nonsense
            self.more()
        found, _, self.received = self.received.partition(end)
        return found

    def exactly(self, count):
        while len(self.received) < count:
            self.more()
        found, self.received = self.received[:count], self.received[count:]
        return found

    def receive(self):
        """The next response. The connection is closed after it if the server will not go on."""
        while True:
            head = self.until(b"\r\n\r\n").decode("latin-1").split("\r\n")
            version, _, status = head[0].partition(" ")
            if not version.startswith("HTTP/1.") or not status[:3].isdigit():
                raise Nonsense
            status = int(status[:3])
            fields = {}
            for line in head[1:]:
                name, _, value = line.partition(":")
                fields[name.lower()] = value.strip()
            if status >= 200:
                break
        self.used = True
        try:
            body, ends = self.body(status, fields)
        except ValueError:
            raise Nonsense from None
        if ends or version == "HTTP/1.0" or "close" in fields.get("connection", "").lower():
            self.close()
        return Response(status, fields, body)

    def body(self, status, fields):
        """The body, and whether it was the end of the connection."""
        if status in (204, 304):
            return b"", False
        if "chunked" in fields.get("transfer-encoding", "").lower():
            body = b""
            while size := int(self.until(b"\r\n").partition(b";")[0], 16):
                body += self.exactly(size)
                self.exactly(2)
            while self.until(b"\r\n"):
                pass
            return body, False
        if "content-length" in fields:
            return self.exactly(int(fields["content-length"])), False
        try:
            while True:
                if len(self.received) > 1 << 20:
                    raise Nonsense
                self.more()
        except Closed:
            return self.received, True

    def ask(self, target, fields=()):
        """The letter for a target. A connection that turns out to be closed, as servers may close
        one that was used, is opened once more."""
        while True:
            used = self.used
            try:
                self.send(request(target, self.address, fields))
                response = self.receive()
            except Closed:
                self.close()
                if used:
                    continue
                return "x"
            except Nonsense:
                self.close()
                return "x"
            except NoAnswer:
                self.close()
                raise
            letter = response.letter()
            if letter in "x?s":
                # Servers differ in what they make of the bytes after what they have refused.
                self.close()
            return letter


def request(target, address, fields=()):
    host, port = address
    lines = [b"GET " + target + b" HTTP/1.1", f"Host: {host}:{port}".encode(), *fields]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def row(host, port, seconds=5, seconds_in_all=600, say=lambda text: None):
    """A letter for each target. Exits if the server does not have the routes, or hangs."""
    connection = Connection(host, port, seconds)
    for expected, target in [*PLAIN.items(), (".", UNKNOWN)]:
        try:
            letter = connection.ask(target)
        except (OSError, NoAnswer) as error:
            raise SystemExit(f"no answer to {target.decode()}: {error!r}") from None
        if letter != expected:
            raise SystemExit(
                f"{target.decode()} has to be answered {expected} and is answered {letter}: "
                "each handler has to answer with its letter, in a header field `Route: c` or a "
                "body `route: c`, and what has no handler with 404"
            )
    letters, silent = "", 0
    end = time.monotonic() + seconds_in_all
    for number, target in enumerate(targets(), 1):
        try:
            letters, silent = letters + connection.ask(target), 0
        except NoAnswer:
            letters, silent = letters + "x", silent + 1
        except OSError as error:
            raise SystemExit(f"the server has stopped at {target!r}: {error}") from None
        if silent == 10:
            raise SystemExit(f"no answer to ten targets in a row, the last of them {target!r}")
        if time.monotonic() > end:
            raise SystemExit(f"{number} targets took {seconds_in_all} seconds: the server is slow")
        if number % 1000 == 0:
            say(f"{number} targets")
    connection.close()
    return letters


def add(name, letters):
    """Adds a row to the recordings, or replaces it. Equal rows become one."""
    if set(name) & set("\t\n|"):
        raise SystemExit("a name has no tab, no line end and no |")
    by_letters = {}
    for names, those in rows():
        others = [other for other in names.split(" | ") if other != name]
        by_letters.setdefault(those, []).extend(others)
    by_letters.setdefault(letters, []).append(name)
    lines = sorted(
        " | ".join(sorted(names)) + "\t" + those for those, names in by_letters.items() if names
    )
    # Without the time of compression, so that equal rows are equal files.
    ROUTES.write_bytes(gzip.compress("".join(line + "\n" for line in lines).encode(), 9, mtime=0))
