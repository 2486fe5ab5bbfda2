"""Prove an image with smolagents 1.26.0's DockerExecutor: one line per check, exit status 0 if all passed.

    with_smolagents.py IMAGE_TAG

Runs where smolagents[docker]==1.26.0 is installed. Its containers carry the label `LABEL`, and those of
this run are removed at the end.

Not run, because they need public web sites: packages from an index, agents with a model.

The code that the client sends for final answers imports numpy and PIL, whatever the answer is, after an
attempt to install them from the index. Where the image lacks them, stand-ins without content take their
place, and images and arrays are not asked for.
"""

import contextlib
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path, PurePosixPath
from types import FrameType
from typing import Any

import docker
import requests
from smolagents import FinalAnswerTool, Tool
from smolagents.monitoring import AgentLogger, LogLevel
from smolagents.remote_executors import DockerExecutor
from smolagents.utils import AgentError
from websocket import WebSocketBadStatusException, create_connection

from proof import TOKEN, WHEEL, WRITE_WHEEL, below, containers, contains, equal, main, tell

LABEL = "ipybox.client-trial"
COUNT = 3

STAND_INS = """
import importlib.util, sys, types
for name in ["numpy", "PIL"]:
    if name not in sys.modules and importlib.util.find_spec(name) is None:
        sys.modules[name] = types.ModuleType(name)
"""

REFUSED = (401, 403)

ANSWERS: list[tuple[str, object]] = [
    ("'text with ü, \"quotes\" and\\nlines'", 'text with ü, "quotes" and\nlines'),
    ("''", ""),
    ("42", 42),
    ("2.5", 2.5),
    ("True", True),
    ("None", None),
    ("1 + 2j", 1 + 2j),
    ("b'\\x00\\xff'", b"\x00\xff"),
    ("[1, 'a', None, [2.5]]", [1, "a", None, [2.5]]),
    ("(1, (2, 3))", (1, (2, 3))),
    ("{1, 2}", {1, 2}),
    ("frozenset({1, 2})", frozenset({1, 2})),
    ("{'a': {'b': (1,)}}", {"a": {"b": (1,)}}),
    ("{1: 'a', (2, 3): 'b'}", {1: "a", (2, 3): "b"}),
    ("__import__('datetime').datetime(2024, 2, 29, 12, 30)", datetime(2024, 2, 29, 12, 30)),
    ("__import__('datetime').date(2024, 2, 29)", date(2024, 2, 29)),
    ("__import__('datetime').timedelta(seconds=90)", timedelta(seconds=90)),
    ("__import__('decimal').Decimal('1.10')", Decimal("1.10")),
    ("__import__('pathlib').Path('/app/x')", PurePosixPath("/app/x")),
    ("'x' * 2_000_000", "x" * 2_000_000),
]


class Shout(Tool):  # type: ignore[misc]
    name = "shout"
    description = "Upper case."
    inputs = {"text": {"type": "string", "description": "Any text."}}
    output_type = "string"

    def forward(self, text: str) -> str:
        return text.upper()


def within(found: object, expected: tuple[object, ...]) -> None:
    if found not in expected:
        raise AssertionError(f"{found!r:.200} is none of {expected!r:.200}")


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [int(each.getsockname()[1]) for each in sockets]


def executor(tag: str, port: int, **options: Any) -> DockerExecutor:
    return DockerExecutor(
        [],
        AgentLogger(level=LogLevel.OFF),
        image_name=tag,
        build_new_image=False,
        port=port,
        container_run_kwargs={"labels": {LABEL: TOKEN}, **options},
    )


def output(one: DockerExecutor, code: str) -> str:
    return str(one(code).logs).strip()


def send_final_answer(one: DockerExecutor) -> None:
    one(STAND_INS)
    one.installed_packages += ["numpy", "PIL"]
    one.send_tools({"final_answer": FinalAnswerTool()})


def state_is_separate(executors: list[DockerExecutor]) -> None:
    for number, one in enumerate(executors):
        one(f"x = {number}")
    for number, one in enumerate(executors):
        equal(output(one, "print(x)"), str(number))
        equal(one("x + 1").output, str(number + 1))


def working_directory(executors: list[DockerExecutor]) -> None:
    equal(output(executors[0], "import os; open('here', 'w').close(); print(os.getcwd())"), "/app")


def token_is_demanded(executors: list[DockerExecutor]) -> None:
    one = executors[0]
    address, own = one.ws_url.split("?")
    for query in ["", "token=wrong", executors[1].ws_url.split("?")[1]]:
        for method, path in [("GET", "kernelspecs"), ("POST", "kernels")]:
            response = requests.request(method, f"{one.base_url}/api/{path}?{query}", timeout=5)
            within(response.status_code, REFUSED)
        try:
            create_connection(f"{address}?{query}", timeout=5).close()
        except WebSocketBadStatusException as error:
            within(error.status_code, REFUSED)
        else:
            raise AssertionError(f"websocket accepted with {query!r}")
    equal(requests.get(f"{one.base_url}/api/kernelspecs?{own}", timeout=5).status_code, 200)


