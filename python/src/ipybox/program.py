"""The program `ipybox`: finds it, runs it, and reads what it says."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sysconfig
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

Ended = subprocess.CompletedProcess[bytes]
Answer = TypeVar("Answer")


class SandboxError(Exception):
    """The program refused something, or failed."""

    def __init__(self, message: str, diagnostics: Sequence[Mapping[str, Any]] = (), exit_code: int | None = None):
        super().__init__(message)
        self.diagnostics = diagnostics
        """Its errors with reason, help and place, as `docs/messages.md` describes them."""
        self.exit_code = exit_code

    @classmethod
    def of(cls, ended: Ended) -> "SandboxError":
        said = ended.stderr.decode(errors="replace").strip()
        diagnostics = [error for line in said.splitlines() if (error := diagnostic(line))]
        message = "\n".join(map(told, diagnostics)) or said or f"the program ended with {ended.returncode}"
        return cls(message, diagnostics, ended.returncode)


def diagnostic(line: str) -> dict[str, Any] | None:
    """The error that a line is; other messages are none."""
    with suppress(ValueError):
        message = json.loads(line)
        if isinstance(message, dict) and message.get("level") == "error":
            return message
    return None


def told(error: Mapping[str, Any]) -> str:
    place, reason, advice = error.get("place"), error.get("reason"), error.get("help")
    where = f"{place['file']}:{place['line']}:{place['column']}: " if place else ""
    return f"{where}{error['message']}" + (f": {reason}" if reason else "") + (f"\nhelp: {advice}" if advice else "")


@dataclass(frozen=True)
class Call(Generic[Answer]):
    """One run of the program, and how its answer is read."""

    arguments: Sequence[str]
    read: Callable[[Ended], Answer]
    stdin: bytes | None = None

    @property
    def command(self) -> list[str]:
        return [find(), "--message-format=json", *self.arguments]

    @property
    def settings(self) -> dict[str, Any]:
        """Of the process. In a session of its own, it is not interrupted twice where a terminal interrupts both:
        the second time it would end at once, and leave what it began."""
        stdin = subprocess.DEVNULL if self.stdin is None else subprocess.PIPE
        return {"stdin": stdin, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "start_new_session": True}


def find() -> str:
    """The program that `IPYBOX_BINARY` names, else that of this environment, else that of `PATH`."""
    if named := os.environ.get("IPYBOX_BINARY"):
        return named
    for folders in (sysconfig.get_path("scripts"), None):
        if found := shutil.which("ipybox", path=folders):
            return found
    raise SandboxError("the program `ipybox` is not on `PATH`, and `IPYBOX_BINARY` names none")


def run(call: Call[Answer]) -> Answer:
    """Whatever interrupts it, the program is asked to clean up, and waited for."""
    with subprocess.Popen(call.command, **call.settings) as process:
        try:
            stdout, stderr = process.communicate(call.stdin)
        except BaseException:
            process.send_signal(signal.SIGINT)
            process.communicate()
            raise
    return call.read(Ended(process.args, process.returncode, stdout, stderr))


async def run_async(call: Call[Answer]) -> Answer:
    """As `run`; what interrupts it is cancellation."""
    starting = asyncio.ensure_future(asyncio.create_subprocess_exec(*call.command, **call.settings))

    async def talk() -> Ended:
        process = await starting
        stdout, stderr = await process.communicate(call.stdin)
        assert process.returncode is not None
        return Ended(call.arguments, process.returncode, stdout, stderr)

    talking = asyncio.ensure_future(talk())
    try:
        ended = await asyncio.shield(talking)
    except asyncio.CancelledError:
        with suppress(ProcessLookupError):
            (await starting).send_signal(signal.SIGINT)
        await asyncio.wait([talking])
        raise
    return call.read(ended)


def answered(ended: Ended) -> dict[str, Any]:
    """The object it printed; without one it refused or failed, whatever its exit code."""
    try:
        answer: dict[str, Any] = json.loads(ended.stdout)
    except ValueError:
        raise SandboxError.of(ended) from None
    return answer


def succeeded(ended: Ended) -> None:
    if ended.returncode:
        raise SandboxError.of(ended)


def options(**values: object) -> list[str]:
    """Each as one word `--name=value`, so that no value is taken for an option; switches without a value.

    Of several values each is an option of its own, and so is each entry of a mapping: `--name=key=value`, or
    `--name=key` where the value is `None`.
    """
    return [word for name, value in values.items() for word in spelled(f"--{name.replace('_', '-')}", value)]


def spelled(option: str, value: object) -> list[str]:
    match value:
        case None | False:
            return []
        case True:
            return [option]
        case Mapping():
            return [f"{option}={name}" + ("" if text is None else f"={text}") for name, text in value.items()]
        case str() | os.PathLike():
            return [f"{option}={os.fspath(value)}"]
        case Iterable():
            return [f"{option}={one}" for one in value]
        case _:
            return [f"{option}={value}"]
