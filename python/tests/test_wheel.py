"""The wheel: the program and the package, installed together."""

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tests.conftest import new_tag

pytestmark = pytest.mark.engine

ROOT = Path(__file__).parents[1]


def run(*command: str | Path, **env: str) -> str:
    return subprocess.run(command, check=True, stdout=-1, text=True, cwd=ROOT, env=os.environ | env).stdout


def test_an_installed_wheel_builds_images_by_either_name(tmp_path: Path) -> None:
    run(sys.executable, "-m", "maturin", "build", "--quiet", "--profile", "dev", "--out", tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    venv.create(tmp_path / "env", with_pip=True)
    programs = tmp_path / "env" / "bin"
    run(programs / "pip", "install", "--quiet", "--no-index", wheel)
    os.environ.pop("IPYBOX_BINARY", None)
    assert run(programs / "ipybox", "--version") == run(programs / "python", "-m", "ipybox", "--version")
    (tmp_path / "dependencies.txt").write_text("")
    base = [f"--base={base}"] if (base := os.environ.get("IPYBOX_TEST_BASE")) else []
    with new_tag() as tag:
        arguments = ["build", "-t", tag, "-V", "kernel", "-d", str(tmp_path / "dependencies.txt"), *base]
        first = run(programs / "ipybox", *arguments)
        assert first.startswith("sha256:") and run(programs / "python", "-m", "ipybox", *arguments) == first
    run(programs / "python", "-c", "import ipybox; ipybox.Sandbox, ipybox.AsyncSandbox")
