"""What the drivers of Deep Agents' sandboxes share: checks of their common protocol; see `agent`."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from deepagents import create_deep_agent
from deepagents.backends.protocol import SandboxBackendProtocol
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage

from agent import Check
from proof import WHEEL, WRITE_WHEEL, below, containers, contains, equal

LABEL = "ipybox.client-trial"
IMPORTS = "import numpy, pandas; print(pandas.Series(numpy.arange(4)).sum())"
PROGRAM = """\
import pandas

frame = pandas.read_csv("in.csv")
frame["c"] = frame.a + frame.b
frame.to_csv("made/out.csv", index=False)
print(frame.c.sum())
"""
TABLE = "a,b,c\n1,2,3\n3,4,7"


@dataclass
class Trial:
    sandbox: SandboxBackendProtocol
    root: str
    """Where commands run, as the file tools call it, without a slash at the end."""
    limit: int | None
    """Bytes of output from one command, if the client limits them."""


class Scripted(GenericFakeChatModel):
    """Says what it is given, instead of a model."""

    def bind_tools(self, *_tools: Any, **_options: Any) -> "Scripted":
        return self


def output(trial: Trial, command: str) -> str:
    """What a command prints that succeeds."""
    response = trial.sandbox.execute(command)
    if response.exit_code != 0 or response.truncated:
        raise AssertionError(f"exit code {response.exit_code}: {response.output[-300:]}")
    return response.output.strip()


def read(trial: Trial, name: str, **options: int) -> str:
    result = trial.sandbox.read(f"{trial.root}/{name}", **options)
    equal(result.error, None)
    assert result.file_data is not None
    return result.file_data["content"].rstrip("\n")


def write(trial: Trial, name: str, content: str) -> None:
    equal(trial.sandbox.write(f"{trial.root}/{name}", content).error, None)


def commands(trial: Trial) -> None:
    equal(output(trial, "printf '%s' \"$((20 + 22))\" | tr 4 5"), "52")
    response = trial.sandbox.execute("echo out; echo error >&2; exit 7")
    equal(response.exit_code, 7)
    contains(response.output, "out", "error")
    equal(trial.sandbox.execute("no-such-command").exit_code, 127)


def python(trial: Trial) -> None:
    for name in ["python", "python3", "bash -c 'python \"$@\"' python"]:
        equal(output(trial, f'{name} -c "{IMPORTS}"'), "6")
    equal(output(trial, f"python - <<'END'\n{IMPORTS}\nEND"), "6")


def python_in_a_login_shell(trial: Trial) -> None:
    for name in ["python", "python3"]:
        equal(output(trial, f"bash -lc '{name} -c \"{IMPORTS}\"'"), "6")


def writes_and_reads(trial: Trial) -> None:
    lines = [f"line {number} ü 'quoted' \"$HOME\"" for number in range(100)]
    write(trial, "texts/lines.txt", "\n".join(lines))
    equal(read(trial, "texts/lines.txt"), "\n".join(lines))
    equal(read(trial, "texts/lines.txt", offset=10, limit=2), "\n".join(lines[10:12]))
    equal(output(trial, "cat texts/lines.txt"), "\n".join(lines))
    contains(trial.sandbox.read(f"{trial.root}/texts/missing.txt").error, "missing.txt")
    output(trial, "echo from the shell > shell.txt")
    equal(read(trial, "shell.txt"), "from the shell")


def lists_and_finds(trial: Trial) -> None:
    output(trial, "mkdir -p tree/inner && touch tree/a.py tree/inner/b.py tree/inner/c.txt")
    listed = trial.sandbox.ls(f"{trial.root}/tree")
    equal(listed.error, None)
    names = {entry["path"].rstrip("/"): entry.get("is_dir", False) for entry in listed.entries or []}
    equal(names, {f"{trial.root}/tree/a.py": False, f"{trial.root}/tree/inner": True})
    found = trial.sandbox.glob("**/*.py", f"{trial.root}/tree")
    equal(found.error, None)
    ends = sorted(match["path"].rpartition("/")[2] for match in found.matches or [])
    equal(ends, ["a.py", "b.py"])


def greps(trial: Trial) -> None:
    write(trial, "words/one.txt", "first\nfind [me] here\n")
    write(trial, "words/two.py", "nothing\n")
    for glob in [None, "*.txt"]:
        found = trial.sandbox.grep("[me]", f"{trial.root}/words", glob)
        equal(found.error, None)
        matches = [(match["path"], match["line"], match["text"]) for match in found.matches or []]
        equal(matches, [(f"{trial.root}/words/one.txt", 2, "find [me] here")])
    equal(trial.sandbox.grep("absent", f"{trial.root}/words").matches, [])


def uploads_and_downloads(trial: Trial) -> None:
    content = bytes(range(256)) * 2048
    path = f"{trial.root}/up/data.bin"
    equal([each.error for each in trial.sandbox.upload_files([(path, content)])], [None])
    equal(output(trial, "wc -c < up/data.bin"), str(len(content)))
    output(trial, "cp up/data.bin down.bin")
    paths = [f"{trial.root}/down.bin", f"{trial.root}/missing.bin"]
    results = [(each.content, each.error) for each in trial.sandbox.download_files(paths)]
    equal(results, [(content, None), (None, "file_not_found")])


def program_works_on_files(trial: Trial) -> None:
    write(trial, "in.csv", "a,b\n1,2\n3,4\n")
    write(trial, "program.py", PROGRAM)
    equal(output(trial, "mkdir made && python program.py"), "10")
    equal(read(trial, "made/out.csv"), TABLE)


def long_output(trial: Trial) -> None:
    size = trial.limit // 2 if trial.limit else 3_000_000
    equal(len(output(trial, f"python -c \"print('x' * {size})\"")), size)
    if trial.limit:
        response = trial.sandbox.execute(f"python -c \"print('x' * {trial.limit * 2})\"")
        equal(response.truncated, True)
        contains(response.output, "x" * (trial.limit // 2), "truncated")


def packages_through_pip(trial: Trial) -> None:
    write(trial, "wheel.py", WRITE_WHEEL)
    output(trial, f"python wheel.py && pip install --quiet --disable-pip-version-check --no-index ./{WHEEL}")
    equal(output(trial, "cd / && python -c 'import client_trial; print(client_trial.ANSWER)'"), "42")


def agent_uses_its_tools(trial: Trial) -> None:
    """Through Deep Agents' own tools, as a model would call them."""
    program = f"{trial.root}/agent/program.py"
    calls = [
        ("write_file", {"file_path": program, "content": f"{IMPORTS}\n"}),
        ("execute", {"command": "python agent/program.py"}),
        ("read_file", {"file_path": program}),
        ("grep", {"pattern": "numpy", "path": f"{trial.root}/agent"}),
        ("ls", {"path": f"{trial.root}/agent"}),
    ]
    said = [
        AIMessage("", tool_calls=[{"name": name, "args": given, "id": str(number)}])
        for number, (name, given) in enumerate(calls)
    ]
    agent = create_deep_agent(Scripted(messages=iter([*said, AIMessage("done")])), backend=trial.sandbox)
    messages = agent.invoke({"messages": [HumanMessage("begin")]})["messages"]
    results = [str(message.content) for message in messages if isinstance(message, ToolMessage)]
    for result, part in zip(results, ["program.py", "6\n", "import numpy", "program.py", "program.py"], strict=True):
        contains(result, part)
    contains(results[1], "succeeded")


