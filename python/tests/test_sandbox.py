import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ipybox import AsyncSandbox, Sandbox, SandboxError

pytestmark = pytest.mark.engine

RUNNING = r"for line in /proc/[0-9]*/cmdline; do tr '\0' ' ' <$line; echo; done 2>/dev/null | grep -c '^sleep 987'"
"""Prints how many processes sleep as the tests let them."""

SLEEP = ["sh", "-c", "(setsid sleep 987 &) ; sleep 987"]


def test_what_came_of_a_command_is_told(box: Sandbox) -> None:
    result = box.exec("sh", "-c", "echo out; echo err >&2; exit 3")
    assert (result.exit_code, result.stdout, result.stderr) == (3, "out\n", "err\n")
    assert (result.timed_out, result.truncated) == (False, False)
    assert 0 < result.seconds < 10


def test_words_reach_the_command_as_they_are(box: Sandbox) -> None:
    words = ["", "--json", "a b", "$HOME; ls", "'\"`\\", "-é", "line\nline"]
    code = "import sys; sys.stdout.write(chr(0).join(sys.argv[1:]))"
    assert box.exec("python", "-c", code, *words).stdout == "\0".join(words)
    assert box.exec(["python", "-c", code, *words]).stdout == "\0".join(words)


def test_folder_environment_and_stdin(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    assert box.exec("pwd", cwd="/tmp").stdout == "/tmp\n"
    monkeypatch.setenv("OURS", "ours")
    result = box.exec("sh", "-c", 'echo "$GIVEN $OURS"', env={"GIVEN": "a=b $c", "OURS": None})
    assert result.stdout == "a=b $c ours\n"
    assert box.exec("cat", stdin="ü\n").stdout == "ü\n"
    assert box.exec("wc", "-c", stdin=b"\0\xff" * 500_000).stdout.strip() == "1000000"
    assert box.exec("cat").stdout == ""


@pytest.mark.parametrize(("command", "code"), [(["/nonexistent"], 127), (["/etc/passwd"], 126)])
def test_what_cannot_run_has_the_exit_code_of_shells(box: Sandbox, command: list[str], code: int) -> None:
    assert box.exec(command).exit_code == code


@pytest.mark.parametrize("code", [124, 125])
def test_exit_codes_of_commands_are_theirs(box: Sandbox, code: int) -> None:
    result = box.exec("sh", "-c", f"exit {code}")
    assert (result.exit_code, result.timed_out) == (code, False)


def test_output_that_is_no_utf_8_is_replaced(box: Sandbox) -> None:
    result = box.exec("printf", r"a\377\0b\303")
    assert result.stdout == "a\ufffd\0b\ufffd"


def test_long_output_is_cut_and_told_so(box: Sandbox) -> None:
    result = box.exec("sh", "-c", "yes | head -c 30000000")
    assert result.truncated
    assert 1_000_000 < len(result.stdout) < 30_000_000
    assert not box.exec("sh", "-c", "yes | head -c 3000000").truncated


def test_a_timeout_leaves_nothing_inside(box: Sandbox) -> None:
    result = box.exec("sh", "-c", "echo before; (setsid sleep 987 &) ; sleep 987", timeout=1.5)
    assert (result.exit_code, result.timed_out, result.stdout) == (124, True, "before\n")
    assert result.seconds < 6
    assert box.exec("sh", "-c", RUNNING).stdout == "0\n"


def test_cancellation_leaves_nothing_inside(box: Sandbox) -> None:
    async def cancel() -> None:
        other = AsyncSandbox(box.project, box.user)
        task = asyncio.ensure_future(other.exec(SLEEP))
        while (await other.exec("sh", "-c", RUNNING)).stdout != "2\n":
            await asyncio.sleep(0.1)
        task.cancel()
        start = time.monotonic()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert time.monotonic() - start < 6
        assert (await other.exec("sh", "-c", RUNNING)).stdout == "0\n"

    asyncio.run(asyncio.wait_for(cancel(), 60))


def test_commands_run_side_by_side(box: Sandbox) -> None:
    async def all_at_once() -> list[str]:
        other = AsyncSandbox(box.project, box.user)
        calls = [other.exec("sh", "-c", f"sleep 2; echo {number}") for number in range(8)]
        return [result.stdout for result in await asyncio.gather(*calls)]

    start = time.monotonic()
    assert asyncio.run(all_at_once()) == [f"{number}\n" for number in range(8)]
    assert time.monotonic() - start < 10


def test_up_tells_where_the_server_is(box: Sandbox) -> None:
    up = box.up()
    assert up.outcome == "running"
    assert up.image_id.startswith("sha256:")
    assert set(up.ports) == {8888, 8900}
    host, port = up.ports[8888]
    assert (host, up.address) == ("127.0.0.1", f"http://127.0.0.1:{port}")
    assert up.token and up.token not in repr(up)


def test_users_whose_names_look_alike_do_not_share(image: str, project: str) -> None:
    users = ["a@b.c", "a_b_c", "-a", "Ä ö", "a" * 300]
    boxes = [Sandbox(project, user, image=image, command=["sleep", "infinity"]) for user in users]
    assert len({box.up().id for box in boxes}) == len(users)
    for number, box in enumerate(boxes):
        box.exec("sh", "-c", f"echo {number} >>/tmp/number")
    assert [box.exec("cat", "/tmp/number").stdout for box in boxes] == [f"{n}\n" for n in range(len(users))]
    for box in boxes:
        box.down()


def test_stopped_it_keeps_its_files_and_removed_its_volumes(image: str, project: str) -> None:
    box = Sandbox(project, "volumes", image=image, volumes=["/data"], command=["sleep", "infinity"])
    with box:
        box.exec("sh", "-c", "touch /data/kept /tmp/gone")
        box.stop()
        with pytest.raises(SandboxError):
            box.exec("true")
        assert box.up().outcome == "started"
        assert box.exec("ls", "/data", "/tmp/gone").exit_code == 0
    assert box.up().outcome == "created"
    assert box.exec("ls", "/data").stdout == "kept\n"
    assert box.exec("ls", "/tmp/gone").exit_code != 0
    box.down(volumes=True)
    assert box.up().outcome == "created"
    assert box.exec("ls", "/data").stdout == ""
    box.down(volumes=True)
    box.down()


def test_other_settings_replace_it_and_tell_why(image: str, project: str) -> None:
    Sandbox(project, "settings", image=image, memory="500MB", command=["sleep", "infinity"]).up()
    with Sandbox(project, "settings", image=image, memory="600MB", command=["sleep", "infinity"]) as box:
        assert box.up().outcome == "running"
        box.down()
        Sandbox(project, "settings", image=image, memory="500MB", command=["sleep", "infinity"]).up()
        up = box.up()
        assert up.outcome == "replaced"
        assert len(up.why) == 1 and "memory" in up.why[0]


def test_a_folder_is_seen_inside(image: str, project: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("from the host")
    tmp_path.chmod(0o755)
    with Sandbox(project, "mount", image=image, mount=tmp_path, command=["sleep", "infinity"]) as box:
        assert box.exec("cat", "file").stdout == "from the host"


def test_refusals_are_errors(image: str, project: str) -> None:
    with pytest.raises(SandboxError, match="nonexistent") as caught:
        Sandbox(project, "none", image="ipybox-pytest/nonexistent").up()
    assert caught.value.diagnostics
    with pytest.raises(SandboxError) as caught:
        Sandbox(project, "never up").exec("true")
    assert caught.value.diagnostics and caught.value.exit_code == 125
    with pytest.raises(SandboxError, match="--memory"):
        Sandbox(project, "none", image=image, memory="-1").up()


def test_a_context_that_is_not_entered_leaves_no_container(image: str, project: str) -> None:
    async def cancel() -> None:
        box = AsyncSandbox(project, "cancelled", image=image)

        async def enter() -> None:
            async with box:
                raise AssertionError("that was soon")

        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(enter(), 0.5)
        with pytest.raises(SandboxError):
            await box.exec("true")
        assert (await box.up()).outcome == "created"

    asyncio.run(cancel())


def test_the_module_is_the_program() -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1] / "src")}
    for arguments, expected in [(["--version"], "ipybox "), (["build", "--help"], "Build an image")]:
        command = [sys.executable, "-m", "ipybox", *arguments]
        ended = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert ended.returncode == 0 and ended.stdout.startswith(expected)
    ended = subprocess.run([sys.executable, "-m", "ipybox", "bogus"], env=environment, capture_output=True, text=True)
    assert ended.returncode == 2
