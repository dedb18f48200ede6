"""Starts the servers, has each client upload to them, and counts the refusals that it did not read.

    drive.py FOLDER EXAMPLES    the folder with the clients and what they need, and the programs
"""

import collections
import concurrent.futures
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

sys.dont_write_bytecode = True
from clients import BOUND, SIZES, Case, Failure, Processes, clients
from network import Network

# A connection over which a request was refused goes on being used. Not 1, since a client may close
# a connection that was idle, and fetch opens two to begin with.
CONNECTIONS = 2
CLIENTS_AT_ONCE = 4

LIMITS = """
[default]
limit = 1000
per = "minute"

[[endpoint]]
name = "call"
limit = 1
per = "day"
paths = ["/call"]
"""

Row = collections.namedtuple("Row", "client status framing way cells")
Cell = collections.namedtuple("Cell", "lost count connections")


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def serve(processes, folder, program, *arguments):
    """Starts a server and waits for it. Returns its port."""
    port = free_port()
    log = folder / f"{program.name}.log"
    with open(log, "wb") as output:
        process = processes.start(
            [program, *arguments],
            env={**os.environ, "LISTEN": f"127.0.0.1:{port}"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    end = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return port
        except OSError:
            pass
        if process.poll() is not None or time.monotonic() > end:
            raise Failure(f"{program} does not start:\n{log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.02)


def status_of(port, token):
    """The status of a request without a body."""
    fields = f"Host: localhost\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n"
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        connection.sendall(f"POST /call HTTP/1.1\r\n{fields}\r\n".encode())
        return int(connection.makefile("rb").readline().split()[1])


def cause(line):
    """What went wrong, without what is different each time."""
    line = re.sub(r"127\.0\.0\.1:\d+", "...", line)
    line = re.sub(r"\d+ milliseconds", "... milliseconds", line)
    return f"timeout: {line}" if re.search("timed ?out|timeout", line, re.IGNORECASE) else line


def measure(client, servers, processes, folder):
    """The rows of one client, and how often it met each error."""
    rows, errors = [], collections.Counter()
    for status, (port, token) in servers.items():
        network = Network(port)
        for framing in client.framings:
            for way, to in (("loopback", port), ("20 ms", network.port)):
                cells = {}
                for size, count in client.counts.items():
                    url, before = f"http://127.0.0.1:{to}/call", network.connections
                    case = Case(url, token, status, framing, SIZES[size], count)
                    lines = client.program.lines(case, processes, folder)
                    if len(lines) > count:
                        raise Failure(f"{client.name} says more than {count} times what it read")
                    lines += ["timeout, and not sent any more"] * (count - len(lines))
                    lost = [line for line in lines if line != "read"]
                    bound = "up to 1 MiB" if SIZES[size] <= BOUND else "4 MiB"
                    errors.update((bound, cause(line)) for line in lost)
                    cells[size] = Cell(len(lost), count, network.connections - before)
                rows.append(Row(client, status, framing, way, cells))
    return rows, errors


def report(rows, errors):
    widths = [28, 7, 8, *[7] * len(SIZES), 16]

    def line(*cells):
        print("|", " | ".join(f"{cell:{width}}" for cell, width in zip(cells, widths)), "|")

    for status, server in ((429, "axum"), (401, "hyper")):
        print(f"\nRefusals with {status} by {server}: lost / sent,")
        print("and for each size the connections that were opened\n")
        line("client", "body", "over", *SIZES, "connections")
        line(*["-" * width for width in widths])
        for row in rows:
            if row.status == status:
                cells = [row.cells.get(size) for size in SIZES]
                texts = [f"{cell.lost}/{cell.count}" if cell else "" for cell in cells]
                used = " ".join(str(cell.connections) for cell in cells if cell)
                used = used if row.way == "20 ms" else ""
                line(row.client.name, row.framing, row.way, *texts, used)
    print("\nHow often each client met an error\n")
    for name, kinds in errors:
        for (bound, kind), times in sorted(kinds.items()):
            print(f"{times:5}  {name}, {bound}: {kind}")


def broken(rows):
    """What of the promise does not hold."""
    for row in rows:
        for size, cell in row.cells.items():
            if SIZES[size] > BOUND or not row.client.promised:
                continue
            where = f"{row.client.name}, {row.status}, {row.framing}, {row.way}, {size}"
            if cell.lost:
                yield f"{where}: {cell.lost} of {cell.count} refusals are lost"
            elif row.client.keeps and cell.connections > CONNECTIONS:
                yield f"{where}: {cell.connections} connections for {cell.count} requests"


def main(folder, examples):
    folder, examples = pathlib.Path(folder).resolve(), pathlib.Path(examples).resolve()
    # So that what was started is ended when this is.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("it took too long"))
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            del os.environ[name]
    for size in SIZES.values():
        (folder / f"{size}.bytes").write_bytes(b"x" * size)
    limits = folder / "limits"
    limits.mkdir(exist_ok=True)
    (limits / "limits.toml").write_text(LIMITS)
    processes, pool = Processes(), concurrent.futures.ThreadPoolExecutor(CLIENTS_AT_ONCE)
    rows, errors = [], []
    try:
        axum = serve(processes, folder, examples / "reload", limits / "limits.toml")
        hyper = serve(processes, folder, examples / "hyper_proxy")
        got = [status_of(axum, "ana@acme"), status_of(axum, "ana@acme"), status_of(hyper, "")]
        if got != [200, 429, 401]:
            raise Failure(f"the servers don't refuse as they should: {got}")
        servers = {429: (axum, "ana@acme"), 401: (hyper, "-")}
        all_of_them = clients(folder)
        measured = pool.map(lambda it: measure(it, servers, processes, folder), all_of_them)
        for client, (some, kinds) in zip(all_of_them, measured):
            rows += some
            errors.append((client.name, kinds))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        processes.end()
        if rows:
            report(rows, errors)
    failures = list(broken(rows))
    if failures:
        some = "\n".join(failures[:20])
        sys.exit(f"\nThe promise is broken {len(failures)} times. The first of them:\n{some}")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except (Failure, OSError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
