"""Prove an image with the client of ipybox 0.3.2: one line per check, exit status 0 if all passed.

    ipybox_0_3.py IMAGE_TAG

Runs where ipybox==0.3.2 is installed. The client cannot set labels: containers carry the environment
variable `MARKER` instead, and those that have it are removed at the end.

Not run, because it needs public web sites: packages from an index.
"""

import asyncio
import contextlib
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from aiodocker import Docker
from ipybox import ExecutionClient, ExecutionContainer, ExecutionError

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

PICTURE = r"""
import struct, zlib
from IPython.display import Image, display

def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

header = chunk(b"IHDR", struct.pack(">2I5B", 3, 2, 8, 2, 0, 0, 0))
rows = chunk(b"IDAT", zlib.compress((b"\0" + b"\xff\0\0" * 3) * 2))
picture = Image(data=b"\x89PNG\r\n\x1a\n" + header + rows + chunk(b"IEND", b""))
"""


def equal(found: object, expected: object) -> None:
    if found != expected:
        raise AssertionError(f"{found!r:.200} instead of {expected!r:.200}")


def contains(text: str | None, *parts: str) -> None:
    for part in parts:
        if part not in (text or ""):
            raise AssertionError(f"no {part!r} in {text!r:.200}")


def below(found: float, limit: float) -> None:
    if found >= limit:
        raise AssertionError(f"{found:.1f} s, should be below {limit} s")


def kernel(container: ExecutionContainer) -> ExecutionClient:
    return ExecutionClient(port=container.port)


@contextlib.asynccontextmanager
async def started(tag: str, **options: Any) -> AsyncIterator[ExecutionContainer]:
    async with ExecutionContainer(
        tag=tag, env={MARKER: TOKEN}, show_pull_progress=False, **options
    ) as container:
        yield container


async def state_is_kept(container: ExecutionContainer) -> None:
    async with kernel(container) as first, kernel(container) as second:
        await first.execute("x = 1")
        equal((await first.execute("x += 1\nprint(x)")).text, "2")
        equal((await first.execute("x * 21")).text, "42")
        equal((await second.execute("print('x' in globals())")).text, "False")


async def folder_and_environment(container: ExecutionContainer) -> None:
    async with kernel(container) as client:
        code = f"import os; open('relative.txt', 'w').close(); print(os.getcwd(), os.environ['{MARKER}'])"
        equal((await client.execute(code)).text, f"/app {TOKEN}")


async def cell_after_error_runs(container: ExecutionContainer) -> None:
    async with kernel(container) as client:
        for number in range(60):
            try:
                await client.execute(f"raise ValueError('reason {number}')")
            except ExecutionError as error:
                contains(str(error), "ValueError", f"reason {number}")
                contains(error.trace, "Traceback")
                equal("\x1b" in (error.trace or ""), False)
            else:
                raise AssertionError("no error")
            equal((await client.execute(f"print({number})")).text, str(number))


async def output_while_running(container: ExecutionContainer) -> None:
    async with kernel(container) as client:
        execution = await client.submit(
            "import time\nfor i in range(3):\n    print(i, flush=True); time.sleep(0.6)"
        )
        start = time.monotonic()
        arrivals = [(time.monotonic() - start, text) async for text in execution.stream() if text.strip()]
        equal("".join(text for _, text in arrivals).split(), ["0", "1", "2"])
        below(arrivals[0][0], 0.6)
        equal(len(arrivals), 3)


async def prints_are_complete(container: ExecutionContainer) -> None:
    async with kernel(container) as client:
        lost = [n for n in range(300) if (await client.execute(f"print({n})")).text != str(n)]
        equal(lost, [])
        equal(len((await client.execute("print('x' * 5_000_000)")).text or ""), 5_000_000)


async def timeout_interrupts_and_keeps_state(container: ExecutionContainer) -> None:
    async with kernel(container) as client:
        await client.execute("kept = 'kept'")
        try:
            await client.execute("import time; time.sleep(20)", timeout=0.5)
        except TimeoutError:
            pass
        else:
            raise AssertionError("no timeout")
        start = time.monotonic()
        equal((await client.execute("print(kept)")).text, "kept")
        below(time.monotonic() - start, 3)


