"""Prove that an image works however it is started and entered: one line per check, exit status 0 if all passed.

    matrix.py IMAGE_TAG

Needs nothing but the docker command, Docker Compose 2 as its plug-in, and pandas in the image. The first checks
start a container that sleeps, and enter it in every way that agents know; the next ones start the image's own
servers and run a cell in a kernel; the last ones wait for a container to be healthy, as `docker compose` does.
"""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from agent import Check, prove
from proof import TOKEN, below, equal

LABEL = "ipybox.client-trial"

STARTS = {
    "plain": [],
    "no_network": ["--network", "none"],
    "init": ["--init"],
    "root": ["--user", "0:0"],
    "foreign_user": ["--user", "12345:0"],
    "read_only": ["--read-only", "--tmpfs", "/tmp"],
    "no_capabilities": ["--cap-drop", "ALL", "--security-opt", "no-new-privileges"],
    "workspace": ["--workdir", "/workspace"],
    "entrypoint": ["--entrypoint", "tail"],
}

PYTHON = "import pandas"

ENTRIES = {
    "python": ["python", "-c", PYTHON],
    "python3": ["python3", "-c", PYTHON],
    "sh -c": ["sh", "-c", f"python -c '{PYTHON}'"],
    "sh -lc": ["sh", "-lc", f"python -c '{PYTHON}'"],
    "bash -lc": ["bash", "-lc", f"python -c '{PYTHON}'"],
    "bash -lic": ["bash", "-lic", f"python -c '{PYTHON}'"],
    "environment": ["sh", "-c", f"python -m venv --system-site-packages /tmp/e && /tmp/e/bin/python -c '{PYTHON}'"],
}

WRITES = {path: ["sh", "-c", f'touch "{path}/client_trial"'] for path in ["$HOME", "/app", "/workspace", "."]}

CELL = """
import asyncio, json, time, urllib.request
from tornado.websocket import websocket_connect

API = "127.0.0.1:8888/api"

def ask(path, data=None):
    with urllib.request.urlopen(f"http://{API}{path}", data, timeout=10) as answer:
        return answer.status, json.load(answer)

async def answers():
    for _ in range(150):
        try:
            return ask("")
        except OSError:
            await asyncio.sleep(0.1)
    raise TimeoutError("the gateway does not answer")

async def output(code):
    status, kernel = ask("/kernels", b"")
    assert status == 201, status
    socket = await websocket_connect(f"ws://{API}/kernels/{kernel['id']}/channels")
    header = {"msg_id": "trial", "msg_type": "execute_request", "session": "trial", "username": "", "version": "5.3"}
    content = {"code": code, "silent": False, "store_history": True, "user_expressions": {}, "allow_stdin": False}
    request = {"channel": "shell", "header": header, "parent_header": {}, "metadata": {}, "content": content}
    await socket.write_message(json.dumps(request))
    while message := json.loads(await socket.read_message()):
        if message["parent_header"].get("msg_id") == "trial" and message["msg_type"] in ("stream", "error"):
            return message["content"].get("text") or message["content"]

async def main():
    await answers()
    print(await asyncio.wait_for(output("import pandas; print(6 * 7)"), 20))

asyncio.run(main())
"""
"""A program that runs a cell in a kernel, from inside: the container may have no network."""


@dataclass
class Image:
    tag: str
    user: str
    home: str
    ports: list[int]

    @classmethod
    def inspect(cls, tag: str) -> "Image":
        config = json.loads(docker("image", "inspect", "--format", "{{json .Config}}", tag))
        home = dict(each.split("=", 1) for each in config["Env"]).get("HOME", "/root")
        ports = [int(port.split("/")[0]) for port in config["ExposedPorts"] or {}]
        return cls(tag, config["User"] or "0:0", home, ports)


def docker(*arguments: str, text: str | None = None) -> str:
    found = subprocess.run(["docker", *arguments], input=text, capture_output=True, text=True)
    if found.returncode:
        said = (found.stderr + found.stdout).strip().splitlines() or [f"exit status {found.returncode}"]
        raise AssertionError(said[-1])
    return found.stdout.strip()


