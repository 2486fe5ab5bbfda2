"""An executor as people write one by hand: one kernel per workspace, and a shell."""

import asyncio
import os
import platform
import re
import signal
from asyncio.subprocess import DEVNULL, PIPE
from collections import defaultdict
from importlib.metadata import distributions
from pathlib import Path
from typing import Annotated

from fastapi import FastAPI
from jupyter_client.manager import start_new_async_kernel
from pydantic import BaseModel, Field

NAME = os.environ.get("EXECUTOR_NAME", "seed")
WORKSPACES = Path(os.environ.get("WORKSPACES_DIR", "/app/workspaces"))
LIMIT = 100_000
COLOUR = re.compile(r"\x1b\[[0-9;]*m")

app = FastAPI()
kernels: dict[str, tuple] = {}
locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)


class Call(BaseModel):
    workspace_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$")]
    timeout: int = 300
    env: dict[str, str] | None = None

    def folder(self) -> Path:
        folder = WORKSPACES / self.workspace_id
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def late(self) -> str:
        return f"Execution timed out after {self.timeout} seconds"


class Python(Call):
    code: str


class Bash(Call):
    command: str


def answer(stdout: str, stderr: str, exit_code: int, timed_out: bool = False) -> dict:
    return {"stdout": stdout, "stderr": stderr, "exit_code": exit_code, "timed_out": timed_out}


def head(text: str) -> str:
    return text if len(text) <= LIMIT else text[:LIMIT] + "\n... [OUTPUT TRUNCATED]"


def both_ends(text: str) -> str:
    note = f"\n... (truncated {len(text) - LIMIT} characters) ...\n"
    return text if len(text) <= LIMIT else text[: LIMIT // 2] + note + text[-LIMIT // 2 :]


@app.get("/")
async def service():
    return {"service": f"executor {NAME}", "endpoints": [route.path for route in app.routes]}


@app.get("/health")
async def health():
    python, count = f"Python {platform.python_version()}", sum(1 for _ in distributions())
    facts = {"python_version": python, "package_count": count, "workspaces_dir": str(WORKSPACES)}
    return {"status": "ok", "executor": NAME, **facts}


@app.post("/execute/python")
async def execute_python(call: Python):
    async with locks[call.workspace_id]:
        manager, client = kernels.get(call.workspace_id, (None, None))
        if manager is None or not await manager.is_alive():
            manager, client = await start_new_async_kernel(cwd=str(call.folder()))
            kernels[call.workspace_id] = manager, client
        if call.env:
            client.execute(f"import os; os.environ.update({call.env!r})", silent=True)
        streams, values = {"stdout": "", "stderr": ""}, []

        def collect(message: dict) -> None:
            content = message["content"]
            if message["msg_type"] == "stream":
                streams[content["name"]] += content["text"]
            elif "text/plain" in content.get("data", {}):
                values.append(content["data"]["text/plain"])

        try:
            reply = await client.execute_interactive(
                call.code,
                allow_stdin=False,
                stop_on_error=False,
                timeout=call.timeout,
                output_hook=collect,
            )
        except TimeoutError:
            await manager.interrupt_kernel()
            return answer("", call.late(), 1)
    if reply["content"]["status"] != "ok":
        traceback = "\n".join(reply["content"].get("traceback", ["aborted"]))
        return answer("", head(COLOUR.sub("", traceback)), 1)
    parts = [streams["stdout"], *values, streams["stderr"]]
    return answer(head("\n".join(part for part in parts if part).strip()), "", 0)


@app.post("/execute/bash")
async def execute_bash(call: Bash):
    folder = str(call.folder())
    shell = await asyncio.create_subprocess_exec(
        *("bash", "-c", call.command),
        cwd=folder,
        env={**os.environ, **(call.env or {}), "WORKSPACE": folder},
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=PIPE,
        start_new_session=True,
    )
    try:
        streams = await asyncio.wait_for(shell.communicate(), call.timeout)
    except TimeoutError:
        os.killpg(shell.pid, signal.SIGKILL)
        await shell.wait()
        return answer("", call.late(), -1, timed_out=True)
    stdout, stderr = (both_ends(stream.decode(errors="replace")) for stream in streams)
    return answer(stdout, stderr, shell.returncode)


@app.post("/kernel/shutdown")
async def shutdown(workspace_id: str):
    manager, client = kernels.pop(workspace_id, (None, None))
    if manager is not None:
        client.stop_channels()
        await manager.shutdown_kernel(now=True)
    return {"status": "shutdown" if manager else "not_found", "workspace_id": workspace_id}
