"""Commands and Python for the blocks of the pages, in processes that have imported the large packages already.

Importing them takes two seconds, and the pages have dozens of commands. A server that has imported them, and has read
the model that ships, forks for each command: what runs is ``echostream`` or ``python`` all the same, in a process, a
folder and an environment of its own, with the standard streams of its caller.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# What stands for the two commands: hands its streams to the server and ends as the command does.
CLIENT = """\
#!{python} -SE
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    request = dict(name={name!r}, arguments=sys.argv[1:], folder=os.getcwd(), environment=dict(os.environ))
    content = json.dumps(request).encode()
    socket.send_fds(server, [len(content).to_bytes(4, "big")], [0, 1, 2])
    server.sendall(content)
    answer = server.recv(1)
sys.exit(answer[0] if answer else 1)
"""


@contextlib.contextmanager
def preloaded_commands(folder: Path) -> Iterator[Path]:
    """A folder with ``echostream`` and ``python``, to be put first on the path."""
    binaries, address = folder / "bin", folder / "socket"
    binaries.mkdir(parents=True)
    for name in ("echostream", "python"):
        (binaries / name).write_text(CLIENT.format(python=sys.executable, address=str(address), name=name))
        (binaries / name).chmod(0o755)
    with subprocess.Popen([sys.executable, __file__, address], stdout=subprocess.PIPE) as server:
        try:
            assert server.stdout is not None and server.stdout.readline() == b"ready\n"
            yield binaries
        finally:
            server.terminate()


def main(address: str) -> None:
    """Answer requests until the process is ended."""
    from echostream.streaming import StreamingTranslator, translator

    for name in ("load_model", "load_vocoder", "load_arpa"):
        setattr(translator, name, read_once(getattr(translator, name)))
    StreamingTranslator.from_pretrained("fr-en")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        print("ready", flush=True)
        while True:
            connection, _ = listener.accept()
            if os.fork() == 0:
                os._exit(answer(connection))
            connection.close()


def read_once(load: Callable[..., Any]) -> Callable[..., Any]:
    """``load``, which keeps what it has read of each file."""
    kept: dict[str, Any] = {}

    def loaded(path: object, *others: object) -> Any:
        if str(path) not in kept:
            kept[str(path)] = load(path, *others)
        return kept[str(path)]

    return loaded


def answer(connection: socket.socket) -> int:
    """Do what is asked for, in this process; returns and sends its exit status."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    head, streams, _, _ = socket.recv_fds(connection, 4, 3)
    size, content = int.from_bytes(head, "big"), b""
    while len(content) < size:
        content += connection.recv(size - len(content))
    request = json.loads(content)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.path.insert(0, request["folder"])
    try:
        status = run(request["name"], request["arguments"])
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
        status = 1
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    sys.stderr.flush()
    connection.sendall(bytes([status]))
    return status


def run(name: str, arguments: list[str]) -> int:
    """The command ``echostream``, or ``python -c``."""
    if name == "echostream":
        from echostream.cli import main as command

        return command(arguments)
    option, code = arguments
    assert option == "-c"
    exec(compile(code, "<block>", "exec"), {"__name__": "__main__"})
    return 0


if __name__ == "__main__":
    main(sys.argv[1])
