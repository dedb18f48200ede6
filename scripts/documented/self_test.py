"""Each rule of `scripts/examples` can fail: made-up documents, some of which do not hold."""

import os
import sys
import textwrap

import document
import text
from terminal import Failure

# A server that ends with the status 0, as an example does after Ctrl-C.
SERVER = (
    "python3 -c 'import signal, sys;"
    " signal.signal(signal.SIGINT, lambda *_: sys.exit(print(\"stopped\")));"
    " print(\"listening on 127.0.0.1:1\", flush=True); signal.pause()'"
)

HOLD = {
    "a comment below a command is what it prints": """
        ```sh
        # An explanation.
        echo a
        # a

        # Another one, and nothing is printed.
        true
        ```
        """,
    "white space and empty lines do not count": """
        ```sh
        printf '  1   a\\n\\n\\tb\\n'
        # 1 a
        #    b
        ```
        """,
    "dots stand for lines and for text, and numbers may be a quarter off": """
        ```sh
        seq 500; echo 'in 75 ms'
        # 1
        # ...
        # 500
        # in ~100 ms
        ```
        ```sh
        echo; echo 'a {b: 1, c: 2}'
        # ...
        # a {...c: 2}
        ```
        """,
    "a console has prompts": """
        ```console
        $ echo a; \\
        > echo b
        a
        b
        $ true
        ```
        """,
    "functions, variables and here-documents last as long as the block": """
        ```sh
        twice() {
            # This is part of it.
            echo "$1" "$1"
        }
        WORD=a
        twice $WORD
        # a a
        cat <<END
        # not a comment
        END
        # # not a comment
        ```
        """,
    "a server runs on, and what it prints later is compared": f"""
        ```sh
        (sleep 1; echo later) & {SERVER}
        # listening on ...
        # later
        ```
        ```sh
        sleep 1.5; echo a
        # a
        ```
        """,
    "a server that is started again is stopped first": f"""
        ```sh
        {SERVER}
        # listening on 127.0.0.1:1
        # stopped
        ```
        ```sh
        {SERVER}
        # listening on 127.0.0.1:1
        ```
        """,
    "a server needs no explanation": f"""
        ```sh
        {SERVER}
        ```
        """,
    "what is not run says why": """
        <!-- not run: it never ends -->
        ```sh
        sleep 1000
        ```
        """,
    "other documents may explain what the example prints": """
        ```sh
        true --example made_up
        echo a | \\
            cat
        ```
        """,
}
ELSEWHERE = {"made_up": {"true --example made_up": None, "echo a | cat": ["a"]}}

FAIL = {
    "another text is printed": "```sh\necho a\n# b\n```",
    "more is printed": "```sh\nseq 2\n# 1\n```",
    "less is printed": "```sh\necho 1\n# 1\n# 2\n```",
    "something is printed that the document does not mention": "```sh\necho a\n```",
    "nothing is printed": "```sh\ntrue\n# a\n```",
    "a number is more than a quarter off": "```sh\necho 74\n# ~100\n```",
    "a number is no number": "```sh\necho many\n# ~100\n```",
    "dots do not stand for what comes after them": "```sh\nseq 3\n# 1\n# ...\n# 4\n```",
    "the command fails": "```sh\necho a; false\n# a\n```",
    "there is no such command": "```sh\nno-such-command\n# ...\n```",
    "the shell is ended": "```sh\nexit 0\n```",
    "a console prints another text": "```console\n$ echo a\nb\n```",
    "a console begins without a prompt": "```console\necho a\n```",
    "a command does not end": "```sh\nfor a in b; do\n```",
    "a command is in a block of text": "```text\ncurl http://127.0.0.1:3000\n```",
    "a reason is that of another block": "<!-- not run: because -->\n\na\n\n```sh\necho a\n```",
    "a server listens elsewhere": f"```sh\n{SERVER}\n# listening on 127.0.0.1:2\n```",
    "a server prints something else first": f"```sh\necho a; {SERVER}\n# listening on ...\n```",
    "a server does not print what comes later": (
        f"```sh\n{SERVER}\n# listening on ...\n# later\n```"
    ),
    "a command is in the terminal of a server": f"```sh\n{SERVER}\n\necho a\n# a\n```",
    "an example prints something else in another document": (
        "```sh\ntrue --example made_up\necho a  |  cat\necho a\n```"
    ),
}


def holds(markdown):
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        blocks = text.blocks(textwrap.dedent(markdown))
        document.run(blocks, os.getcwd(), environment, ELSEWHERE)
    except (Failure, text.Wrong) as failure:
        return failure
    return None


def main():
    wrong = 0
    for name, markdown in HOLD.items():
        failure = holds(markdown)
        if failure:
            wrong += 1
            print(f"This should hold: {name}\n{failure}", file=sys.stderr)
    for name, markdown in FAIL.items():
        if not holds(markdown):
            wrong += 1
            print(f"This should fail: {name}", file=sys.stderr)
    if text.head("//! a\n//!\n//!  b\nuse c;\n//! d\n") != "a\n\n b":
        wrong += 1
        print("the head of an example is read as something else", file=sys.stderr)
    print(f"{len(HOLD)} made-up documents hold, {len(FAIL)} fail, {wrong} not as they should")
    return wrong > 0


if __name__ == "__main__":
    sys.exit(main())
