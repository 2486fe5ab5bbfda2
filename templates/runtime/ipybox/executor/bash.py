"""Shell commands, each in a session of its own."""

import asyncio
import contextlib
import os
import signal

from ipybox.executor.output import Ends, Result, late

SHELL = "/bin/bash" if os.path.exists("/bin/bash") else "/bin/sh"
LONGEST_ARGUMENT = 100_000  # bytes, of what is sure to fit into one argument of a program
GRACE = 0.3  # seconds between SIGTERM and SIGKILL
LINGER = 0.5  # seconds that the output may stay open after the end of the shell


class Pipe:
    """Where one stream of a command goes."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.closed = self.loop.create_future()
        self.content = Ends()
        self.source, self.target = os.pipe()
        os.set_blocking(self.source, False)
        self.loop.add_reader(self.source, self.read)

    def read(self) -> None:
        with contextlib.suppress(BlockingIOError):
            if data := os.read(self.source, 64 * 1024):
                self.content.add(data)
            else:
                self.loop.remove_reader(self.source)
                os.close(self.source)
                self.closed.set_result(None)

    def leave(self) -> None:
        """From now on read so slowly that children in the background neither fail nor cost anything."""
        if not self.closed.done():
            self.loop.remove_reader(self.source)
            self.read()
            self.loop.call_later(1.0, self.leave)


class Shells:
    def __init__(self) -> None:
        self.groups: set[int] = set()

    async def run(self, command: str, folder: str, timeout: int, env: dict[str, str]) -> Result:
        # Shells take PWD over where it names the folder they are in, also through a link.
        environment = {**os.environ, "PWD": folder, "WORKSPACE": folder, **env}
        stdout, stderr = Pipe(), Pipe()
        try:
            process = await start(command, folder, environment, stdout, stderr)
        except OSError as error:
            return Result("", f"Cannot start {SHELL}: {error.strerror}", -1)
        finally:
            os.close(stdout.target)
            os.close(stderr.target)
        self.groups = {group for group in self.groups if send(group, 0)} | {process.pid}
        timed_out = False
        try:
            await asyncio.wait_for(process.wait(), timeout)
        except asyncio.TimeoutError:
            timed_out = True
            send(process.pid, signal.SIGTERM)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(process.wait(), GRACE)
        finally:
            if timed_out or process.returncode is None:
                send(process.pid, signal.SIGKILL)
        status = await process.wait()
        await asyncio.wait({stdout.closed, stderr.closed}, timeout=LINGER)
        stdout.leave()
        stderr.leave()
        printed, errors = stdout.content.text(), stderr.content.text()
        if timed_out:
            errors = "\n".join(filter(None, [errors.rstrip("\n"), late(timeout)]))
            return Result(printed, errors, -1, timed_out=True)
        return Result(printed, errors, status if status >= 0 else 128 - status)

    def close(self) -> None:
        """End everything, children in the background as well."""
        for group in self.groups:
            send(group, signal.SIGKILL)


async def start(
    command: str, folder: str, environment: dict[str, str], stdout: Pipe, stderr: Pipe
) -> asyncio.subprocess.Process:
    with os.fdopen(os.memfd_create("command"), "w") as file:
        if len(command.encode()) > LONGEST_ARGUMENT:
            file.write(command)
            file.flush()
            command = f". /proc/self/fd/{file.fileno()}"
        return await asyncio.create_subprocess_exec(
            *(SHELL, "-c", command),
            cwd=folder,
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=stdout.target,
            stderr=stderr.target,
            pass_fds=[file.fileno()] if file.tell() else [],
            start_new_session=True,
        )


def send(group: int, number: int) -> bool:
    """Send a signal to a process group, and tell whether there is one."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    except PermissionError:  # members of another user only
        pass
    return True
