"""Real clients, each in an environment of its own."""

import asyncio
import json
import os
import subprocess
from pathlib import Path

import pytest

from ipybox import ExecutionContainer

pytestmark = [pytest.mark.engine, pytest.mark.clients]

HERE = Path(__file__).parent
CELLS = HERE.parents[1] / "tests" / "clients" / "kernel.py"


def python(client: str) -> str:
    return str(Path(os.environ["IPYBOX_TEST_CLIENTS"]) / client / "bin" / "python")


def test_the_client_of_ipybox_0_6_runs_cells(image: str, tmp_path: Path) -> None:
    folder = tmp_path / "made" / "here"
    cells = [
        "import os; print(os.environ['GIVEN'])",
        "print(os.getcwd())",
        "print(os.listdir('/app/data'))",
        "1 / 0",
    ]

    async def outcomes() -> object:
        async with ExecutionContainer(image, binds={str(folder): "data"}, env={"GIVEN": "given"}) as container:
            tmp_path.chmod(0o755)
            (folder / "file").touch()
            process = await asyncio.create_subprocess_exec(
                *[python("ipybox-0.6"), str(CELLS), str(container.executor_port)], stdin=-1, stdout=-1
            )
            stdout, _ = await process.communicate(json.dumps(cells).encode())
            assert container.resource_port != container.executor_port
        with pytest.raises(RuntimeError):
            _ = container.executor_port
        return json.loads(stdout)

    expected = ["given", "/app", "['file']", {"error": "ZeroDivisionError: division by zero"}]
    assert asyncio.run(outcomes()) == expected


def test_three_agents_of_smolagents_at_once(tag: str) -> None:
    environment = os.environ | {"PYTHONPATH": str(HERE.parent / "src")}
    subprocess.run([python("smolagents"), HERE / "agents.py", tag], env=environment, check=True, timeout=600)
