"""Prove an image with the client of ipybox 0.3.2: one line per check, exit status 0 if all passed.

    with_ipybox_0_3.py IMAGE_TAG

Runs where ipybox==0.3.2 is installed.

Not run, because it needs public web sites: packages from an index.
"""

import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from ipybox import ExecutionClient, ExecutionContainer, ExecutionError

from proof import MARKER, PICTURE, TOKEN, WHEEL, WRITE_WHEEL, below, containers, contains, equal, gone, prove


def kernel(container: ExecutionContainer) -> ExecutionClient:
    return ExecutionClient(port=container.port)


def started(tag: str, **options: Any) -> ExecutionContainer:
    return ExecutionContainer(tag=tag, env={MARKER: TOKEN}, show_pull_progress=False, **options)


async def answers(container: ExecutionContainer) -> None:
    async with kernel(container) as client:
        equal((await client.execute("print(1)")).text, "1")


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
        equal(name in containers(), True)
    await gone(name)


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


if __name__ == "__main__":
    prove(started, answers, SHARED, OWN)