def ends_at_timeout(trial: Trial) -> None:
    start = time.monotonic()
    response = trial.sandbox.execute("sleep 60", timeout=2)
    below(time.monotonic() - start, 15)
    equal(response.exit_code, 124)


def answers_after_timeout(trial: Trial) -> None:
    ends_at_timeout(trial)
    equal(output(trial, "echo alive"), "alive")


def closes_soon(trial: Trial) -> None:
    start = time.monotonic()
    trial.sandbox.close()  # type: ignore[attr-defined]  # of every client, though not of their protocol
    below(time.monotonic() - start, 10)
    equal(containers(), [])


def edits(trial: Trial) -> None:
    """Not where files belong to root, since the client put them there by the engine's archive call."""
    path = f"{trial.root}/edited.py"
    write(trial, "edited.py", "value = 1\nvalue = 1\nprint('ü')\n")
    equal(trial.sandbox.edit(path, "'ü'", "'é'").occurrences, 1)
    contains(trial.sandbox.edit(path, "value = 1", "value = 2").error, "replace_all=True")
    equal(trial.sandbox.edit(path, "value = 1", "value = 2", replace_all=True).occurrences, 2)
    equal(read(trial, "edited.py"), "value = 2\nvalue = 2\nprint('é')")


SHARED: list[Callable[[Trial], None]] = [
    commands,
    python,
    python_in_a_login_shell,
    writes_and_reads,
    lists_and_finds,
    greps,
    uploads_and_downloads,
    program_works_on_files,
    packages_through_pip,
    long_output,
    agent_uses_its_tools,
]


def checks(trial: Trial, functions: Iterable[Callable[[Trial], None]]) -> Iterator[tuple[str, Check]]:
    return ((each.__name__, partial(each, trial)) for each in functions)
