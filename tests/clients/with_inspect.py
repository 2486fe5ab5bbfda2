"""Prove an image with the Docker sandbox of inspect-ai 0.3.285: one line per check, exit status 0 if all passed.

    with_inspect.py IMAGE_TAG

Runs where inspect-ai==0.3.285 is installed, with Docker Compose 2 as a plug-in of the docker command. A
mock model calls the tools that a real one would call, in samples of a real evaluation.

The client refuses engines before 24.0.6. That one test is left out here, since nothing else in it needs
such an engine. Not run: tools that the client fetches from a web site and puts into the container.
"""

import contextlib
import os
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import agent
from proof import TOKEN, below, check, contains, containers, equal, main

FOLDER = tempfile.TemporaryDirectory()
os.environ["XDG_DATA_HOME"] = FOLDER.name  # its traces and files for Compose stay out of the home

from inspect_ai import Task, eval
from inspect_ai.dataset import Sample
from inspect_ai.log import EvalLog
from inspect_ai.model import ChatMessageTool, ModelOutput, ModelUsage, get_model
from inspect_ai.solver import Generate, Solver, TaskState, generate, solver, use_tools
from inspect_ai.tool import bash, python
from inspect_ai.util import SandboxEnvironment, sandbox
from inspect_ai.util._sandbox.docker import prereqs

COMPOSE = """
services:
  default:
    image: "{tag}"
    x-local: true
    labels: {{ipybox.client-trial: "{token}"}}
    command: "tail -f /dev/null"
    init: true
    network_mode: none
    stop_grace_period: 1s
"""
"""The client's own file for tasks that bring none, with a label, and a mark that the image cannot be pulled."""

CODE = "import numpy, pandas; print(pandas.DataFrame({'a': [1, 2, 3]}).a.sum() * 7)"

SETUP = "#!/usr/bin/env bash\nwc -l <given/table.csv >lines.txt\n"


async def any_engine(version: str = "") -> None:
    """In place of the test of the engine's version."""


async def commands(box: SandboxEnvironment) -> None:
    for command in [["python", "-c", CODE], ["python3", "-c", CODE], ["sh", "-c", f'python -c "{CODE}"']]:
        equal((await box.exec(command)).stdout, "42\n")
    result = await box.exec(["sh", "-c", "echo out; echo err >&2; exit 3"])
    equal((result.success, result.returncode, result.stdout, result.stderr), (False, 3, "out\n", "err\n"))
    equal((await box.exec(["cat"], input="from ü\n")).stdout, "from ü\n")
    result = await box.exec(["sh", "-c", "pwd; echo $GIVEN"], cwd="/tmp", env={"GIVEN": "by the caller"})
    equal(result.stdout, "/tmp\nby the caller\n")
    equal((await box.exec(["id", "-u"], user="root")).stdout, "0\n")


async def files(box: SandboxEnvironment) -> None:
    for path in ["here.txt", "new/folder/there.txt", "/workspace/there.txt", "/tmp/there.txt"]:
        await box.write_file(path, "ü\n")
        equal(await box.read_file(path), "ü\n")
        # The owner changes and removes it as well.
        equal((await box.exec(["sh", "-c", f"echo more >>{path} && cat {path} && rm {path}"])).stdout, "ü\nmore\n")
    content = bytes(range(256)) * 8_000
    await box.write_file("bytes", content)
    equal(await box.read_file("bytes", text=False) == content, True)
    for path, expected in [("missing.txt", FileNotFoundError), ("new", IsADirectoryError)]:
        with contextlib.suppress(expected):
            await box.read_file(path)
            raise AssertionError(f"{path!r} was read")


async def files_of_the_sample(box: SandboxEnvironment) -> None:
    equal(await box.read_file("given/table.csv"), "a\n1\n2\n")
    equal(await box.read_file("lines.txt"), "3\n")


async def timeout_ends_the_command(box: SandboxEnvironment) -> None:
    start = time.monotonic()
    try:
        await box.exec(["bash", "--login", "-c", "echo begun; sleep 321"], timeout=2)
    except TimeoutError as error:
        contains(getattr(error, "truncated_output", None), "begun")
    else:
        raise AssertionError("no error")
    below(time.monotonic() - start, 5)
    running = "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -c 'sleep 32[1]'"
    equal((await box.exec(["sh", "-c", running])).stdout, "0\n")


async def long_output(box: SandboxEnvironment) -> None:
    result = await box.exec(["python", "-c", "print('x' * 5_000_000)"])
    equal(len(result.stdout), 5_000_001)


SHARED: list[Callable[[SandboxEnvironment], Awaitable[None]]] = [
    commands,
    files_of_the_sample,
    files,
    timeout_ends_the_command,
    long_output,
]


def says(output: ModelOutput) -> ModelOutput:
    output.usage = ModelUsage()  # else its tokens are counted with a file from a web site
    return output


def calls(tool: str, argument: str, value: str) -> ModelOutput:
    return says(ModelOutput.for_tool_call("mockllm/model", tool, {argument: value}))


def evaluated(tag: str, samples: list[Sample], outputs: list[ModelOutput], *solvers: Solver) -> EvalLog:
    compose = Path(FOLDER.name) / "compose.yaml"
    compose.write_text(COMPOSE.format(tag=tag, token=TOKEN))
    task = Task(name="trial", dataset=samples, solver=list(solvers), sandbox=("docker", str(compose)))
    model = get_model("mockllm/model", custom_outputs=outputs, memoize=False)
    log = eval(task, model=model, log_dir=FOLDER.name, display="none", score=False)[0]
    equal((log.status, log.error and log.error.message), ("success", None))
    return log


def passes(tag: str) -> bool:
    passed: list[bool] = []

    @solver
    def shared(start: float) -> Solver:
        async def solve(state: TaskState, generate: Generate) -> TaskState:
            async def starts_soon() -> None:
                below(time.monotonic() - start, 10)

            passed.append(await check("starts_soon", starts_soon()))
            for each in SHARED:
                passed.append(await check(each.__name__, each(sandbox())))
            return state

        return solve

    def tool_says(log: EvalLog, tool: str) -> None:
        messages = log.samples[0].messages if log.samples else []
        said = [each for each in messages if isinstance(each, ChatMessageTool) and each.function == tool]
        equal([(each.text.strip(), each.error) for each in said], [("42", None)])

    def ends_without_a_trace() -> None:
        equal(containers(), [])

    sample = Sample(input="Compute.", files={"given/table.csv": "a\n1\n2\n"}, setup=SETUP)
    outputs = [
        calls("bash", "command", f'python -c "{CODE}"'),
        calls("python", "code", CODE),
        says(ModelOutput.from_content("mockllm/model", "Both say 42.")),
    ]
    tools = use_tools(bash(timeout=20), python(timeout=20))
    prereqs.validate_docker_engine = any_engine

    logs: list[EvalLog] = []

    def evaluation() -> None:
        logs.append(evaluated(tag, [sample], outputs, shared(time.monotonic()), tools, generate()))

    passed.append(agent.check("evaluation", evaluation, seconds=200))
    for log in logs:
        passed.append(agent.check("bash_tool", partial(tool_says, log, "bash")))
        passed.append(agent.check("python_tool", partial(tool_says, log, "python")))
    passed.append(agent.check("ends_without_a_trace", ends_without_a_trace))
    return all(passed)


if __name__ == "__main__":
    with FOLDER:
        main(passes)
