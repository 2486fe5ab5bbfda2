"""Source texts of modules. Runs inside an image, as its user."""

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest

LIB = Path(os.environ.get("IPYBOX_LIB", "/opt/ipybox/lib"))
PYTHON = os.environ.get("IPYBOX_VENV_PYTHON", "/opt/venv/bin/python")


def look_up(cwd: Path, *names: str, **env: str) -> dict[str, Any]:
    with tempfile.TemporaryFile() as file:
        command = [PYTHON, str(LIB / "ipybox/modinfo.py"), str(file.fileno()), *names]
        environ = {**os.environ, **env}
        subprocess.run(command, cwd=cwd, pass_fds=[file.fileno()], env=environ, timeout=20, check=True)
        file.seek(0)
        return json.load(file)


def run(code: str, cwd: Path) -> str:
    return subprocess.run([PYTHON, "-c", code], cwd=cwd, check=True, text=True, stdout=subprocess.PIPE).stdout


def test_modules_of_the_working_directory_and_of_pythonpath(tmp_path: Path) -> None:
    (tmp_path / "here.py").write_text("x = 1\n")
    (tmp_path / "shared/package").mkdir(parents=True)
    (tmp_path / "shared/package/__init__.py").write_text("")
    (tmp_path / "shared/package/part.py").write_text("y = 'ä'\n")
    names = ["here", "package", "package.part", "sys"]
    answer = look_up(tmp_path, *names, PYTHONPATH=str(tmp_path / "shared"))
    assert answer == {
        "here": {"source": "x = 1\n"},
        "package": {"source": ""},
        "package.part": {"source": "y = 'ä'\n"},
        "sys": {"source": ""},
    }


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("def", "SyntaxError: invalid syntax"),
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
    ],
)
def test_an_import_that_fails_leaves_the_others_alone(tmp_path: Path, code: str, error: str) -> None:
    (tmp_path / "bad.py").write_text(code)
    answer = look_up(tmp_path, "bad", "json")
    assert error in answer["bad"]["error"]
    assert "def loads" in answer["json"]["source"]


def test_what_an_import_prints_or_starts_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / "loud.py").write_text(
        "import atexit, sys, threading, time\n"
        "print('{}')\n"
        "sys.stdout.close()\n"
        "atexit.register(time.sleep, 60)\n"
        "threading.Thread(target=time.sleep, args=[60]).start()\n"
    )
    assert "atexit" in look_up(tmp_path, "loud")["loud"]["source"]


def test_own_modules_do_not_hide_others(tmp_path: Path) -> None:
    answer = look_up(tmp_path, "health", "resource", "ipybox.modinfo")
    assert "error" in answer["health"]
    assert answer["resource"] == {"source": ""}  # the one of the standard library
    assert answer["ipybox.modinfo"]["source"] == (LIB / "ipybox/modinfo.py").read_text()


def test_no_folder_of_the_working_directory_takes_our_place(tmp_path: Path) -> None:
    (tmp_path / "ipybox").mkdir()
    (tmp_path / "ipybox/__init__.py").write_text("raise SystemExit")
    answer = look_up(tmp_path, "ipybox.modinfo")
    assert answer["ipybox.modinfo"]["source"] == (LIB / "ipybox/modinfo.py").read_text()


def test_sources_as_old_clients_read_them(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\n")
    (tmp_path / "b.py").write_text("y = 2")
    code = "from ipybox.modinfo import *; print_module_sources(['a', 'b'])"
    assert run(code, tmp_path) == (
        "```python\n# Module: a\n\nx = 1\n\n```\n\n```python\n# Module: b\n\ny = 2\n\n```\n"
    )


def test_module_info(tmp_path: Path) -> None:
    code = "from ipybox.modinfo import get_module_info; print(get_module_info('this').name)"
    assert run(code, tmp_path).splitlines()[-1] == "this"
