"""What scripts/arrows and scripts/words read Rust with: a lexer that tells code from comments and
literals, and a few steps on its result. It needs no parser, since it is run on code that compiles.
Every text that these functions return is as long as the one they were given, with spaces in place
of what is left out, so that positions and line numbers stay.
"""

import re

TOKEN = re.compile(
    r"""(?P<comment>//[^\n]*|/\*)
      | (?P<raw>\b(?:b|c)?r(?P<hashes>\#*)")
      | (?P<string>\b(?:b|c)?"|")
      | (?P<char>b?'(?:\\(?:[^u\n]|u\{[^}]*\})[^'\n]{0,2}|[^'\\\n])')""",
    re.VERBOSE,
)


def blank(text):
    return re.sub(r"[^\n]", " ", text)


def split(text):
    """The code, the comments, and what literal strings hold, of a file."""
    code, comments, strings = [], [], []
    at = 0
    while token := TOKEN.search(text, at):
        start, end = token.span()
        if token["comment"] == "/*":
            depth = 1
            while depth and (edge := re.compile(r"/\*|\*/").search(text, end)):
                depth += 1 if edge[0] == "/*" else -1
                end = edge.end()
        elif token["raw"]:
            close = text.find('"' + token["hashes"], end)
            end = len(text) if close < 0 else close + 1 + len(token["hashes"])
        elif token["string"]:
            close = re.compile(r'(?:[^"\\]|\\.)*"', re.DOTALL).match(text, end)
            end = close.end() if close else len(text)
        found = text[start:end]
        for parts, kept in (
            (code, False),
            (comments, token["comment"]),
            (strings, token["raw"] or token["string"]),
        ):
            between = text[at:start]
            parts.append(between if parts is code else blank(between))
            parts.append(found if kept else blank(found))
        at = end
    rest = text[at:]
    return "".join(code) + rest, "".join(comments) + blank(rest), "".join(strings) + blank(rest)


def closing(code, start):
    """Where the bracket that opens at `start` is closed, the position after it."""
    depth = 0
    for at in range(start, len(code)):
        if code[at] in "([{":
            depth += 1
        elif code[at] in ")]}":
            depth -= 1
            if depth == 0:
                return at + 1
    return len(code)


def test_items(code):
    """The spans of the items under `#[cfg(test)]`, or a `cfg(all(test, …))`."""
    spans, at = [], 0
    while attribute := re.compile(r"#\[cfg\((?:all\()?test\b").search(code, at):
        end = closing(code, attribute.start() + 1)
        # Other attributes may follow, and then the item, up to its `;` or its block.
        while more := re.compile(r"\s*#\[").match(code, end):
            end = closing(code, more.end() - 1)
        ends = re.compile(r"[;{]").search(code, end)
        if ends:
            end = ends.end() if ends[0] == ";" else closing(code, ends.start())
        spans.append((attribute.start(), end))
        at = end
    return spans


def without(text, spans):
    for start, end in spans:
        text = text[:start] + blank(text[start:end]) + text[end:]
    return text


def test_files(root, files):
    """The files that are modules under `#[cfg(test)]`: `mod tests;` in one makes another one."""
    found = set()
    for path in files:
        code = split(path.read_text())[0]
        for start, end in test_items(code):
            for name in re.findall(r"\bmod\s+(\w+)\s*;", code[start:end]):
                folder = path.parent if path.stem in ("mod", "lib") else path.parent / path.stem
                found.add(folder / f"{name}.rs")
                found.update(other for other in files if (folder / name) in other.parents)
    return found


def line(text, position):
    return text.count("\n", 0, position) + 1
