"""The executor server of a container: runs Python and shell commands in workspaces, over HTTP.

    python -I -m ipybox.executor.server

Settings are environment variables: EXECUTOR_NAME, EXECUTOR_PORT, EXECUTOR_TOKEN, EXECUTOR_IDLE_SECONDS,
WORKSPACES_DIR. A call's limit counts from when its kernel is there and free; the call runs on when its
client has gone.
"""

import asyncio
import contextlib
import ctypes
import hmac
import json
import logging
import os
import stat
import sys
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any

import uvicorn
from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from jupyter_client.kernelspec import NoSuchKernel
from pydantic import BaseModel, Field, StringConstraints
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ipybox.executor.bash import Shells
from ipybox.executor.kernels import SPECS, NotStarted, Workspaces
from ipybox.executor.output import Result

BODY_LIMIT = 12 * 1024 * 1024
CODE_LIMIT = 10 * 1024 * 1024
ENDPOINTS = ["GET /health", "POST /execute/python", "POST /execute/bash", "POST /kernel/shutdown"]
PROBE = """
import importlib.metadata, json, platform
names = {distribution.metadata["Name"] for distribution in importlib.metadata.distributions()}
print(json.dumps({"python_version": f"Python {platform.python_version()}", "package_count": len(names)}))
"""

Identifier = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$")]
Name = Annotated[str, StringConstraints(pattern=r"^[^=\x00]+$")]
Text = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$")]


class Call(BaseModel):
    workspace_id: Identifier
    timeout: Annotated[int, Field(strict=True, ge=1, le=86400)] = 300
    env: dict[Name, Text] | None = None


class Python(Call):
    code: Annotated[str, Field(max_length=CODE_LIMIT)]


class Bash(Call):
    command: Annotated[Text, Field(max_length=CODE_LIMIT)]


class Interpreter:
    """What there is to know about the interpreter of kernels; asked for in the background."""

    def __init__(self) -> None:
        self.known: dict[str, Any] = {}
        self.asked = 0.0
        self.task: asyncio.Task[None] | None = None

    async def describe(self) -> dict[str, Any]:
        if not self.task or (self.task.done() and time.monotonic() - self.asked > 60):
            self.asked = time.monotonic()
            self.task = asyncio.create_task(self.ask())
        if not self.known:
            await asyncio.wait({self.task}, timeout=5)
        return self.known or {"python_version": "unknown", "package_count": 0}

    async def ask(self) -> None:
        with contextlib.suppress(OSError, ValueError, NoSuchKernel):
            command = [SPECS.get_kernel_spec("python3").argv[0], "-I", "-c", PROBE]
            process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
            self.known = json.loads((await process.communicate())[0])


class Gate:
    """Lets in who knows the token, and bodies that are not too large."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self.app, self.token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        size = 0

        async def limited_receive() -> Message:
            nonlocal size
            while True:
                message = await receive()
                size += len(message.get("body", b""))
                if size <= BODY_LIMIT or message["type"] != "http.request":
                    return message
                # Read to its end and thrown away: only then do clients look at the answer.
                if not message.get("more_body"):
                    raise HTTPException(413, f"Body is larger than {BODY_LIMIT} bytes")

        if scope["type"] == "http" and not self.admits(scope):
            await JSONResponse({"detail": "Unauthorized"}, 401)(scope, receive, send)
        else:
            await self.app(scope, limited_receive if scope["type"] == "http" else receive, send)

    def admits(self, scope: Scope) -> bool:
        if not self.token or (scope["method"] == "GET" and scope["path"] in ("/", "/health")):
            return True
        given = dict(scope["headers"]).get(b"authorization", b"")
        return hmac.compare_digest(given, b"Bearer " + os.fsencode(self.token))


def create_app(name: str, root: str, idle: int, token: str) -> FastAPI:
    workspaces, shells, interpreter = Workspaces(idle), Shells(), Interpreter()

    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(work) for work in (workspaces.expire(), interpreter.describe())]
        yield
        for task in tasks:
            task.cancel()
        shells.close()
        await workspaces.close()

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    app.add_middleware(Gate, token=token)

    @app.exception_handler(RequestValidationError)
    async def invalid(_request: Request, error: RequestValidationError) -> Response:
        # Without the input: it may be large, secret, or impossible to send.
        kept = [{key: item[key] for key in ("type", "loc", "msg")} for item in error.errors()]
        return JSONResponse({"detail": kept}, 422)

    @app.exception_handler(NotStarted)
    async def not_started(_request: Request, error: NotStarted) -> Response:
        return JSONResponse({"detail": str(error)}, 503)

    @app.get("/")
    async def index() -> dict[str, Any]:
        return {"service": "executor", "executor": name, "endpoints": ENDPOINTS}

    @app.get("/health")
    async def health() -> dict[str, Any]:
        return {"status": "ok", "executor": name, **await interpreter.describe(), "workspaces_dir": root}

    @app.post("/execute/python")
    async def python(call: Python) -> Result:
        folder = workspace(root, call.workspace_id)
        return await workspaces.run(call.workspace_id, folder, call.code, call.timeout, call.env or {})

    @app.post("/execute/bash")
    async def bash(call: Bash) -> Result:
        folder = workspace(root, call.workspace_id)
        return await shells.run(call.command, folder, call.timeout, call.env or {})

    @app.post("/kernel/shutdown")
    async def shutdown(workspace_id: Identifier) -> dict[str, str]:
        found = await workspaces.shut_down(workspace_id)
        return {"status": "shutdown" if found else "not_found", "workspace_id": workspace_id}

    return app


def workspace(root: str, identifier: str) -> str:
    """The folder of a workspace, made when there is none."""
    folder = os.path.join(root, identifier)
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder)
        if stat.S_ISDIR(os.lstat(folder).st_mode):
            return folder
    except OSError as error:
        raise HTTPException(500, f"No folder for workspace {identifier}: {error.strerror}") from None
    raise HTTPException(409, f"Workspace {identifier} is not a folder")


def number(variable: str, default: int, least: int, most: int) -> int:
    text = os.environ.get(variable) or str(default)
    if text.isascii() and text.isdigit() and least <= int(text) <= most:
        return int(text)
    sys.exit(f"{variable} is {text!r}, not a number from {least} to {most}")


def main() -> None:
    name = os.environ.get("EXECUTOR_NAME") or "default"
    port = number("EXECUTOR_PORT", 62680, 1, 65535)
    idle = number("EXECUTOR_IDLE_SECONDS", 1800, 0, 10**9)
    root = os.path.abspath(os.environ.get("WORKSPACES_DIR") or "/app/workspaces")
    try:
        os.makedirs(root, exist_ok=True)
    except OSError as error:
        sys.exit(f"WORKSPACES_DIR {root} cannot be made: {error.strerror}")
    if token := os.environ.pop("EXECUTOR_TOKEN", ""):
        # Others of the same user can read what a process was started with, unless it is not dumpable
        # (PR_SET_DUMPABLE).
        ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)
    # At the end requests are cut off, on purpose.
    logging.getLogger("uvicorn.error").addFilter(lambda record: not str(record.msg).startswith("Cancel "))
    uvicorn.run(
        create_app(name, root, idle, token),
        host="0.0.0.0",
        port=port,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=0,
    )


if __name__ == "__main__":
    main()
