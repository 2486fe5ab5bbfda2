"""What the drivers share; each is `with_CLIENT.py IMAGE_TAG` and proves that image with a real client.

A driver prints one line per check, and its exit status is 0 if all passed. The containers that it starts
carry `TOKEN`, in the variable `MARKER` where their client cannot set labels, and are removed at the end.
"""

import asyncio
import contextlib
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import NoReturn, TypeVar

Given = TypeVar("Given")

MARKER = "IPYBOX_CLIENT_TRIAL"
TOKEN = secrets.token_hex(8)
LIMIT = 30.0
"""Seconds for one check."""

WHEEL = "client_trial-1.0-py3-none-any.whl"

WRITE_WHEEL = f"""
import zipfile
with zipfile.ZipFile("{WHEEL}", "w") as wheel:
    wheel.writestr("client_trial.py", "ANSWER = 42\\n")
    info = "client_trial-1.0.dist-info/"
    wheel.writestr(info + "METADATA", "Metadata-Version: 2.1\\nName: client-trial\\nVersion: 1.0\\n")
    wheel.writestr(info + "WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
    wheel.writestr(info + "RECORD", "client_trial.py,,\\n")
"""
"""A cell that writes a wheel, since no index can be asked for one."""

PICTURE = r"""
import struct, zlib
from IPython.display import Image, display

def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

header = chunk(b"IHDR", struct.pack(">2I5B", 3, 2, 8, 2, 0, 0, 0))
rows = chunk(b"IDAT", zlib.compress((b"\0" + b"\xff\0\0" * 3) * 2))
picture = Image(data=b"\x89PNG\r\n\x1a\n" + header + rows + chunk(b"IEND", b""))
"""
"""A cell that makes a red picture of 3 by 2 pixels."""


def equal(found: object, expected: object) -> None:
    """Of the same type as well: `1` is not `True`."""
    if found != expected or type(found) is not type(expected):
        raise AssertionError(f"{found!r:.200} instead of {expected!r:.200}")


def contains(text: str | None, *parts: str) -> None:
    for part in parts:
        if part not in (text or ""):
            raise AssertionError(f"no {part!r} in {text!r:.200}")


def below(found: float, limit: float) -> None:
    if found >= limit:
        raise AssertionError(f"{found:.1f} s, should be below {limit} s")


def containers() -> list[str]:
    """Ids of the containers of this run, whatever carries its token."""
    every = subprocess.check_output(["docker", "ps", "--all", "--quiet", "--no-trunc"], text=True).split()
    parts = "{{.Id}} {{json .Config.Env}} {{json .Config.Labels}}"
    # No error if one went away meanwhile: the others are shown nevertheless.
    shown = subprocess.run(["docker", "inspect", "--format", parts, *every], capture_output=True, text=True)
    return [line.split()[0] for line in shown.stdout.splitlines() if TOKEN in line]


async def gone(name: str) -> None:
    """Soon: an engine removes a container after the client heard that it ended."""
    for _ in range(50):
        if name not in containers():
            return
        await asyncio.sleep(0.1)
    raise AssertionError("the container is still there")


def tell(name: str, error: Exception | None = None) -> bool:
    """Print the line of a check; whether it passed."""
    if error is None:
        print(f"ok {name}", flush=True)
        return True
    kind = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
    print(f"FAILED {name}: {kind}{' '.join(str(error).split())[:400]}", flush=True)
    return False


async def check(name: str, outcome: Awaitable[None]) -> bool:
    try:
        await asyncio.wait_for(outcome, LIMIT)
    except TimeoutError:
        return tell(name, TimeoutError("nothing within the time limit"))
    except Exception as error:
        return tell(name, error)
    return tell(name)


def main(passes: Callable[[str], bool]) -> NoReturn:
    """Prove the image that is asked for, and exit; no container is left, not even after SIGTERM."""
    if len(sys.argv) != 2:
        sys.exit(sys.modules["__main__"].__doc__)
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    try:
        sys.exit(0 if passes(sys.argv[1]) else 1)
    finally:
        if left := containers():
            subprocess.run(["docker", "rm", "--force", "--volumes", *left], stdout=subprocess.DEVNULL)


def prove(
    started: Callable[[str], contextlib.AbstractAsyncContextManager[Given]],
    answers: Callable[[Given], Awaitable[None]],
    shared: Sequence[Callable[[Given], Awaitable[None]]],
    own: Sequence[Callable[[str], Awaitable[None]]] = (),
) -> NoReturn:
    """`main` for a client that does not block: `shared` take what `started` gives, `own` the tag."""

    async def passes(tag: str) -> bool:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        passed = []
        given: list[Given] = []
        async with contextlib.AsyncExitStack() as stack:

            async def answers_soon() -> None:
                start = time.monotonic()
                given.append(await stack.enter_async_context(started(tag)))
                await answers(given[0])
                below(time.monotonic() - start, 10)

            passed.append(await check("answers_soon", answers_soon()))
            for one in given:
                for each in shared:
                    passed.append(await check(each.__name__, each(one)))
        for each_own in own:
            passed.append(await check(each_own.__name__, each_own(tag)))
        return all(passed)

    main(lambda tag: asyncio.run(passes(tag)))
