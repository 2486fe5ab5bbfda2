"""Three agents of smolagents at once, whose model follows a script.

    agents.py TAG

Builds the image TAG on IPYBOX_TEST_BASE; runs where smolagents is installed.
"""

import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import requests
from smolagents import ChatMessage, CodeAgent, LogLevel, MessageRole, Model, tool

from ipybox import SandboxError
from ipybox.smolagents import SandboxExecutor

PROJECT = f"pytest-agents-{secrets.token_hex(4)}"


class Script(Model):
    """Says one code block after the other."""

    def __init__(self, *blocks: str):
        super().__init__(model_id="script")
        self.blocks = iter(blocks)

    def generate(self, *_arguments: Any, **_settings: Any) -> ChatMessage:
        return ChatMessage(role=MessageRole.ASSISTANT, content=f"Thought: go on.\n<code>\n{next(self.blocks)}\n</code>")


@tool
def shout(text: str) -> str:
    """Upper case.

    Args:
        text: Any text.
    """
    return text.upper()


def containers() -> list[str]:
    return subprocess.check_output(
        ["docker", "ps", "--all", "--quiet", "--filter", f"label=ipybox.sandbox.project={PROJECT}"], text=True
    ).split()


def executor(tag: str, **settings: Any) -> SandboxExecutor:
    return SandboxExecutor(tag, project=PROJECT, **settings)


def answer(tag: str, number: int) -> tuple[Any, str]:
    model = Script(
        f"import numpy\nx = {number}\nopen('/tmp/x', 'a').write('{number}')",
        "raise ValueError('reason')",
        "import os, time; time.sleep(2); print(shout('said'), sorted(os.environ['GIVEN']))",
        "final_answer({'x': (x, numpy.int64(1), open('/tmp/x').read())})",
    )
    with CodeAgent([shout], model, executor=executor(tag, env={"GIVEN": "cab"}), verbosity_level=LogLevel.OFF) as agent:
        found = agent.run("go")
        return found, str(agent.memory.get_full_steps())


def three_at_once(tag: str) -> None:
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda number: answer(tag, number), range(3)))
    for number, (found, steps) in enumerate(answers):
        assert found == {"x": (number, 1, str(number))}, found
        assert "SAID ['a', 'b', 'c']" in steps and "reason" in steps, steps
        assert "pip" not in steps, steps
    assert not containers()


def each_has_its_token(tag: str) -> None:
    executors = [executor(tag) for _ in range(2)]
    addresses = [one.ws_url.replace("ws", "http", 1).split(f"kernels/{one.kernel_id}/channels") for one in executors]
    queries = [addresses[0][1], addresses[1][1], "", "?token=None"]
    accepted = [requests.get(f"{addresses[0][0]}kernelspecs{query}").ok for query in queries]
    assert accepted == [True, False, False, False], accepted
    for one in executors:
        one.delete()
        one.cleanup()
    assert not containers()


def no_container_is_left_after_failures(tag: str) -> None:
    failures: list[Callable[[], object]] = [
        lambda: executor(tag, command=["sleep", "infinity"]),
        lambda: executor("ipybox-pytest/nonexistent"),
    ]
    for failure in failures:
        try:
            failure()
        except SandboxError:
            assert not containers()
        else:
            raise AssertionError("no error")


def none_is_left_at_the_end_of_a_process(tag: str) -> None:
    code = f"from ipybox.smolagents import SandboxExecutor as E; print(E({tag!r}, project={PROJECT!r})('1 + 1').output)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "2\n"
    assert not containers()


def packages_that_are_there_are_not_installed(tag: str) -> None:
    one = executor(tag)
    start = time.monotonic()
    assert one.install_packages(["numpy", "pillow", "PIL", "six"]) == ["numpy", "pillow", "PIL", "six"]
    assert time.monotonic() - start < 2
    one.cleanup()


def values_are_no_pickles(tag: str) -> None:
    one = executor(tag)
    assert not one.allow_pickle
    one.send_variables({"sent": {"a": [1, 2]}})
    assert one("print(sent)").logs == "{'a': [1, 2]}\n"
    one.cleanup()


def set_up(tag: str) -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write('numpy = "^2"\nsix = "*"\n')
        file.flush()
        for _ in range(2):
            start = time.monotonic()
            assert SandboxExecutor.setup(tag, file.name, base=os.environ.get("IPYBOX_TEST_BASE")) == tag
    assert time.monotonic() - start < 10, "it was fresh"
    try:
        SandboxExecutor.setup(tag, "nonexistent.txt")
    except SandboxError as error:
        assert "nonexistent.txt" in str(error)
    else:
        raise AssertionError("no error")


if __name__ == "__main__":
    checks: list[Callable[[str], None]] = [
        set_up,
        three_at_once,
        each_has_its_token,
        packages_that_are_there_are_not_installed,
        values_are_no_pickles,
        no_container_is_left_after_failures,
        none_is_left_at_the_end_of_a_process,
    ]
    for check in checks:
        check(sys.argv[1])
        print("ok", check.__name__, flush=True)
