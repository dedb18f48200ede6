"""The servers: how each is started with a rate, and ended by its process id."""

import concurrent.futures
import contextlib
import http.client
import os
import re
import socket
import subprocess
import time

# Behind limit_req, which acts before a request is passed on and not before a `return`.
NGINX = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr crit;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {folder}/nginx-body;
    proxy_temp_path {folder}/nginx-proxy;
    fastcgi_temp_path {folder}/nginx-fastcgi;
    uwsgi_temp_path {folder}/nginx-uwsgi;
    scgi_temp_path {folder}/nginx-scgi;
    limit_req_zone $binary_remote_addr zone=calls:1m rate={rate}r/m;
    upstream application {{ server unix:{folder}/application; keepalive 8; }}
    server {{
        listen unix:{folder}/application;
        location / {{ return 200 queued; }}
    }}
    server {{
        listen 127.0.0.1:{port};
        keepalive_requests 100000;
        location / {{
            limit_req zone=calls{burst};
            limit_req_status {status};
            {fields}
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_pass http://application;
        }}
    }}
}}
"""


class Failure(Exception):
    pass


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


class Server:
    """A server in a folder of its own below that of the packages."""

    def __init__(self, packages, name, rate, port=None):
        self.packages, self.rate, self.port = packages, rate, port or free_port()
        self.folder = packages / "running" / re.sub(r"\W+", "-", f"{name} {self.port}")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.process = None

    def node(self, program, **environment):
        self.start("node", self.packages / f"{program}.mjs", **environment)

    def python(self, *arguments, **environment):
        self.start(self.packages / "python/bin/python", "-m", *arguments, **environment)

    def uvicorn(self, application, **environment):
        options = ["--port", str(self.port), "--log-level", "warning"]
        self.python("uvicorn", f"{application}:app", *options, **environment)

    def gunicorn(self, application, threads, **environment):
        options = ["-k", "gthread", "--threads", str(threads), "-b", f"127.0.0.1:{self.port}"]
        self.python("gunicorn", *options, f"{application}:app", **environment)

    def nginx(self, status, fields="", burst=""):
        minute = self.rate.limit * 60 / self.rate.window
        if minute != int(minute):
            raise Failure(f"nginx takes whole requests a minute, and not {minute}")
        configuration = self.folder / "nginx.conf"
        configuration.write_text(
            NGINX.format(
                folder=self.folder,
                port=self.port,
                rate=int(minute),
                burst=burst,
                status=status,
                fields=fields,
            )
        )
        self.start("nginx", "-p", self.folder, "-c", configuration)

    def rust(self, kind):
        self.start(self.packages / "limiter", KIND=kind)

    def start(self, *command, **environment):
        environment |= {
            "PORT": str(self.port),
            "LIMIT": str(self.rate.limit),
            "WINDOW_MS": str(int(self.rate.window * 1000)),
            "BURST": str(self.rate.burst),
            "PYTHONPATH": str(self.packages),
        }
        with open(self.folder / "log", "wb") as log:
            self.process = subprocess.Popen(
                command,
                cwd=self.folder,
                env={**os.environ, **environment},
                # The servers in Rust end with it.
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
            )
        end = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            if self.process.poll() is not None or time.monotonic() > end:
                raise Failure(f"{command[0]} does not start:\n{self.log()}")
            time.sleep(0.05)

    def warm_up(self, method):
        """Sends requests of another client, so that the jobs meet a server that has been running
        for a while: the first requests to a new one take a hundred times as long, and whichever
        process connects first has had a whole window by then."""
        fields = {"Authorization": "Bearer of-another", "Content-Type": "application/json"}

        def connection():
            options = {"timeout": 60, "source_address": ("127.0.0.2", 0)}
            for _ in range(30):
                client = http.client.HTTPConnection("127.0.0.1", self.port, **options)
                with contextlib.closing(client), contextlib.suppress(OSError):
                    client.request(method, "/call", "{}" if method == "POST" else None, fields)
                    client.getresponse().read()

        with concurrent.futures.ThreadPoolExecutor(10) as threads:
            for future in [threads.submit(connection) for _ in range(10)]:
                future.result()

    def log(self):
        return (self.folder / "log").read_text(errors="replace")[-2000:]

    def end(self):
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
