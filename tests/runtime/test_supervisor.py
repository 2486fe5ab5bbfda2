"""What the first process of a container promises. Runs inside an image, as its user."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

SUPERVISOR = "/opt/ipybox/lib/ipybox/supervisor.py"


@pytest.fixture
def scripts(tmp_path: Path) -> Path:
    """A folder with an interpreter, beside which servers can be put."""
    (tmp_path / "python").symlink_to(sys.executable)
    return tmp_path


def supervise(scripts: Path, *commands: str, **servers: str) -> subprocess.Popen[str]:
    for name, code in servers.items():
        (scripts / name).write_text(code)
    arguments = [str(scripts / "python"), "-I", SUPERVISOR, *commands]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, cwd=scripts)


WAITS = "import time, sys; print('up', *sys.argv[1:], flush=True); time.sleep(60)"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_every_server(scripts: Path, number: signal.Signals) -> None:
    process = supervise(scripts, "a", "1", "--", "b", "2", a=WAITS, b=WAITS)
    lines = {process.stdout.readline(), process.stdout.readline()}
    assert lines == {"up 1\n", "up 2\n"}
    began = time.monotonic()
    process.send_signal(number)
    assert process.wait(5) == 128 + number
    assert time.monotonic() - began < 1


def test_a_server_that_ignores_the_signal_is_killed(scripts: Path) -> None:
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + WAITS
    process = supervise(scripts, "deaf", deaf=deaf)
    process.stdout.readline()
    began = time.monotonic()
    process.terminate()
    assert process.wait(5) == 128 + signal.SIGTERM
    assert time.monotonic() - began < 1.9


def test_the_end_of_one_server_ends_the_other(scripts: Path) -> None:
    process = supervise(scripts, "a", "--", "b", a=WAITS, b="raise SystemExit(7)")
    assert process.wait(5) == 7


def test_a_server_killed_by_a_signal_counts_as_failed(scripts: Path) -> None:
    process = supervise(scripts, "a", a="import os; os.kill(os.getpid(), 9)")
    assert process.wait(5) == 128 + 9


def test_servers_inherit_the_environment_but_not_its_modules(
    scripts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (scripts / "json.py").write_text("raise SystemExit('replaced')")
    monkeypatch.setenv("PYTHONPATH", str(scripts))
    process = supervise(scripts, "a", a="import json, os; print(os.environ['PYTHONPATH'])")
    assert process.stdout.read() == f"{scripts}\n"
    assert process.wait(5) == 0


def test_orphans_are_reaped() -> None:
    """The first process of this container is a supervisor; nobody else can adopt an orphan."""
    subprocess.run(["sh", "-c", "sleep 0.2 &"], check=True)
    time.sleep(1)
    assert not list(zombies())


def zombies() -> Iterator[str]:
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and os.path.exists(process / "stat"):
            state = (process / "stat").read_text().rsplit(")", 1)[1].split()[0]
            if state == "Z":
                yield process.name
