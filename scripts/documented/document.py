"""Runs the commands of one document, in terminals of their own."""

import re
import time

from terminal import LISTENS, Failure, Terminal
from text import matches

# For one command. What is compiled was compiled before.
SECONDS = 120


class Server:
    """A server that a command has started, and in which terminal."""

    def __init__(self, command, terminal, expected):
        self.command, self.terminal = command, terminal
        # What it is expected to have printed by the end.
        self.expected = expected

    def check(self):
        time.sleep(0.2)
        self.terminal.drain()
        if self.expected is not None:
            compare(self.command, self.expected, self.terminal.printed)


def compare(command, expected, printed):
    if not matches(expected or [], printed):
        said = "\n".join(f"        {line}" for line in expected or ["(nothing)"])
        got = "\n".join(f"        {line}" for line in printed if line.strip())
        raise Failure(
            f"line {command.line}: {command.text}\n    should print\n{said}\n    and printed\n{got}"
        )


def run(blocks, folder, environment, elsewhere):
    """Runs all of it. `elsewhere` has what the heads of the examples say of their commands. A
    document that runs an example need not say it again."""
    terminals, servers, said = [], [], {}
    try:
        for block in blocks:
            if block.not_run:
                print(f"    not run, since {block.not_run}")
                continue
            terminal = Terminal(folder, environment)
            terminals.append(terminal)
            for command in block.commands:
                expected = command.expected
                example = re.search(r"--example (\w+)", command.text)
                if example:
                    said = elsewhere.get(example[1], {})
                if expected is None:
                    expected = said.get(command.joined())
                for server in [it for it in servers if it.command.text == command.text]:
                    # The same server again: as if Ctrl-C were pressed and it were started anew.
                    server.terminal.interrupt(SECONDS)
                    server.check()
                    servers.remove(server)
                if any(it.terminal is terminal for it in servers):
                    raise Failure(
                        f"line {command.line}: {command.text}\n    its terminal has a server that"
                        " has not ended: begin another block"
                    )
                type_in(terminal, command, expected, servers)
        for server in servers:
            server.check()
    finally:
        for terminal in terminals:
            terminal.end()


def type_in(terminal, command, expected, servers):
    began = time.monotonic()
    try:
        status = terminal.type(command.text, SECONDS)
    except Failure as failure:
        printed = "\n".join(f"        {line}" for line in terminal.printed)
        raise Failure(f"line {command.line}: {command.text}\n    {failure}; printed\n{printed}")
    took = time.monotonic() - began
    first = command.text.splitlines()[0]
    print(f"    {took:5.1f} s  {first}{' ...' if first != command.text else ''}", flush=True)
    if status is None:
        # A server that is not explained may say that it listens, and nothing else.
        expected = expected or [f"{LISTENS}..."]
        so_far = 1 + max(
            (n for n, line in enumerate(expected) if line.startswith(LISTENS)), default=-1
        )
        compare(command, expected[:so_far], terminal.printed)
        servers.append(Server(command, terminal, expected if so_far < len(expected) else None))
        return
    compare(command, expected, terminal.printed)
    if status != 0:
        raise Failure(f"line {command.line}: {command.text}\n    its status is {status}")
