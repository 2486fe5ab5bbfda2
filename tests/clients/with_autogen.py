"""Prove an image with the Docker executor of autogen-ext 0.7.5: one line per check, exit status 0 if all passed.

    with_autogen.py IMAGE_TAG

Runs where autogen-ext[docker]==0.7.5 is installed, on the host of the engine: the executor mounts a folder of
the host, which is given to the image's user. Its containers can have neither labels nor variables; their names
carry `TOKEN`.

Not run, because they need an index: functions with requirements.
"""

import asyncio
import contextlib
import json
import os
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from autogen_core import CancellationToken
from autogen_core.code_executor import CodeBlock, with_requirements
from autogen_ext.code_executors.docker import DockerCommandLineCodeExecutor
from autogen_ext.tools.code_execution import CodeExecutionInput, PythonCodeExecutionTool

from proof import TOKEN, below, contains, equal, prove

IMPORTS = "import numpy, pandas; print(pandas.Series(numpy.arange(4)).sum())"

NAME = f"client-trial-{TOKEN}"


@with_requirements(python_packages=[], global_imports=["pandas"])
def rows(count: int) -> int:
    """Count the rows of a frame."""
    return len(pandas.DataFrame({"a": range(count)}))  # type: ignore[name-defined]  # noqa: F821


def docker(*arguments: str) -> str:
    return subprocess.check_output(["docker", *arguments], text=True).strip()


@contextlib.asynccontextmanager
async def executor(tag: str, name: str, **options: Any) -> AsyncIterator[DockerCommandLineCodeExecutor]:
    """One that started; its container is removed at the end, which is quicker than its own way."""
    with tempfile.TemporaryDirectory() as folder:
        give(folder, tag)
        one = DockerCommandLineCodeExecutor(tag, f"{NAME}-{name}", work_dir=folder, stop_container=False, **options)
        await one.start()
        try:
            yield one
        finally:
            remove(one.container_name)


def give(folder: str, tag: str) -> None:
    """The folder to the image's user."""
    user = json.loads(docker("image", "inspect", "--format", "{{json .Config.User}}", tag)) or "0:0"
    uid, gid = map(int, user.split(":"))
    if os.stat(folder).st_uid != uid:
        os.chown(folder, uid, gid)


def containers(name: str) -> list[str]:
    return docker("ps", "--all", "--quiet", "--filter", f"name={name}").split()


def remove(name: str) -> None:
    if left := containers(name):
        docker("rm", "--force", "--volumes", *left)


@contextlib.asynccontextmanager
async def started(tag: str) -> AsyncIterator[DockerCommandLineCodeExecutor]:
    async with executor(tag, "shared") as one:
        yield one


async def run(
    one: DockerCommandLineCodeExecutor,
    *blocks: tuple[str, str],
    token: CancellationToken | None = None,
) -> tuple[int, str]:
    """Exit code and output of code blocks, each a language and a text."""
    code = [CodeBlock(code=text, language=language) for language, text in blocks]
    result = await one.execute_code_blocks(code, token or CancellationToken())
    task = asyncio.current_task()
    if task and task.cancelling():  # which the executor takes for its own affair
        raise asyncio.CancelledError
    return result.exit_code, result.output.strip()


async def answers(one: DockerCommandLineCodeExecutor) -> None:
    equal(await run(one, ("sh", "pwd")), (0, "/workspace"))


async def python(one: DockerCommandLineCodeExecutor) -> None:
    equal(await run(one, ("python", IMPORTS)), (0, "6"))
    equal(await run(one, ("bash", f"python3 -c '{IMPORTS}'")), (0, "6"))
    equal(await run(one, ("bash", f"bash -lc \"python -c '{IMPORTS}'\"")), (0, "6"))


async def exit_codes(one: DockerCommandLineCodeExecutor) -> None:
    code, output = await run(one, ("python", "import sys\nprint('out')\nsys.exit('error')"))
    equal((code, sorted(output.split())), (1, ["error", "out"]))
    equal(await run(one, ("sh", "exit 7"), ("python", "print('not run')")), (7, ""))
    equal(await run(one, ("python", "print(1)"), ("sh", "echo 2")), (0, "1\n2"))


async def files(one: DockerCommandLineCodeExecutor) -> None:
    """In the folder of the host, both ways."""
    Path(one.work_dir, "given.csv").write_text("a\n1\n2\n")
    code = "import pandas\npandas.read_csv('given.csv').to_csv('made.csv')"
    equal(await run(one, ("python", code)), (0, ""))
    equal(Path(one.work_dir, "made.csv").read_text(), ",a\n0,1\n1,2\n")
    equal(await run(one, ("python", "# filename: named.py\nANSWER = 42")), (0, ""))
    equal(await run(one, ("python", "import named\nprint(named.ANSWER)")), (0, "42"))


async def long_output(one: DockerCommandLineCodeExecutor) -> None:
    code, output = await run(one, ("python", "print('x' * 5_000_000)"))
    equal((code, len(output)), (0, 5_000_000))


async def tool(one: DockerCommandLineCodeExecutor) -> None:
    result = await PythonCodeExecutionTool(one).run(CodeExecutionInput(code=IMPORTS), CancellationToken())
    equal((result.success, result.output), (True, "6\n"))


async def cancelled_code_ends(one: DockerCommandLineCodeExecutor) -> None:
    token = CancellationToken()
    running = asyncio.create_task(run(one, ("python", "import time\ntime.sleep(987)"), token=token))
    await asyncio.sleep(1)
    start = time.monotonic()
    token.cancel()
    code, output = await running
    equal(code, 1)
    contains(output, "cancelled")
    for _ in range(30):
        if await run(one, ("sh", "cat /proc/[0-9]*/cmdline | tr '\\0' '\\n' | grep -c '^tmp_.*python$'")) == (1, "0"):
            break
        await asyncio.sleep(0.1)
    else:
        raise AssertionError("the code still runs")
    below(time.monotonic() - start, 5)


async def timeout(tag: str) -> None:
    async with executor(tag, "timeout", timeout=1) as one:
        code, output = await run(one, ("python", "import time\nprint('before', flush=True)\ntime.sleep(60)"))
        equal(code, 124)
        contains(output, "before", "Timeout")
        equal(await run(one, ("sh", "echo after")), (0, "after"))


async def functions(tag: str) -> None:
    async with executor(tag, "functions", functions=[rows]) as one:
        equal(await run(one, ("python", "from functions import rows\nprint(rows(3))")), (0, "3"))


async def stopped_container_is_gone(tag: str) -> None:
    """With the first command and the cleaning that a user can ask for."""
    async with executor(tag, "stopped", init_command="echo started > started", delete_tmp_files=True) as one:
        equal(await run(one, ("sh", "cat started")), (0, "started"))
        equal(os.listdir(one.work_dir), ["started"])
        await one.stop()
        for _ in range(50):
            if not containers(one.container_name):
                return
            await asyncio.sleep(0.1)
        raise AssertionError("the container is still there")


SHARED = [python, exit_codes, files, long_output, tool, cancelled_code_ends]

OWN = [timeout, functions, stopped_container_is_gone]


if __name__ == "__main__":
    try:
        prove(started, answers, SHARED, OWN)
    finally:
        remove(NAME)
