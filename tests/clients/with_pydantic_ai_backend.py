"""Prove an image with pydantic-ai-backend 0.2.37's DockerWorkspace: one line per check, exit status 0 if all passed.

    with_pydantic_ai_backend.py IMAGE_TAG

Runs where pydantic-ai-backend[docker,workspaces]==0.2.37 is installed. An agent runs too, with tool calls that are
given instead of a model's.
"""

import contextlib
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.workspaces import (
    Workspace,
    WorkspaceOutputLimitError,
    WorkspaceTimeoutError,
    WorkspaceUnavailableError,
)
from pydantic_ai_backends import ConsoleCapability, DockerSandbox, DockerWorkspace, RuntimeConfig, SessionManager
from pydantic_ai_backends.permissions import PERMISSIVE_RULESET

from proof import MARKER, TOKEN, below, containers, contains, equal, gone, prove

IMPORTS = "import numpy, pandas; print(pandas.Series(numpy.arange(4)).sum())"

PROGRAM = "import pandas\nprint(len(pandas.DataFrame({'a': [1, 2]})))\n"

CALLS: list[tuple[str, dict[str, Any], str]] = [
    ("write_file", {"path": "agent/program.py", "content": PROGRAM}, "Wrote 2 lines"),
    ("read_file", {"path": "agent/program.py"}, "import pandas"),
    ("edit_file", {"path": "agent/program.py", "old_string": "[1, 2]", "new_string": "[1, 2, 3]"}, "replaced 1"),
    ("ls", {"path": "agent"}, "program.py"),
    ("glob", {"pattern": "**/*.py", "path": "agent"}, "agent/program.py"),
    ("grep", {"pattern": "DataFrame", "path": "agent", "output_mode": "content"}, "program.py:2:"),
    ("execute", {"command": "python agent/program.py"}, "3"),
    ("execute", {"command": f"bash -lc \"python -c '{IMPORTS}'\""}, "6"),
    ("execute", {"command": "exit 7"}, "exit code 7"),
]
"""What the agent calls, and a part of the answer."""


def runtime(tag: str) -> RuntimeConfig:
    return RuntimeConfig(name="trial", image=tag, env_vars={MARKER: TOKEN})


def supplier(tag: str) -> DockerWorkspace:
    return DockerWorkspace(runtime=runtime(tag), network_mode="none", env={"GIVEN": "by the caller"})


@contextlib.asynccontextmanager
async def started(tag: str) -> AsyncIterator[Workspace]:
    """A workspace, which is destroyed at the end."""
    one = supplier(tag)
    workspace = Workspace(one.backend())
    await workspace.run(["true"])
    assert workspace.ref is not None
    yield workspace
    await one.destroy(workspace.ref)


async def output(workspace: Workspace, *command: str, **options: Any) -> str:
    """What a command that succeeds prints; a single text is for the shell."""
    shell = len(command) == 1
    result = await workspace.run(command[0] if shell else command, shell=shell, **options)
    equal((result.exit_code, result.stderr), (0, ""))
    return str(result.stdout).strip()


async def answers(workspace: Workspace) -> None:
    equal(await output(workspace, "pwd"), "/workspace")


async def exit_codes_and_streams(workspace: Workspace) -> None:
    result = await workspace.run("echo out; echo error >&2; exit 7", shell=True)
    equal((result.stdout, result.stderr, result.exit_code), ("out\n", "error\n", 7))
    equal(await output(workspace, "printf", "%s", "a 'b' $HOME"), "a 'b' $HOME")
    equal((await workspace.run(["missing-program"])).exit_code, 127)
    given = await output(workspace, "echo $GIVEN $OTHER; pwd", env={"OTHER": "other"}, cwd="/tmp")
    equal(given, "by the caller other\n/tmp")


async def python(workspace: Workspace) -> None:
    for name in ["python", "python3"]:
        equal(await output(workspace, name, "-c", IMPORTS), "6")
        equal(await output(workspace, f"{name} -c '{IMPORTS}'"), "6")


async def files(workspace: Workspace) -> None:
    for content in [b"", "line ü\n".encode(), bytes(range(256)) * 4096]:
        await workspace.write_bytes("new/folder/file.bin", content)
        equal(await workspace.read_bytes("/workspace/new/folder/file.bin"), content)
    await workspace.write_text("program.py", PROGRAM)
    equal(await output(workspace, "python program.py"), "2")
    await output(workspace, "echo made > made.txt")
    equal(await workspace.read_text("made.txt"), "made\n")


