"""A terminal in which commands are run one after another: a bash of its own."""

import os
import pathlib
import queue
import signal
import subprocess
import tempfile
import threading
import time

# What a server prints when it can be reached.
LISTENS = "listening on "


class Failure(Exception):
    """A command did not do what the document says."""


def descendants(of):
    """The processes that were started from that one, the youngest last."""
    table = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True)
    pairs = [tuple(map(int, line.split())) for line in table.stdout.splitlines()]
    found = [of]
    for one in found:
        found += [pid for pid, parent in pairs if parent == one]
    return found[1:]


class Terminal:
    def __init__(self, folder, environment):
        self.scratch = tempfile.TemporaryDirectory()
        self.lines = queue.Queue()
        # What was printed since the command that runs was typed.
        self.printed = []
        self.mark = f"--- {os.urandom(8).hex()} "
        self.process = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.process.stdout:
            self.lines.put(line.decode(errors="replace").rstrip("\r\n"))
        self.lines.put(None)

    def type(self, command, seconds):
        """Runs a command. Returns its status, or `None` if it serves now."""
        file = pathlib.Path(self.scratch.name) / "command"
        file.write_text(command)
        self.printed = []
        line = f'eval "$(cat {file})" </dev/null; printf "\\n%s%s\\n" "{self.mark}" $?\n'
        self.process.stdin.write(line.encode())
        self.process.stdin.flush()
        return self.wait(seconds)

    def wait(self, seconds):
        until = time.monotonic() + seconds
        while True:
            try:
                line = self.lines.get(timeout=max(0, until - time.monotonic()))
            except queue.Empty:
                raise Failure(f"it has not ended after {seconds} s") from None
            if line is None:
                raise Failure("the shell has ended")
            if line.startswith(self.mark):
                return int(line.removeprefix(self.mark))
            self.printed.append(line)
            if line.startswith(LISTENS):
                return None

    def interrupt(self, seconds):
        """Stops the server that runs, as Ctrl-C does. What it prints meanwhile is added."""
        for pid in descendants(self.process.pid):
            send(pid, signal.SIGINT)
        return self.wait(seconds)

    def drain(self):
        """Adds what the server has printed by now."""
        while not self.lines.empty():
            line = self.lines.get()
            if line is not None:
                self.printed.append(line)

    def end(self):
        started = descendants(self.process.pid)
        for pid in reversed(started):
            send(pid, signal.SIGTERM)
        self.process.stdin.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            pass
        # What has lost its parent is still in the group that the shell leads.
        for pid in started:
            send(pid, signal.SIGKILL)
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()
        self.scratch.cleanup()


def send(pid, what):
    try:
        os.kill(pid, what)
    except ProcessLookupError:
        pass
