"""First process of a container: starts the servers, and ends when one of them does.

    python -I -m ipybox.supervisor [--health PORT... --] MODULE [ARGUMENT...] [-- MODULE [ARGUMENT...]]...

Modules run as programs in this interpreter, isolated. SIGTERM and SIGINT go on to every server;
whoever is still there `GRACE` seconds later is killed. Processes that lost their parent are reaped.
The exit status is that of the first server to end, or 128 plus the signal that asked for the end.

Whoever reads the pipe of `PIPES` gets a line: `ok` where servers answer on all the ports of `--health`, else what is wrong.
While they are starting, the answer waits for them, up to `PATIENCE`: so they count as ready at once, and not at the next question.
"""

import contextlib
import ctypes
import itertools
import os
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import FrameType
from typing import NoReturn

GRACE = 1.2
"""Seconds a server has to end by itself; `docker stop` should take less than two in all."""

PR_SET_DUMPABLE = 4
"""Of prctl(2)."""

PIPES = "/opt/ipybox/run/health", "/tmp/.ipybox-health"
"""The first that can be made is used; the second is for a root that cannot be written."""

PATIENCE = 5.0
"""Seconds; with those a silent server is given, less than the time limit of the health check."""

FOLDERS = {
    "IPYTHONDIR": ".ipython",
    "JUPYTER_RUNTIME_DIR": ".local/share/jupyter/runtime",
    "MPLCONFIGDIR": ".config/matplotlib",
}
"""Folders of the home that programs write to, and the variables that name others."""


def move_folders() -> None:
    """Name folders below /tmp in place of those that cannot be written: the home may belong to somebody else."""
    home = Path(os.environ.get("HOME") or "/")
    missing = {variable for variable, name in FOLDERS.items() if not can_write(home / name)}
    if missing := missing - os.environ.keys():
        with contextlib.suppress(OSError):  # nothing can be written at all
            folder = tempfile.mkdtemp(prefix="ipybox-")
            os.environ.update({variable: f"{folder}/{variable.lower()}" for variable in missing})


def can_write(folder: Path) -> bool:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return os.access(folder, os.W_OK | os.X_OK)


def tell_health(ports: list[str]) -> None:
    """Answer whoever reads the pipe, until the end; where none can be made, nobody is answered."""
    for path in PIPES:
        with contextlib.suppress(OSError):
            os.unlink(path)
        try:
            with contextlib.suppress(FileExistsError):
                os.mkfifo(path)
            answer_readers(path, ports)
        except OSError:
            continue


def answer_readers(path: str, ports: list[str]) -> NoReturn:
    starting = True
    while True:
        pipe = os.open(path, os.O_WRONLY | os.O_CLOEXEC)  # waits for a reader
        from ipybox import health  # not before it is asked: servers are starting

        patience = time.monotonic() + PATIENCE
        while (found := health.problems(ports)) and starting and time.monotonic() < patience:
            time.sleep(0.2)
        starting = starting and bool(found)
        with contextlib.suppress(BrokenPipeError), open(pipe, "w") as reader:
            reader.write(("; ".join(found) or "ok") + "\n")
        time.sleep(0.1)  # the reader goes away, and is not answered twice


class Supervisor:
    def __init__(self) -> None:
        self.servers: set[int] = set()
        self.status: int | None = None

    def start(self, command: list[str]) -> None:
        # Isolated (-I), so that no module of the working directory or of PYTHONPATH replaces one of
        # the server's. The environment itself is left alone: kernels inherit it.
        argv = [sys.executable, "-I", "-m", *command]
        self.servers.add(os.posix_spawn(sys.executable, argv, os.environ))

    def stop(self, status: int) -> None:
        if self.status is not None:
            return
        self.status = status
        signal.setitimer(signal.ITIMER_REAL, GRACE)
        self.send(signal.SIGTERM)

    def send(self, number: signal.Signals) -> None:
        for server in self.servers:
            with contextlib.suppress(ProcessLookupError):  # it ended a moment ago
                os.kill(server, number)

    def run(self, commands: list[list[str]]) -> int:
        def asked_to_stop(number: int, _frame: FrameType | None) -> None:
            self.stop(128 + number)

        def out_of_patience(_number: int, _frame: FrameType | None) -> None:
            self.send(signal.SIGKILL)

        signal.signal(signal.SIGTERM, asked_to_stop)
        signal.signal(signal.SIGINT, asked_to_stop)
        signal.signal(signal.SIGALRM, out_of_patience)
        for command in commands:
            self.start(command)
        while self.servers:
            process, wait_status = os.waitpid(-1, 0)
            if process in self.servers:
                self.servers.remove(process)
                code = os.waitstatus_to_exitcode(wait_status)
                self.stop(code if code >= 0 else 128 - code)
        return self.status or 0


def split(arguments: list[str]) -> list[list[str]]:
    """Cut the command line into the servers' own at each `--`."""
    groups = itertools.groupby(arguments, key=lambda argument: argument == "--")
    return [list(group) for separator, group in groups if not separator]


if __name__ == "__main__":
    # The environment may hold tokens of the servers, and code of the same user could read it in /proc.
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    move_folders()
    groups = split(sys.argv[1:])
    if groups and groups[0][0] == "--health":
        threading.Thread(target=tell_health, args=[groups.pop(0)[1:]], daemon=True).start()
    sys.exit(Supervisor().run(groups))