async def pictures(container: ExecutionContainer) -> None:
    async with kernel(container) as client:
        await client.execute(PICTURE)
        for cell in ["display(picture)", "picture"]:
            result = await client.execute(cell)
            equal([image.size for image in result.images], [(3, 2)])


async def module_sources(container: ExecutionContainer) -> None:
    async with kernel(container) as client:
        await client.execute("open('own_module.py', 'w').write('def own():\\n    return 1\\n')")
        text = await client.get_module_sources(["own_module", "this"])
        contains(text, "```python\n# Module: own_module\n\ndef own():\n    return 1\n\n```")
        contains(text, "# Module: this", "Gur Mra bs Clguba")
        info = "info = get_module_info('own_module'); print(info.name, info.relpath, len(info.source))"
        equal((await client.execute(info)).text, "own_module own_module.py 24")


async def install_at_run_time(container: ExecutionContainer) -> None:
    async with kernel(container) as client:
        await client.execute(WRITE_WHEEL)
        contains((await client.execute(f"!pip install --no-index {WHEEL}")).text, "Successfully installed")
        equal((await client.execute("import client_trial; print(client_trial.ANSWER)")).text, "42")
        contains(await client.get_module_sources(["client_trial"]), "ANSWER = 42")


async def bind_mounts(tag: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        here = Path(name)
        (here / "open").mkdir()
        (here / "open").chmod(0o777)
        (here / "open" / "from_host.txt").write_text("host")
        here.chmod(0o755)
        binds = {str(here / "open"): "shared", str(here / "made" / "by client"): "skills/made"}
        async with started(tag, binds=binds) as container, kernel(container) as client:
            code = "print(open('/app/shared/from_host.txt').read(), open('shared/back.txt', 'w').write('!'))"
            equal((await client.execute(code)).text, "host 1")
            equal((await client.execute("import os; print(os.listdir('skills/made'))")).text, "[]")
        equal((here / "open" / "back.txt").read_text(), "!")


async def killed_container_is_gone(tag: str) -> None:
    async with started(tag) as container:
        name = container._container.id
        equal(name in await marked(), True)
    for _ in range(50):
        if name not in await marked():
            return
        await asyncio.sleep(0.1)
    raise AssertionError("the container is still there")


async def marked(remove: bool = False) -> list[str]:
    """Ids of the containers of this run."""
    found = []
    async with Docker() as docker:
        for container in await docker.containers.list(all=True):
            with contextlib.suppress(Exception):  # it went away meanwhile
                if f"{MARKER}={TOKEN}" in (await container.show())["Config"]["Env"]:
                    found.append(container.id)
                    if remove:
                        await container.delete(force=True, v=True)
    return found


SHARED: list[Callable[[ExecutionContainer], Awaitable[None]]] = [
    state_is_kept,
    folder_and_environment,
    cell_after_error_runs,
    output_while_running,
    prints_are_complete,
    timeout_interrupts_and_keeps_state,
    pictures,
    module_sources,
    install_at_run_time,
]

OWN: list[Callable[[str], Awaitable[None]]] = [bind_mounts, killed_container_is_gone]


async def check(name: str, outcome: Awaitable[None]) -> bool:
    try:
        await asyncio.wait_for(outcome, LIMIT)
    except Exception as error:
        why = "nothing within the time limit" if isinstance(error, TimeoutError) else str(error)
        kind = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
        print(f"FAILED {name}: {kind}{' '.join(why.split())[:400]}", flush=True)
        return False
    print(f"ok {name}", flush=True)
    return True


async def checks(tag: str) -> bool:
    passed = []
    async with contextlib.AsyncExitStack() as stack:
        container: ExecutionContainer | None = None

        async def answers_soon() -> None:
            nonlocal container
            start = time.monotonic()
            container = await stack.enter_async_context(started(tag))
            async with kernel(container) as client:
                equal((await client.execute("print(1)")).text, "1")
            below(time.monotonic() - start, 10)

        passed.append(await check("answers_soon", answers_soon()))
        if container:
            for shared in SHARED:
                passed.append(await check(shared.__name__, shared(container)))
    for own in OWN:
        passed.append(await check(own.__name__, own(tag)))
    return all(passed)


async def main(tag: str) -> int:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        return 0 if await checks(tag) else 1
    finally:
        await marked(remove=True)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(asyncio.run(main(sys.argv[1])))
