"""What the first process of a container promises. Runs inside an image, as its user."""

import os
import signal
import subprocess
import time
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

SUPERVISOR = "/opt/ipybox/lib/ipybox/supervisor.py"


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """An environment, in which servers can be put."""
    venv.create(tmp_path / "environment")
    return tmp_path / "environment"


def supervise(environment: Path, *commands: str, **servers: str) -> subprocess.Popen[str]:
    [packages] = environment.glob("lib/python*/site-packages")
    for name, code in servers.items():
        (packages / f"{name}.py").write_text(code)
    arguments = [str(environment / "bin/python"), "-I", SUPERVISOR, *commands]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, cwd=environment)


WAITS = "import time, sys; print('up', *sys.argv[1:], flush=True); time.sleep(60)"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_every_server(environment: Path, number: signal.Signals) -> None:
    process = supervise(environment, "a", "1", "--", "b", "2", a=WAITS, b=WAITS)
    lines = {process.stdout.readline(), process.stdout.readline()}
    assert lines == {"up 1\n", "up 2\n"}
    began = time.monotonic()
    process.send_signal(number)
    assert process.wait(5) == 128 + number
    assert time.monotonic() - began < 1


def test_a_server_that_ignores_the_signal_is_killed(environment: Path) -> None:
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + WAITS
    process = supervise(environment, "deaf", deaf=deaf)
    process.stdout.readline()
    began = time.monotonic()
    process.terminate()
    assert process.wait(5) == 128 + signal.SIGTERM
    assert time.monotonic() - began < 1.9


def test_the_end_of_one_server_ends_the_other(environment: Path) -> None:
    process = supervise(environment, "a", "--", "b", a=WAITS, b="raise SystemExit(7)")
    assert process.wait(5) == 7


def test_a_server_killed_by_a_signal_counts_as_failed(environment: Path) -> None:
    process = supervise(environment, "a", a="import os; os.kill(os.getpid(), 9)")
    assert process.wait(5) == 128 + 9


def test_servers_inherit_the_environment_but_not_its_modules(
    environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (environment / "json.py").write_text("raise SystemExit('replaced')")
    monkeypatch.setenv("PYTHONPATH", str(environment))
    process = supervise(environment, "a", a="import json, os; print(os.environ['PYTHONPATH'])")
    assert process.stdout.read() == f"{environment}\n"
    assert process.wait(5) == 0


NAMES = "import os; print(*(os.environ.get(n) for n in ['IPYTHONDIR', 'JUPYTER_RUNTIME_DIR', 'MPLCONFIGDIR']))"


def test_a_home_that_can_be_written_is_used(
    environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert supervise(environment, "a", a=NAMES).stdout.read() == "None None None\n"


def test_what_a_foreign_home_would_hold_is_held_elsewhere(
    environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o555)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MPLCONFIGDIR", "/given")
    ipython, jupyter, matplotlib = supervise(environment, "a", a=NAMES).stdout.read().split()
    tmp_path.chmod(0o755)
    assert ipython.startswith("/tmp/ipybox-") and jupyter.startswith("/tmp/ipybox-")
    assert matplotlib == "/given"


def test_orphans_are_reaped() -> None:
    """The first process of this container is a supervisor; nobody else can adopt an orphan."""
    subprocess.run(["sh", "-c", "sleep 0.2 &"], check=True)
    time.sleep(1)
    assert not list(zombies())


def zombies() -> Iterator[str]:
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and os.path.exists(process / "stat"):
            state, parent = (process / "stat").read_text().rsplit(")", 1)[1].split()[:2]
            if (state, parent) == ("Z", "1"):
                yield process.name
