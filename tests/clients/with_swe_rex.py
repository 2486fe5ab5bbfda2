"""Prove an image with the Docker deployment of SWE-ReX 1.4.0: one line per check, exit status 0 if all passed.

    with_swe_rex.py IMAGE_TAG

Runs where swe-rex==1.4.0 is installed, and the image must have it too: `swe-rex = "^1.4"` among its
dependencies. Otherwise the client would install its server from an index at every start.
"""

import contextlib
import io
import os
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp

os.environ["SWE_REX_LOG_STREAM_LEVEL"] = "100"

from swerex.deployment.docker import DockerDeployment
from swerex.exceptions import BashIncorrectSyntaxError, CommandTimeoutError, NonZeroExitCodeError
from swerex.runtime.abstract import (
    BashAction,
    BashInterruptAction,
    CloseBashSessionRequest,
    Command,
    CreateBashSessionRequest,
    ReadFileRequest,
    UploadRequest,
    WriteFileRequest,
)

from proof import TOKEN, below, containers, contains, equal, gone, prove

IMPORTS = "import numpy, pandas; print(pandas.Series(numpy.arange(4)).sum())"


def deployment(tag: str, *arguments: str) -> DockerDeployment:
    return DockerDeployment(image=tag, docker_args=["--label", f"ipybox.client-trial={TOKEN}", *arguments])


@contextlib.asynccontextmanager
async def started(tag: str) -> AsyncIterator[DockerDeployment]:
    """A deployment with a session."""
    one = deployment(tag)
    await one.start()
    try:
        await one.runtime.create_session(CreateBashSessionRequest())
        yield one
    finally:
        await one.stop()


@contextlib.contextmanager
def raises(kind: type[Exception]) -> Iterator[None]:
    """The body must end in an error of this kind, about which the client prints a line of its own."""
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            yield
        except kind:
            return
    raise AssertionError(f"no {kind.__name__}")


async def say(one: DockerDeployment, command: str, **options: Any) -> str:
    """What a command prints in a session."""
    result = await one.runtime.run_in_session(BashAction(command=command, **options))
    return str(result.output).replace("\r\n", "\n").strip()


async def answers(one: DockerDeployment) -> None:
    equal(await say(one, "pwd"), "/app")


async def exit_codes(one: DockerDeployment) -> None:
    silent = BashAction(command="echo out; (exit 7)", check="silent")
    result = await one.runtime.run_in_session(silent)
    equal((result.output.strip(), result.exit_code), ("out", 7))
    with raises(NonZeroExitCodeError):
        await say(one, "false")
    with raises(BashIncorrectSyntaxError):
        await say(one, "if true; then")
    equal(await say(one, "echo after"), "after")


async def state_is_kept(one: DockerDeployment) -> None:
    await say(one, "cd /tmp && export KEPT=kept")
    equal(await say(one, 'echo "$PWD $KEPT"'), "/tmp kept")
    await say(one, "cd /app")


async def sessions_are_separate(one: DockerDeployment) -> None:
    await say(one, "own=first")
    await one.runtime.create_session(CreateBashSessionRequest(session="second"))
    equal(await say(one, 'echo "[$own]"', session="second"), "[]")
    equal(await say(one, 'echo "[$own]"'), "[first]")
    await one.runtime.close_session(CloseBashSessionRequest(session="second"))


async def python_in_a_session(one: DockerDeployment) -> None:
    for command in ["python", "python3", "bash -lc 'python \"$@\"' -"]:
        equal(await say(one, f"{command} -c '{IMPORTS}'"), "6")


async def interactive_python(one: DockerDeployment) -> None:
    await say(one, "python -q", is_interactive_command=True, expect=[">>> "], timeout=10)
    said = await say(one, "print(6 * 7)", is_interactive_command=True, expect=[">>> "], timeout=10)
    contains(said, "42")
    await say(one, "exit()", is_interactive_quit=True, timeout=10)
    equal(await say(one, "echo after"), "after")


async def commands_without_a_session(one: DockerDeployment) -> None:
    for name in ["python", "python3"]:
        result = await one.runtime.execute(Command(command=[name, "-c", IMPORTS]))
        equal((result.stdout, result.stderr, result.exit_code), ("6\n", "", 0))
    text = "echo $GIVEN; pwd; echo error >&2; exit 3"
    environment = {"GIVEN": "given", "PATH": "/usr/bin:/bin"}
    result = await one.runtime.execute(Command(command=text, shell=True, env=environment, cwd="/tmp"))
    equal((result.stdout, result.stderr, result.exit_code), ("given\n/tmp\n", "error\n", 3))


async def files(one: DockerDeployment) -> None:
    content = "import pandas\nprint(len(pandas.DataFrame({'ü': [1, 2]})))\n"
    await one.runtime.write_file(WriteFileRequest(path="/app/new/program.py", content=content))
    equal((await one.runtime.read_file(ReadFileRequest(path="/app/new/program.py"))).content, content)
    equal(await say(one, "python new/program.py"), "2")
    with raises(FileNotFoundError):
        await one.runtime.read_file(ReadFileRequest(path="/app/missing"))


async def uploads(one: DockerDeployment) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "source")
        (source / "inner").mkdir(parents=True)
        (source / "inner" / "binary").write_bytes(bytes(range(256)))
        await one.runtime.upload(UploadRequest(source_path=str(source), target_path="/app/folder"))
        single = UploadRequest(source_path=str(source / "inner" / "binary"), target_path="/app/single")
        await one.runtime.upload(single)
    equal(await say(one, "cmp single folder/inner/binary && stat -c %s single"), "256")


async def long_output(one: DockerDeployment) -> None:
    result = await one.runtime.execute(Command(command=["python", "-c", "print('x' * 5_000_000)"]))
    equal(len(result.stdout), 5_000_001)
    equal(len((await say(one, "seq 20000")).split()), 20_000)


async def timeouts(one: DockerDeployment) -> None:
    start = time.monotonic()
    with raises(CommandTimeoutError):
        await one.runtime.execute(Command(command=["sleep", "60"], timeout=1))
    with raises(CommandTimeoutError):
        await say(one, "sleep 60", timeout=1)
    await one.runtime.run_in_session(BashInterruptAction())
    equal(await say(one, "echo after"), "after")
    below(time.monotonic() - start, 10)


async def token_is_demanded(one: DockerDeployment) -> None:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session:
        for headers in [{}, {"X-API-Key": "wrong"}]:
            async with session.post(f"http://127.0.0.1:{port(one)}/execute", headers=headers) as response:
                equal(response.status in (401, 403), True)


def port(one: DockerDeployment) -> int:
    found = one._config.port
    assert found is not None
    return found


async def stopped_container_is_gone(tag: str) -> None:
    """And the server runs without privileges."""
    one = deployment(tag, "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--init")
    before = containers()
    await one.start()
    [name] = [each for each in containers() if each not in before]
    equal((await one.runtime.execute(Command(command=["python", "-c", IMPORTS]))).stdout, "6\n")
    await one.stop()
    await gone(name)


SHARED = [
    exit_codes,
    state_is_kept,
    sessions_are_separate,
    python_in_a_session,
    interactive_python,
    commands_without_a_session,
    files,
    uploads,
    long_output,
    timeouts,
    token_is_demanded,
]

OWN = [stopped_container_is_gone]


if __name__ == "__main__":
    prove(started, answers, SHARED, OWN)
