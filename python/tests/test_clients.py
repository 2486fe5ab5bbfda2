"""Real clients, each in an environment of its own."""

import asyncio
import json
import os
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from ipybox import ExecutionContainer, SandboxError

pytestmark = [pytest.mark.engine, pytest.mark.clients]

HERE = Path(__file__).parent
CELLS = HERE.parents[1] / "tests" / "clients" / "kernel.py"

CONNECT = """
import socket
try:
    socket.create_connection(("198.51.100.7", 80), timeout=5).close()
except OSError as error:
    print(error.strerror)
"""


def python(client: str) -> str:
    return str(Path(os.environ["IPYBOX_TEST_CLIENTS"]) / client / "bin" / "python")


async def outcomes(container: ExecutionContainer, *cells: str) -> Any:
    """What the client of ipybox 0.6 makes of the cells."""
    command = [python("ipybox-0.6"), str(CELLS), str(container.executor_port)]
    process = await asyncio.create_subprocess_exec(*command, stdin=-1, stdout=-1)
    stdout, _ = await process.communicate(json.dumps(cells).encode())
    return json.loads(stdout)


def test_the_client_of_ipybox_0_6_runs_cells(image: str, tmp_path: Path) -> None:
    folder = tmp_path / "made" / "here"
    cells = ["import os; print(os.environ['GIVEN'])", "print(os.listdir('/app/data'))", "1 / 0"]

    async def check() -> None:
        container = ExecutionContainer(image, binds={str(folder): "data"}, env={"GIVEN": "given"})
        async with container:
            tmp_path.chmod(0o755)
            (folder / "file").touch()
            found = await outcomes(container, *cells)
            assert found == ["given", "['file']", {"error": "ZeroDivisionError: division by zero"}]
            assert urllib.request.urlopen(f"http://127.0.0.1:{container.resource_port}/status").status == 200
        with pytest.raises(RuntimeError):
            _ = container.executor_port

    asyncio.run(check())


def test_binds_are_not_the_working_directory(image: str, tmp_path: Path) -> None:
    binds = {str(tmp_path / "one"): "data", str(tmp_path / "other"): "deep/other"}
    cells = ["import os; print(os.getcwd())", "print(os.path.isdir('data'), os.path.isdir('deep/other'))"]

    async def check() -> None:
        async with ExecutionContainer(image, binds=binds) as container:
            assert await outcomes(container, *cells) == ["/app", "True True"]

    asyncio.run(check())


def test_allowed_domains_leave_the_client_its_ports(image: str) -> None:
    async def check() -> None:
        async with ExecutionContainer(image, allow_domains=["198.51.100.1"]) as container:
            assert await outcomes(container, CONNECT) == ["Network is unreachable"]

    asyncio.run(check())


def test_a_container_that_does_not_start_is_an_error() -> None:
    async def check() -> None:
        with pytest.raises(SandboxError, match="nonexistent"):
            async with ExecutionContainer("ipybox-pytest/nonexistent"):
                pass

    asyncio.run(check())


def test_three_agents_of_smolagents_at_once(tag: str) -> None:
    environment = os.environ | {"PYTHONPATH": str(HERE.parent / "src")}
    subprocess.run([python("smolagents"), HERE / "agents.py", tag], env=environment, check=True, timeout=600)