def variables_and_tools(executors: list[DockerExecutor]) -> None:
    one = executors[0]
    one.send_variables({"sent": {"a": [1, 2]}})
    one.send_tools({"shout": Shout()})
    equal(output(one, "print(sent['a'], shout('abc'))"), "[1, 2] ABC")


def final_answers(executors: list[DockerExecutor]) -> None:
    one = executors[0]
    send_final_answer(one)
    for code, expected in ANSWERS:
        result = one(f"print('log')\nfinal_answer({code})")
        equal(result.is_final_answer, True)
        found = PurePosixPath(result.output) if isinstance(result.output, Path) else result.output
        equal(found, expected)
        equal(result.logs.strip(), "log")
    equal(one("'no answer'").is_final_answer, False)


def cell_after_error_runs(executors: list[DockerExecutor]) -> None:
    one = executors[1]
    skipped = []
    for number in range(60):
        try:
            one(f"raise ValueError('reason {number}')")
        except AgentError as error:
            contains(str(error), f"reason {number}")
        else:
            raise AssertionError("no error")
        if output(one, f"print({number})") != str(number):
            skipped.append(number)
    equal(skipped, [])


def cell_after_final_answer_runs(executors: list[DockerExecutor]) -> None:
    one = executors[1]
    send_final_answer(one)
    for number in range(20):
        equal(one(f"final_answer({number})").output, number)
        equal(output(one, f"print({number})"), str(number))


def output_is_complete(executors: list[DockerExecutor]) -> None:
    one = executors[2]
    equal([n for n in range(100) if output(one, f"print({n})") != str(n)], [])
    equal(len(output(one, "print('x' * 5_000_000)")), 5_000_000)
    equal(len(output(one, "for _ in range(50):\n    print('y' * 99_999)")), 4_999_999)


def executors_run_side_by_side(executors: list[DockerExecutor]) -> None:
    start = time.monotonic()
    with ThreadPoolExecutor(len(executors)) as pool:
        found = pool.map(lambda one: output(one, "import time; time.sleep(2); print(x)"), executors)
        equal(list(found), [str(number) for number in range(len(executors))])
    below(time.monotonic() - start, 4)


def packages_through_pip(executors: list[DockerExecutor]) -> None:
    one = executors[0]
    one(WRITE_WHEEL)
    wheel = f"/app/{WHEEL}"
    equal(one.install_packages([wheel]), [wheel])
    equal(output(one, "import client_trial; print(client_trial.ANSWER)"), "42")
    shell = output(one, "!pip show client-trial")
    contains(shell, "Version: 1.0")


def runs_without_privileges(tag: str) -> None:
    limits = {"mem_limit": "1g", "pids_limit": 200}
    rights = {"cap_drop": ["ALL"], "security_opt": ["no-new-privileges"]}
    one = executor(tag, free_ports(1)[0], **limits, **rights, environment={"GIVEN": "by the caller"})
    try:
        equal(output(one, "import os; print(os.environ['GIVEN'])"), "by the caller")
    finally:
        one.delete()


def deleted_soon(executors: list[DockerExecutor]) -> None:
    names = [one.container.id for one in executors]
    for one in executors:
        start = time.monotonic()
        one.delete()
        below(time.monotonic() - start, 3)
    equal([name for name in names if name in containers()], [])


SHARED: list[Callable[[list[DockerExecutor]], None]] = [
    state_is_separate,
    working_directory,
    executors_run_side_by_side,
    token_is_demanded,
    variables_and_tools,
    final_answers,
    cell_after_error_runs,
    cell_after_final_answer_runs,
    output_is_complete,
    packages_through_pip,
    deleted_soon,
]


@contextlib.contextmanager
def limit(seconds: int) -> Iterator[None]:
    """By a signal, since this client blocks."""

    def over(_number: int, _frame: FrameType | None) -> None:
        raise TimeoutError(f"nothing within {seconds} s")

    signal.signal(signal.SIGALRM, over)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


def check(name: str, outcome: Callable[[], None]) -> bool:
    try:
        with limit(40):
            outcome()
    except Exception as error:
        return tell(name, error)
    return tell(name)


def passes(tag: str) -> bool:
    executors: list[DockerExecutor] = []

    def start_at_once() -> None:
        with contextlib.closing(docker.from_env()) as client:
            client.images.get(tag)  # the executor would build an image of its own
        start = time.monotonic()
        with ThreadPoolExecutor(COUNT) as pool:
            executors.extend(pool.map(lambda port: executor(tag, port), free_ports(COUNT)))
        below(time.monotonic() - start, 15)

    passed = [check("three_start_at_once", start_at_once)]
    if len(executors) == COUNT:
        passed += [check(shared.__name__, partial(shared, executors)) for shared in SHARED]
        passed.append(check("runs_without_privileges", partial(runs_without_privileges, tag)))
    return all(passed)


if __name__ == "__main__":
    main(passes)
