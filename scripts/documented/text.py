"""The commands of a document, each with what it is expected to print.

A document is a Markdown file, or the comment at the head of an example. Commands are in blocks of
`sh`, where the comment below a command is what it prints, up to an empty line; any other comment is
an explanation. In blocks of `console`, commands begin with `$ `, and the other lines are what they
print.

In what a command prints, a line `...` stands for any number of lines, `...` within a line for any
text, and `~100` for a number that is at most a quarter off. White space and empty lines don't count.
"""

import dataclasses
import re
import subprocess

FENCE = re.compile(r"\s*```+\s*([\w,-]*)")
NOT_RUN = re.compile(r"\s*<!-- not run: (.+) -->\s*$")
# In a block that is not run, these look like commands that somebody has forgotten.
COMMAND = re.compile(r"(\$ )?([A-Z_]+=\S+ )*(cargo|curl|docker|redis-cli|redis-server|scripts/\S+) ")


class Wrong(Exception):
    """What is wrong in a document, with the line."""


@dataclasses.dataclass
class Command:
    line: int
    text: str
    # `None` if the document does not say.
    expected: list | None = None

    def joined(self):
        """The command, however its lines are broken."""
        return " ".join(self.text.replace("\\\n", " ").split())


@dataclasses.dataclass
class Block:
    """What is typed into one terminal."""

    commands: list
    # Why it is not run, if it is not.
    not_run: str | None = None


def head(source):
    """The comment at the head of a Rust file, as Markdown, line by line."""
    lines = []
    for line in source.splitlines():
        if not line.startswith("//!"):
            break
        lines.append(line[3:].removeprefix(" "))
    return "\n".join(lines)


def is_whole(text):
    """Whether that is a command, and not only the beginning of one."""
    if text.endswith("\\"):
        return False
    checked = subprocess.run(["bash", "-n"], input=text + "\n", text=True, capture_output=True)
    # bash only warns if the end of a here-document is missing.
    return checked.returncode == 0 and not checked.stderr


def shell(lines):
    """The commands of a block of `sh`: of (number, line)."""
    commands, begun, follows = [], None, False
    for number, line in lines:
        if begun:
            begun.text += "\n" + line
        elif not line.strip():
            follows = False
        elif line.startswith("#"):
            if follows:
                command = commands[-1]
                command.expected = [*(command.expected or []), line[1:].strip()]
        else:
            begun = Command(number, line)
        if begun and is_whole(begun.text):
            commands.append(begun)
            begun, follows = None, True
    if begun:
        raise Wrong(f"line {begun.line}: the command does not end")
    return commands


def console(lines):
    """The commands of a block of `console`."""
    commands, begun = [], None
    for number, line in lines:
        if begun:
            begun.text += "\n" + line.removeprefix("> ")
        elif line.startswith("$ "):
            begun = Command(number, line[2:])
        elif line.strip():
            if not commands:
                raise Wrong(f"line {number}: this is printed before there is a command")
            commands[-1].expected = [*(commands[-1].expected or []), line.strip()]
        if begun and is_whole(begun.text):
            commands.append(begun)
            begun = None
    if begun:
        raise Wrong(f"line {begun.line}: the command does not end")
    return commands


def blocks(markdown):
    """The blocks of commands of a document."""
    found, language, lines, not_run, reason = [], None, [], None, None
    for number, line in enumerate(markdown.splitlines(), 1):
        fence = FENCE.match(line)
        if language is not None:
            if not fence:
                lines.append((number, line))
                continue
            if language in ("sh", "console"):
                read = shell if language == "sh" else console
                found.append(Block(read(lines), reason))
            elif language in ("text", "bash", "shell", "terminal"):
                for at, one in lines:
                    if COMMAND.match(one.strip()):
                        raise Wrong(
                            f"line {at}: a command in a block of `{language}` is not run: make it"
                            " a block of `sh`"
                        )
            language, reason = None, None
        elif fence:
            # A block of Rust has no language.
            language, lines, reason, not_run = fence[1].split(",")[0], [], not_run, None
        elif line.strip():
            mark = NOT_RUN.match(line)
            not_run = mark[1] if mark else None
    return found


def matches_line(expected, printed):
    parts = re.split(r"(\.\.\.|~\d+)", " ".join(expected.split()))
    pattern, numbers = "", []
    for part in parts:
        if part == "...":
            pattern += ".*"
        elif re.fullmatch(r"~\d+", part):
            numbers.append(int(part[1:]))
            pattern += r"(\d+)"
        else:
            pattern += re.escape(part)
    found = re.fullmatch(pattern, " ".join(printed.split()))
    if not found:
        return False
    return all(
        abs(int(got) - number) <= number / 4 for got, number in zip(found.groups(), numbers)
    )


def matches(expected, printed):
    """Whether that was printed. Both are lists of lines."""
    expected = [line for line in expected if line.strip()]
    printed = [line for line in printed if line.strip()]
    # ends[n]: whether the lines so far match, if n lines were printed.
    ends = [True] + [False] * len(printed)
    for line in expected:
        if line == "...":
            first = ends.index(True) if True in ends else len(ends)
            ends = [number >= first for number in range(len(ends))]
        else:
            ends = [False] + [
                so_far and matches_line(line, one) for so_far, one in zip(ends, printed)
            ]
    return ends[-1]
