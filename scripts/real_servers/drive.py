"""Starts the servers, sends the spellings, and compares what the servers counted with the limits.

    drive.py FOLDER PROXY    the folder with the servers and what they need, and the program
"""

import contextlib
import itertools
import json
import math
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import recording
from recording import Closed, Connection, NoAnswer, Nonsense

# What a route's limit admits at once, and the time in which a unit comes back.
LIMITS = {"c": (500, 0.12), "a": (500, 0.12), "e": (500, 0.12), "l": (1000, 0.06)}
NAMES = {"c": "call", "a": "agent", "e": "executions", "l": "default"}
# How often a spelling of one kind is sent, and one that mixes several kinds or was recorded.
TIMES, TIMES_MIXED = 100, 3
# How many requests are on their way over a connection.
AT_ONCE = 50

NGINX = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr crit;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path {folder}/nginx-body;
    proxy_temp_path {folder}/nginx-proxy;
    fastcgi_temp_path {folder}/nginx-fastcgi;
    uwsgi_temp_path {folder}/nginx-uwsgi;
    scgi_temp_path {folder}/nginx-scgi;
    server {{
        listen 127.0.0.1:{port};
        location / {{ proxy_pass http://127.0.0.1:{upstream}{uri}; }}
    }}
}}
"""


class Failure(Exception):
    pass


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def spellings(route):
    """Targets, each with header fields, that one server or another takes for a path of the route:
    those of one kind, and mixtures."""
    path = recording.PLAIN[route]
    last = path[-1:]
    but_last = path[:-1]
    before = [
        b"/", b"/.", b"/x/..", b"/x;/..", b"/x/..;", b"/%2e", b"/x/%2e%2e", b"/x%2f..",
        b"/x%2f..%2f..", b"/x/%252e%252e", b"/x/%u002e%u002e", b"/x/%c0%ae%c0%ae", b"/x/.%2e",
        b"/index.php", b"/;x", b"//x/..", b"/\\", b"/x\\..", b"/x%5c..", b"/x/%5c..",
    ]  # fmt: skip
    after = [
        b"/", b"//", b"/.", b";/x", b";a/../x%0a", b";a=b", b";", b"%3b", b"%3bx/y", b".json",
        b".txt", b".", b"...", b"%20.", b"%2e", b"%20", b"+", b"%00", b"%00.png", b"%0a",
        b"%0d%0ax:y", b"%ff", b"%ad", b"%e0%80%80", b"%c2%a0", b"%2f", b"%252f", b"%3f", b"%3fx",
        b"%253fx", b"%23", b"?x", b"?/..", b"%5c", b"\\", b"/x/..", b"/x/%2e%2e", b"/;/..", b"/.;",
        b"%09",
    ]  # fmt: skip
    code = b"%02x" % last[0]
    coded = [b"%" + code, b"%25" + code, b"%u00" + code, b"%%3" + code[:1] + code[1:]]
    coded += [b"%ff" + last, b"%ad" + last, b"%c3" + last, last.upper()]
    single = [path, path.upper(), path.title()]
    single += [start + path for start in before]
    single += [path + end for end in after]
    single += [but_last + end for end in coded]
    # A reading that reaches another endpoint beside, and the long way.
    single += [
        b"/v2/agent/x/executions%3f/../../../../.." + path,
        b"/v2/agent/x%3f/../../../.." + path,
        b"/" + b"./" * 300 + path[1:],
        b"/v2/agent/x7/../../.." + path,
        b"/healthz%3f/.." + path,
    ]
    if route == "e":
        ids = [b"", b"%20", b"%00"]
        single += [b"/v2/agent/" + some + b"/executions" for some in ids]
    if route == "a":
        single += [b"/v2/agent/", b"/v2/agent/all/%2e%2e", b"/v2/agent/x7/.%2e", b"/v2/agent/%20"]
    fielded = [
        (b"/x", (b"X-Original-URL: " + path,)),
        (b"/x", (b"X-Rewrite-URL: " + path,)),
        (b"/x" + path, (b"SCRIPT_NAME: /x",)),
        (b"/x" + path, (b"Script-Name: /x",)),
        (b"/x" + path, (b"X-Forwarded-Prefix: /x",)),
        (b"/x", (b"PATH_INFO: " + path,)),
    ]
    mixed = [
        start + middle + end
        for start, middle, end in itertools.product(
            [b"", *before], [path, but_last + coded[0], but_last + coded[1]], [b"", *after]
        )
    ]
    single = dict.fromkeys([*((target, ()) for target in single), *fielded])
    mixed = dict.fromkeys((target, ()) for target in mixed)
    return list(single), [spelling for spelling in mixed if spelling not in single]


class Servers:
    """The processes of one configuration, which end with it."""

    def __init__(self, folder):
        self.folder, self.running = folder, []

    def start(self, name, *command, **environment):
        log = open(self.folder / f"{name}.log", "wb")
        self.running.append(
            subprocess.Popen(
                command,
                cwd=self.folder,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        )
        return self.running[-1]

    def started(self, name, port, *command, **environment):
        """Starts a server and waits for it."""
        process = self.start(name, *command, **environment)
        end = time.monotonic() + 30
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), 1).close()
                return port
            if process.poll() is not None or time.monotonic() > end:
                log = (self.folder / f"{name}.log").read_text(errors="replace")
                raise Failure(f"{name} does not start:\n{log[-2000:]}")
            time.sleep(0.02)

    def end(self):
        for process in reversed(self.running):
            process.terminate()
        for process in self.running:
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def node(self, name):
        port = free_port()
        return self.started(name, port, "node", f"{name}.mjs", PORT=str(port))

    def uvicorn(self):
        port = free_port()
        python, options = self.folder / "python/bin/python", ["--log-level", "warning"]
        return self.started(
            "uvicorn", port, python, "-m", "uvicorn", "asgi:app", "--port", str(port), *options
        )

    def gunicorn(self):
        port = free_port()
        python, options = self.folder / "python/bin/python", ["--threads", "4", "-b"]
        return self.started(
            "gunicorn", port, python, "-m", "gunicorn", *options, f"127.0.0.1:{port}", "wsgi:app"
        )

    def nginx(self, upstream, uri):
        port = free_port()
        configuration = self.folder / "nginx.conf"
        configuration.write_text(
            NGINX.format(folder=self.folder, port=port, upstream=upstream, uri=uri)
        )
        return self.started("nginx", port, "nginx", "-p", self.folder, "-c", configuration)

    def proxy(self, program, upstream):
        port = free_port()
        return self.started(
            "hyper_proxy",
            port,
            program,
            LISTEN=f"127.0.0.1:{port}",
            UPSTREAM=f"http://127.0.0.1:{upstream}",
        )


def same(port):
    return port, port


def behind_nginx(servers, uri):
    upstream = servers.uvicorn()
    return servers.nginx(upstream, uri), upstream


# Each is a name, the recorded row with the same servers, and how to start it: the result is the
# port that requests go to, and that of the server that counts.
CONFIGURATIONS = [
    ("node", "nodeurl", lambda servers: same(servers.node("node"))),
    ("fastify", "fastify4", lambda servers: same(servers.node("fastify"))),
    ("express", "express5", lambda servers: same(servers.node("express"))),
    ("nginx>starlette", "nginx(URI)>starlette-httptools", lambda it: behind_nginx(it, "/")),
    ("nginx$uri>starlette", "nginx$uri>fastapi", lambda it: behind_nginx(it, "$uri")),
    ("gunicorn", None, lambda servers: same(servers.gunicorn())),
]


def counts(port):
    connection = Connection("127.0.0.1", port, 10)
    connection.send(recording.request(b"/counts", connection.address))
    response = connection.receive()
    connection.close()
    return json.loads(response.body)


def letter(connection, target, fields):
    try:
        return connection.ask(target, fields)
    except NoAnswer:
        return "x"


def send(connection, requests):
    """The letters of the answers to the requests, many of which are on their way at once."""
    letters = []
    while len(letters) < len(requests):
        some = requests[len(letters) : len(letters) + AT_ONCE]
        got = 0
        try:
            connection.send(b"".join(some))
            while got < len(some):
                letters.append(connection.receive().letter())
                got += 1
                if not connection.socket:
                    break
        except Closed:
            connection.close()
        except Nonsense as error:
            raise Failure("the proxy answered with nonsense") from error
        if not got:
            # The server has closed the connection, as it may between two requests; or the first of
            # the requests makes it do so.
            try:
                connection.send(some[0])
                letters.append(connection.receive().letter())
            except (Closed, Nonsense):
                letters.append("x")
                connection.close()
    return letters


def recorded(name):
    for names, letters in recording.rows():
        if name in names.split(" | "):
            return letters
    raise Failure(f"nothing is recorded of {name}")


def reached(route, proxy, direct, backend, known):
    """Sends a caller's requests for one route. Returns how many reached the handler, how many may
    have, how many were sent, how many spellings reach the handler, the seconds that it took, and how
    often each spelling got through after the limit was used up."""
    single, mixed = spellings(route)
    asked = Connection("127.0.0.1", direct, 10)
    ways = [(recording.PLAIN[route], ())] * (LIMITS[route][0] + 100)
    reaching = 0
    for spelling in single:
        reaches = letter(asked, *spelling) == route
        reaching += reaches
        ways += [spelling] * (TIMES if reaches else 1)
    for spelling in mixed:
        if letter(asked, *spelling) == route:
            reaching += 1
            ways += [spelling] * TIMES_MIXED
    for target in known:
        reaching += 1
        ways += [(target, ())] * TIMES_MIXED
    asked.close()
    connection = Connection("127.0.0.1", proxy, 30)
    caller = f"Authorization: Bearer ana@{NAMES[route]}".encode()
    requests = [
        recording.request(target, connection.address, (caller, *fields)) for target, fields in ways
    ]
    before, start = counts(backend), time.monotonic()
    letters = send(connection, requests)
    elapsed = time.monotonic() - start
    connection.close()
    count = counts(backend)[route] - before[route]
    burst, interval = LIMITS[route]
    most = burst + math.ceil(elapsed / interval)
    escaped = {}
    for way, got in list(zip(ways, letters))[burst + 100 :]:
        if got == route:
            escaped[way] = escaped.get(way, 0) + 1
    return count, most, len(ways), reaching, elapsed, escaped


def shown(spelling):
    target, fields = spelling
    text = repr(target)[2:-1]
    return " ".join([text if len(text) <= 60 else text[:57] + "...", *map(bytes.decode, fields)])


def run(folder, program, name, row, start):
    """Whether the limits hold in front of the servers of a configuration."""
    servers, holds = Servers(folder), True
    try:
        direct, backend = start(servers)
        proxy = servers.proxy(program, direct)
        letters = recording.row("127.0.0.1", direct, seconds=2, seconds_in_all=120)
        targets = recording.targets()
        if row:
            others = sum(a != b for a, b in zip(letters, recorded(row)))
            print(f"{name}: {others} of {len(letters)} answers differ from the recorded ones")
        for route in LIMITS:
            known = [target for target, got in zip(targets, letters) if got == route]
            count, most, sent, reaching, elapsed, escaped = reached(
                route, proxy, direct, backend, known
            )
            if count < LIMITS[route][0]:
                raise Failure(f"only {count} requests reached {NAMES[route]}: this shows nothing")
            verdict = "holds" if count <= most else "ESCAPES"
            holds &= count <= most
            print(
                f"{name:20} {NAMES[route]:10} {count:6} of {sent} requests in {elapsed:.1f} s, "
                f"{reaching} spellings, at most {most}: {verdict}",
                flush=True,
            )
            if count > most:
                for spelling, times in sorted(escaped.items(), key=lambda it: -it[1])[:12]:
                    print(f"    {times:5}  {shown(spelling)}")
    finally:
        servers.end()
    return holds


def main(folder, program):
    folder, program = pathlib.Path(folder).resolve(), pathlib.Path(program).resolve()
    # So that the servers are ended when this is.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("it took too long"))
    failed = [name for name, *rest in CONFIGURATIONS if not run(folder, program, name, *rest)]
    if failed:
        sys.exit(f"a caller escapes the limits in front of {', '.join(failed)}")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except (Failure, NoAnswer, Nonsense, Closed, OSError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
