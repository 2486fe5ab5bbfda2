import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ipybox import AsyncSandbox, Sandbox, SandboxError
from ipybox.program import Call, Ended, answered, find, options, run, run_async, succeeded

Program = Callable[[str], None]

WAITS = """
trap 'echo interrupted >>"$0.log"; kill $!; exit 130' INT
echo started >>"$0.log"
sleep 60 &
wait $!
"""


def arguments(call: Call[Any]) -> list[str]:
    return list(call.arguments)


def log(folder: Path) -> list[str]:
    return (folder / "pretended.log").read_text().split()


def test_values_are_no_options_and_switches_have_none() -> None:
    spelled = options(user="--json", mount=Path("-dir"), memory=None, read_only=True, json=False, cpus=0.5)
    assert spelled == ["--user=--json", "--mount=-dir", "--read-only", "--cpus=0.5"]


def test_each_of_several_values_is_an_option() -> None:
    assert options(port=[80, 443], volume=()) == ["--port=80", "--port=443"]
    assert options(env={"A": "x=y", "EMPTY": "", "OURS": None}) == ["--env=A=x=y", "--env=EMPTY=", "--env=OURS"]


def test_up_has_the_settings_and_the_command_last() -> None:
    box = Sandbox("p", "-u", image="i", dependencies=["a", "b"], token=False, further=["--as=0"], command=["-c", "x"])
    assert arguments(box._up()) == [
        *["sandbox", "up", "--project=p", "--user=-u", "--tag=i", "--dependencies=a", "--dependencies=b"],
        *["--no-token", "--as=0", "--json", "--", "-c", "x"],
    ]


def test_exec_takes_words_or_one_sequence_and_no_shell_reads_them() -> None:
    box = AsyncSandbox("p", "u")
    expected = ["sandbox", "exec", "--project=p", "--user=u", "--json", "--", "echo", "--json", "$HOME; ls"]
    for command in [("echo", "--json", "$HOME; ls"), (["echo", "--json", "$HOME; ls"],)]:
        assert arguments(box._exec(command, None, None, None, None)) == expected
    full = box._exec(("true",), 0.5, "-src", {"A": "b"}, "ü")
    assert arguments(full)[4:-3] == ["--workdir=-src", "--timeout=0.5", "--env=A=b", "--interactive"]
    assert full.stdin == "ü".encode()


def test_the_program_gets_every_argument_as_it_is(pretend: Program) -> None:
    pretend(f"exec {sys.executable} -c 'import json, sys; print(json.dumps(dict(words=sys.argv[1:])))' \"$@\"")
    words = ["", "a b", "'\"$x`\\", "--", "-é", "\udcff", "line\nline"]
    expected = {"words": ["--message-format=json", *words]}
    assert run(Call(words, answered)) == expected
    assert asyncio.run(run_async(Call(words, answered))) == expected


def test_stdin_is_passed_on_or_empty(pretend: Program) -> None:
    pretend("wc -c")
    for text, expected in [(b"x" * 1_000_000, b"1000000"), (b"", b"0"), (None, b"0")]:
        call = Call([], lambda ended: ended.stdout.strip(), text)
        assert run(call) == expected
        assert asyncio.run(run_async(call)) == expected


def test_an_error_tells_what_why_and_the_remedy(pretend: Program) -> None:
    error = {"level": "error", "message": "what", "reason": "why", "help": "do", "place": None}
    place = {"file": "list.txt", "line": 2, "column": 5}
    lines = [{"level": "note", "message": "not this"}, error, {**error, "place": place, "help": None}]
    pretend("".join(f"echo '{json.dumps(line)}' >&2\n" for line in lines) + "exit 75")
    with pytest.raises(SandboxError) as caught:
        Sandbox("p", "u", image="i").up()
    assert str(caught.value) == "what: why\nhelp: do\nlist.txt:2:5: what: why"
    assert caught.value.diagnostics == lines[1:]
    assert caught.value.exit_code == 75


@pytest.mark.parametrize(
    ("stderr", "told"), [(b"no JSON\n", "no JSON"), (b"[1]\xff", "[1]\ufffd"), (b"", "the program ended with 2")]
)
def test_whatever_else_is_said_is_told_as_it_is(stderr: bytes, told: str) -> None:
    with pytest.raises(SandboxError, match=f"^{told.replace('[', chr(92) + '[')}$"):
        succeeded(Ended([], 2, b"", stderr))


def test_an_answer_counts_whatever_the_exit_code() -> None:
    assert answered(Ended([], 125, b'{"exit_code": 125}', b"")) == {"exit_code": 125}
    with pytest.raises(SandboxError):
        answered(Ended([], 0, b'{"cut', b""))


def test_cancellation_interrupts_once_and_waits(pretend: Program, tmp_path: Path) -> None:
    pretend(WAITS)

    async def cancel(delay: float) -> None:
        await asyncio.wait_for(run_async(Call([], succeeded)), delay)

    start = time.monotonic()
    with pytest.raises(asyncio.TimeoutError):
        asyncio.run(cancel(1))
    assert log(tmp_path) == ["started", "interrupted"]
    assert time.monotonic() - start < 10


def test_cancellation_at_once_leaves_no_process(pretend: Program, tmp_path: Path) -> None:
    pretend("echo $$ >>$0.log; exec sleep 60")

    async def cancel() -> None:
        task = asyncio.ensure_future(run_async(Call([], succeeded)))
        await asyncio.sleep(0)
        task.cancel()
        await task

    start = time.monotonic()
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(cancel())
    assert time.monotonic() - start < 10


def test_an_interrupt_of_the_terminal_arrives_once(pretend: Program, tmp_path: Path) -> None:
    pretend(WAITS)
    code = "from ipybox import Sandbox; Sandbox('p', 'u').stop()"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1] / "src")}
    caller = subprocess.Popen(
        [sys.executable, "-c", code], env=environment, start_new_session=True, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 10
    while not (tmp_path / "pretended.log").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(caller.pid, signal.SIGINT)
    assert caller.wait(10) == -signal.SIGINT
    assert log(tmp_path) == ["started", "interrupted"]


def test_the_program_is_found_by_variable_then_here_then_on_path(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ["here", "path"]:
        (tmp_path / name).mkdir()
        (tmp_path / name / "ipybox").write_text("")
        (tmp_path / name / "ipybox").chmod(0o755)
    monkeypatch.setattr("sysconfig.get_path", lambda _: str(tmp_path / "here"))
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    monkeypatch.setenv("IPYBOX_BINARY", "/named")
    assert find() == "/named"
    monkeypatch.delenv("IPYBOX_BINARY")
    assert find() == str(tmp_path / "here" / "ipybox")
    (tmp_path / "here" / "ipybox").unlink()
    assert find() == str(tmp_path / "path" / "ipybox")
    (tmp_path / "path" / "ipybox").unlink()
    with pytest.raises(SandboxError, match="IPYBOX_BINARY"):
        find()


@pytest.mark.parametrize("binary", ["/nonexistent/ipybox", None])
def test_the_module_tells_where_there_is_no_program(binary: str | None) -> None:
    environment = {"PATH": "/nonexistent", "PYTHONPATH": str(Path(__file__).parents[1] / "src")}
    environment |= {"IPYBOX_BINARY": binary} if binary else {}
    ended = subprocess.run([sys.executable, "-m", "ipybox", "build"], env=environment, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("ipybox: ") and len(ended.stderr.splitlines()) == 1