@contextlib.contextmanager
def started(image: Image, options: list[str], command: list[str]) -> Iterator[str]:
    container = docker("run", "--detach", "--label", f"{LABEL}={TOKEN}", *options, image.tag, *command)
    try:
        yield container
    finally:
        docker("rm", "--force", "--volumes", container)


def enter(image: Image, start: str) -> None:
    """Every way in works, and each folder that an agent writes to can be written."""
    command = ["-f", "/dev/null"] if start == "entrypoint" else ["sleep", "infinity"]
    with started(image, STARTS[start], command) as container:
        attempts: list[tuple[str, list[str], list[str]]] = [(name, [], entry) for name, entry in ENTRIES.items()]
        if start != "read_only":
            attempts += [(f"{path} is writable", [], entry) for path, entry in WRITES.items()]
        if start != "no_capabilities":  # without them root cannot become anybody
            account = docker("exec", "--user", image.user, container, "id", "-un")
            attempts.append(("su -", ["--user", "0:0"], ["su", "-", account, "-c", f"python -c '{PYTHON}'"]))
        failed = []
        for name, options, entry in attempts:
            try:
                docker("exec", *options, container, *entry)
            except AssertionError as error:
                failed.append(f"{name} ({error})")
        if failed:
            raise AssertionError("; ".join(failed))


def serve(image: Image, options: list[str]) -> None:
    """The image's own servers run a cell."""
    with started(image, options, []) as container:
        try:
            equal(docker("exec", "--interactive", container, "python", "-", text=CELL), "42")
        except AssertionError as error:
            logs = subprocess.run(["docker", "logs", container], capture_output=True, text=True)
            said = " ".join((logs.stdout + logs.stderr).split())
            raise AssertionError(f"{error}; its log ends with: {said[-300:]}") from error


@contextlib.contextmanager
def compose_up(service: dict[str, Any]) -> Iterator["subprocess.Popen[str]"]:
    """`docker compose up --wait`, which is not waited for."""
    project = ["docker", "compose", "--project-name", f"client-trial-{TOKEN}", "--file", "-"]
    labelled = {"labels": {LABEL: TOKEN}, "stop_grace_period": "1s", **service}
    text = json.dumps({"services": {"trial": labelled}})
    up = subprocess.Popen(
        [*project, "up", "--detach", "--wait"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # the plug-in is a child of the command
    )
    try:
        assert up.stdin
        up.stdin.write(text)
        up.stdin.close()
        yield up
    finally:
        if up.poll() is None:
            os.killpg(up.pid, signal.SIGTERM)
            up.wait()
        subprocess.run([*project, "down"], input=text, text=True, capture_output=True)


def succeed(up: "subprocess.Popen[str]") -> None:
    assert up.stderr
    said = up.stderr.read()
    if up.wait():
        raise AssertionError(said)


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [int(each.getsockname()[1]) for each in sockets]


def answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/")
        connection.getresponse()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    return True


def compose_waits_for_no_server(image: Image) -> None:
    start = time.monotonic()
    with compose_up({"image": image.tag, "command": "sleep infinity", "network_mode": "none"}) as up:
        succeed(up)
        below(time.monotonic() - start, 4)


def compose_waits_for_the_servers(image: Image) -> None:
    """And not much longer."""
    published = free_ports(len(image.ports))
    ports = [f"127.0.0.1:{outer}:{inner}" for outer, inner in zip(published, image.ports, strict=True)]
    with compose_up({"image": image.tag, "network_mode": "bridge", "ports": ports}) as up:
        while up.poll() is None and not all(map(answers, published)):
            time.sleep(0.05)
        ready = time.monotonic()
        succeed(up)
        below(time.monotonic() - ready, 2)
        equal([port for port in published if not answers(port)], [])


def passes(tag: str) -> Iterator[tuple[str, Check]]:
    image = Image.inspect(tag)
    for start in STARTS:
        yield f"enter_{start}", partial(enter, image, start)
    for start, options in STARTS.items():
        if start != "entrypoint":  # it leaves no server to be started
            yield f"serve_{start}", partial(serve, image, options)
    yield "serve_foreign_home", partial(serve, image, ["--tmpfs", f"{image.home}:uid=0,mode=755"])
    for wait in [compose_waits_for_no_server, compose_waits_for_the_servers]:
        yield wait.__name__, partial(wait, image)


if __name__ == "__main__":
    prove(passes)
