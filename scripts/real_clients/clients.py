"""The clients, and how each of them is told what to upload."""

import collections
import os
import re
import select
import subprocess
import threading
import time

# Up to this size no refusal may be lost: what the limiter reads of a refused request's body.
BOUND = 1 << 20
SIZES = {"200 B": 200, "30 kB": 30_000, "200 kB": 200_000, "1 MiB": BOUND, "4 MiB": 4 << 20}

# `keeps` says whether all requests of a case should go over one connection, and `counts` how many
# of each size there are. What a client loses that is not `promised` its refusals is only counted.
Client = collections.namedtuple(
    "Client", "name framings keeps counts program promised", defaults=[True]
)
Case = collections.namedtuple("Case", "url token status framing size count")


def clients(folder):
    """All of them. Their programs are in the folder."""
    python, both, length = folder / "python/bin/python", ("length", "chunked"), ("length",)
    chunked = ("chunked",)
    counts = dict(zip(SIZES, (20, 20, 20, 20, 5)))
    slowly, more_slowly = {"200 kB": 4, "1 MiB": 2}, {"200 kB": 2}

    def of_python(name):
        return Program(python, "python_clients.py", name)

    def of_node(name):
        return Program("node", "node_clients.mjs", name)

    later, slow = of_python("http.client-later"), of_python("http.client-slowly")
    # Without the Expect field which curl sends with bodies that are long or of unknown length.
    plain = Curl("-H", "Expect:")
    slow_curl = Curl("-H", "Expect:", "--limit-rate", "100k")
    # With one, but without waiting for what the server says to it.
    impatient = Curl("-H", "Expect: 100-continue", "--expect100-timeout", "0.005")
    return [
        Client("http.client, body 3 ms later", length, True, {"200 B": 600}, later),
        Client("http.client, 8 kB each 20 ms", both, True, slowly, slow),
        Client("curl --limit-rate 100k", length, True, more_slowly, slow_curl),
        Client("curl --limit-rate 100k -T -", chunked, False, more_slowly, slow_curl),
        Client("http.client", both, True, counts, of_python("http.client")),
        Client("http.client, one by one", both, False, counts, of_python("http.client-one-by-one")),
        Client("requests.post", both, False, counts, of_python("requests")),
        Client("requests.Session", both, True, counts, of_python("requests.Session")),
        Client("httpx.Client", both, True, counts, of_python("httpx.Client")),
        Client("Node fetch", both, True, counts, of_node("fetch")),
        Client("got", both, True, counts, of_node("got")),
        Client("axios", both, True, counts, of_node("axios")),
        Client("Go net/http", both, True, counts, Program(folder / "go_client")),
        Client("curl", length, True, counts, Curl()),
        Client("curl -T -", chunked, False, counts, Curl()),
        Client("curl -H Expect:", length, True, counts, plain),
        Client("curl -H Expect: -T -", chunked, False, counts, plain),
        Client("curl, Expect, impatient", length, False, counts, impatient, promised=False),
        Client("wget", length, True, counts, Wget()),
    ]


class Failure(Exception):
    pass


def seconds(case):
    """How long the requests of a case may take. Each client gives a request up after ten seconds,
    and a few of them are enough to see that it hangs."""
    return 30 + case.count / 10


class Processes:
    """What this has started, which ends with it."""

    def __init__(self):
        self.running, self.lock, self.ended = [], threading.Lock(), False

    def start(self, command, **options):
        with self.lock:
            if self.ended:
                raise Failure("this ends")
            self.running.append(subprocess.Popen([str(word) for word in command], **options))
            return self.running[-1]

    def end(self):
        with self.lock:
            self.ended = True
        for process in self.running:
            if process.poll() is None:
                process.terminate()
        for process in self.running:
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


class Program:
    """A client that is told of cases as python_clients.py describes, one after the other."""

    def __init__(self, *command):
        self.command, self.process = command, None

    def lines(self, case, processes, folder):
        """A line for each request."""
        if not self.process:
            self.process = processes.start(
                self.command,
                cwd=folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
        self.process.stdin.write(" ".join(map(str, case)).encode() + b"\n")
        self.process.stdin.flush()
        end, output = time.monotonic() + seconds(case), b""
        while not output.endswith(b"\n\n") and output != b"\n":
            left = end - time.monotonic()
            if left <= 0 or not select.select([self.process.stdout], [], [], left)[0]:
                break
            data = os.read(self.process.stdout.fileno(), 1 << 16)
            if not data:
                command = " ".join(map(str, self.command))
                raise Failure(f"{command} has ended: {self.process.wait()}")
            output += data
        else:
            return output.decode().splitlines()[:-1]
        self.process.kill()
        self.process.wait()
        self.process = None
        return output.decode().splitlines()


class Command:
    """A client that is a command, and what its output says of each request."""

    def run(self, command, case, processes, file):
        with open(file, "rb") as body:
            process = processes.start(
                command, stdin=body, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
            try:
                return process.communicate(timeout=seconds(case))[0].decode(errors="replace")
            except subprocess.TimeoutExpired:
                process.kill()
                return process.communicate()[0].decode(errors="replace")


class Curl(Command):
    def __init__(self, *options):
        self.options = options

    def lines(self, case, processes, folder):
        file = folder / f"{case.size}.bytes"
        command = ["curl", "-q", "-sS", "-X", "POST", "-m", "10", *self.options]
        if case.token != "-":
            command += ["-H", f"Authorization: Bearer {case.token}"]
        command += ["-o", os.devnull]
        command += ["-w", "%{exitcode} %{http_code} %{size_download} %{errormsg}\n"]
        if case.framing == "chunked":
            # Standard input can be sent once.
            command += ["-T", "-", case.url]
            output, end = "", time.monotonic() + seconds(case)
            for _ in range(case.count):
                if time.monotonic() < end:
                    output += self.run(command, case, processes, file)
        else:
            command += ["--data-binary", f"@{file}", f"{case.url}?[1-{case.count}]"]
            output = self.run(command, case, processes, file)
        # Standard error says the same.
        lines = [line for line in output.splitlines() if not line.startswith("curl: ")]
        return ["read" if self.has_read(line, case) else line for line in lines]

    def has_read(self, line, case):
        return re.match(rf"0 {case.status} [1-9]", line) is not None


class Wget(Command):
    def lines(self, case, processes, folder):
        file = folder / f"{case.size}.bytes"
        command = ["wget", "--no-config", "-S", "-t", "1", "-T", "10", "-O", os.devnull]
        command += ["--content-on-error", f"--post-file={file}"]
        if case.token != "-":
            command.append(f"--header=Authorization: Bearer {case.token}")
        output = self.run([*command, *[case.url] * case.count], case, processes, file)
        # Each request begins with its time and its address.
        requests = re.split(r"^--\d.*", output, flags=re.MULTILINE)[1:]
        return [self.outcome(request, case) for request in requests]

    def outcome(self, text, case):
        if f"HTTP/1.1 {case.status} " in text:
            return "read"
        return " ".join(text.partition("connected.")[2].split()) or " ".join(text.split())
