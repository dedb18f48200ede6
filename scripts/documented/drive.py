"""Finds the documents, compiles what they run, and runs each in a network of its own."""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile

import document
import text
from terminal import Failure

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
CARGO = re.compile(
    r"cargo (run|test)(?: --release)? --example (\w+)(?: --features [\w,-]+)?", re.MULTILINE
)


def examples():
    """The files of the examples, by name."""
    folder = ROOT / "examples"
    files = [*folder.glob("*.rs"), *folder.glob("*/main.rs")]
    return {(it.parent.name if it.stem == "main" else it.stem): it for it in sorted(files)}


def read(path):
    source = (ROOT / path).read_text()
    try:
        return text.blocks(text.head(source) if path.endswith(".rs") else source)
    except text.Wrong as wrong:
        raise Failure(f"{path}: {wrong}") from None


def documents():
    """The blocks of all documents, by path."""
    paths = [str(it.relative_to(ROOT)) for it in examples().values()]
    paths += ["README.md", "examples/README.md"]
    paths += sorted(str(it.relative_to(ROOT)) for it in (ROOT / "src/guide").glob("*.md"))
    found = {path: read(path) for path in paths if (ROOT / path).exists()}
    for name, path in examples().items():
        blocks = found[str(path.relative_to(ROOT))]
        commands = [command.text for block in blocks for command in block.commands]
        if not any(f"--example {name}" in command for command in commands):
            raise Failure(f"{path.name}: its head does not say how it is run, in a block of `sh`")
    return found


def explained(found):
    """What the heads of the examples say of each command, by name of the example, so that README and
    guide need not repeat it."""
    return {
        name: {
            command.joined(): command.expected
            for block in found[str(path.relative_to(ROOT))]
            for command in block.commands
        }
        for name, path in examples().items()
    }


def check_list():
    """examples/README.md has each example with the first command that its head has."""
    listed = (ROOT / "examples/README.md").read_text()
    for name, path in examples().items():
        link = f"[`{name}`]({path.relative_to(ROOT / 'examples')})"
        first = CARGO.search(text.head(path.read_text()))
        rows = [line for line in listed.splitlines() if link in line]
        if len(rows) != 1 or not first or f"`{first[0]}`" not in rows[0]:
            command = first[0] if first else f"cargo run --example {name}"
            raise Failure(f"examples/README.md: one row has to have {link} and `{command}`")


def compile_all(found, environment):
    """Compiles what the commands run, since they wait for it else, and since cargo prints what it
    compiles. Nothing may be warned of: users would see that first."""
    runs = [command.text for it in found.values() for block in it
            if not block.not_run for command in block.commands]
    builds = {}
    for command in runs:
        for cargo in CARGO.finditer(command):
            arguments = cargo[0].split()[1:]
            builds[cargo[0]] = ["build" if arguments[0] == "run" else "test", *arguments[1:]]
    for name, (verb, *arguments) in builds.items():
        print(f"    {name}", flush=True)
        command = ["cargo", verb, "--locked", *(["--no-run"] if verb == "test" else []), *arguments]
        environment = {**environment, "CARGO_TERM_QUIET": "false"}
        built = subprocess.run(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
        if built.returncode or "\nwarning: " in "\n" + built.stderr:
            raise Failure(f"{name} does not compile, or not without warnings:\n{built.stderr}")


def may_unshare():
    command = [*UNSHARE, sys.executable, "-c", "0"]
    return shutil.which("unshare") and not subprocess.run(command, capture_output=True).returncode


# A network, processes and files in /tmp of its own: the documents name ports and files that
# something else on this machine may have.
UNSHARE = ["unshare", "--map-root-user", "--net", "--mount", "--pid", "--fork", "--mount-proc",
           "--kill-child"]


def loopback_up():
    """Switches the loopback interface of a new network on."""
    import fcntl
    import socket
    import struct

    set_flags, up_and_running = 0x8914, 0x41
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sh22x", b"lo", up_and_running)
        fcntl.ioctl(any_socket, set_flags, request)


def run_alone(path, environment, elsewhere):
    """In the process that `UNSHARE` has started."""
    loopback_up()
    target = pathlib.Path(environment.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()
    if not any(pathlib.Path("/tmp") in it.parents for it in (target, ROOT)):
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/tmp"], check=True)
    document.run(read(path), ROOT, environment, elsewhere)


def surroundings(folder):
    """The environment of the commands: cargo is quiet and does not ask for packages, and curl has no
    progress meter, as at a terminal it has none."""
    environment = {
        name: value for name, value in os.environ.items()
        if not name.lower().endswith("_proxy") and not name.startswith("RUST_LOG")
    }
    (pathlib.Path(folder) / ".curlrc").write_text("no-progress-meter\n")
    environment |= {
        "CARGO_NET_OFFLINE": "true",
        "CARGO_TERM_COLOR": "never",
        "CARGO_TERM_QUIET": "true",
        "CURL_HOME": str(folder),
    }
    return environment


def alone(folder, path):
    with open(pathlib.Path(folder) / "elsewhere.json") as file:
        run_alone(path, surroundings(folder), json.load(file))


def main(words):
    found = documents()
    check_list()
    elsewhere = explained(found)
    if words:
        found = {path: it for path, it in found.items() if any(word in path for word in words)}
    isolated = may_unshare()
    if not isolated:
        print("this system has no `unshare`: the documents' ports have to be free")
    failures = []
    # Outside of /tmp, which each document has for itself.
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    target.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target) as folder:
        environment = surroundings(folder)
        print("\ncompiling", flush=True)
        compile_all(found, environment)
        (pathlib.Path(folder) / "elsewhere.json").write_text(json.dumps(elsewhere))
        for path, blocks in found.items():
            if not any(block.commands for block in blocks):
                continue
            print(f"\n{path}", flush=True)
            try:
                if isolated:
                    command = [*UNSHARE, sys.executable, __file__, "--alone", folder, path]
                    if subprocess.run(command, check=False).returncode:
                        failures.append(path)
                else:
                    document.run(blocks, ROOT, environment, elsewhere)
            except Failure as failure:
                print(f"  {failure}", flush=True)
                failures.append(path)
    if failures:
        sys.exit(f"\nWhat these documents say does not hold: {', '.join(failures)}")


if __name__ == "__main__":
    # So that what was started is ended when this is.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("it took too long"))
    try:
        if sys.argv[1:2] == ["--alone"]:
            alone(*sys.argv[2:])
        else:
            main(sys.argv[1:])
    except Failure as failure:
        sys.exit(f"  {failure}")