async def folders(workspace: Workspace) -> None:
    await workspace.make_dir("one/two")
    await workspace.write_text("one/a.txt", "abc")
    entries = sorted((entry.path, entry.is_dir) for entry in await workspace.list_dir("one"))
    equal(entries, [("/workspace/one/a.txt", False), ("/workspace/one/two", True)])
    equal((await workspace.stat("one/a.txt")).size, 3)
    await output(workspace, "ln -s one link")
    equal(await workspace.realpath("link/a.txt"), "/workspace/one/a.txt")
    await workspace.remove("one")
    equal(await workspace.exists("one"), False)


async def long_output(workspace: Workspace) -> None:
    equal(len(await output(workspace, "python", "-c", "print('x' * 5_000_000)")), 5_000_000)
    try:
        await workspace.run(["yes"])
    except WorkspaceOutputLimitError as error:
        contains(error.stdout, "y\ny\n")
    else:
        raise AssertionError("no limit")


async def timeout_ends_the_command(workspace: Workspace) -> None:
    start = time.monotonic()
    try:
        await workspace.run("echo before; sleep 987 & sleep 987", shell=True, timeout=1)
    except WorkspaceTimeoutError as error:
        equal(error.stdout, "before\n")
    else:
        raise AssertionError("no timeout")
    below(time.monotonic() - start, 5)
    equal(await output(workspace, "cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -c 'sleep [9]87' || true"), "0")


async def workspace_is_found_again(workspace: Workspace) -> None:
    """By its reference, also after its container stopped."""
    equal(await output(workspace, f"echo kept > kept.txt; echo ${MARKER}"), TOKEN)
    ref = workspace.ref
    assert ref is not None
    container = DockerSandbox(container_name=ref.id, reattach_only=True)
    container.start()
    container.stop()
    again = Workspace(DockerWorkspace().backend(ref))
    equal(await output(again, "cat kept.txt"), "kept")


async def agent_uses_the_tools(tag: str) -> None:
    said: list[str] = []

    def next_call(messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
        said.extend(str(part.content) for part in messages[-1].parts if isinstance(part, ToolReturnPart))
        if len(said) == len(CALLS):
            return ModelResponse(parts=[TextPart("done")])
        name, arguments, _ = CALLS[len(said)]
        return ModelResponse(parts=[ToolCallPart(name, arguments)])

    tools = ConsoleCapability(permissions=PERMISSIVE_RULESET)
    agent = Agent(FunctionModel(next_call), capabilities=[supplier(tag), tools])
    equal((await agent.run("Count the rows.")).output, "done")
    for (_, _, expected), found in zip(CALLS, said, strict=True):
        contains(found, expected)


async def session_with_limits(tag: str) -> None:
    """And its container is gone after it."""
    limits: dict[str, Any] = {"mem_limit": "512m", "cpus": 1, "pids_limit": 64, "tmpfs": {"/tmp": "size=64m"}}
    manager = SessionManager(lambda name: DockerSandbox(session_id=name, runtime=runtime(tag), **limits))
    before = containers()
    sandbox = await manager.get_or_create("trial")
    [name] = [each for each in containers() if each not in before]
    outcome = await sandbox.run_command(["python", "-c", IMPORTS], run_id=uuid.uuid4().hex)
    equal((outcome.stdout, outcome.exit_code), ("6\n", 0))
    await manager.release("trial")
    await gone(name)


async def destroyed_workspace_is_gone(tag: str) -> None:
    one = supplier(tag)
    workspace = Workspace(one.backend())
    await output(workspace, "true")
    ref = workspace.ref
    assert ref is not None
    await one.destroy(ref)
    try:
        await workspace.run(["true"])
    except WorkspaceUnavailableError:
        return
    raise AssertionError("the container is still there")


SHARED = [
    exit_codes_and_streams,
    python,
    files,
    folders,
    long_output,
    timeout_ends_the_command,
    workspace_is_found_again,
]

OWN = [agent_uses_the_tools, session_with_limits, destroyed_workspace_is_gone]


if __name__ == "__main__":
    prove(started, answers, SHARED, OWN)
