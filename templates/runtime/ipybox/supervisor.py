"""First process of a container: starts the servers, and ends when one of them does.

    python -I -m ipybox.supervisor MODULE [ARGUMENT...] [-- MODULE [ARGUMENT...]]...

Modules run as programs in this interpreter, isolated. SIGTERM and SIGINT go on to every server;
whoever is still there `GRACE` seconds later is killed. Processes that lost their parent are reaped.
The exit status is that of the first server to end, or 128 plus the signal that asked for the end.
"""

import contextlib
import ctypes
import itertools
import os
import signal
import sys
from types import FrameType

GRACE = 1.2
"""Seconds a server has to end by itself; `docker stop` should take less than two in all."""

PR_SET_DUMPABLE = 4
"""Of prctl(2)."""


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
    sys.exit(Supervisor().run(split(sys.argv[1:])))
