"""Workspaces, with a kernel each."""

import asyncio
import contextlib
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from typing import Any

import zmq
import zmq.asyncio
from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel
from jupyter_client.manager import AsyncKernelManager

from ipybox.executor.output import LIMIT, Output, Result, late

STARTS = 4  # kernels that start at the same time
START_LIMIT = 60.0  # seconds
GRACE = 3.0  # seconds that interrupted code has to end, before its kernel is killed
STRAGGLERS = 5.0  # seconds between a reply and the last of the output, at most
GUEST = "__import__('ipybox.executor.guest', fromlist=['guest'])"
COLOURS = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")

# Not those of the user's home, where code could put others.
SPECS = KernelSpecManager(kernel_dirs=[os.path.join(sys.prefix, "share/jupyter/kernels")])


class NotStarted(Exception):
    """There is no kernel to run the code."""


class Died(Exception):
    """The kernel ended before it answered."""


class Request:
    """What a kernel was asked, and what came of it so far."""

    def __init__(self, identifier: str, output: Output) -> None:
        self.identifier, self.output = identifier, output
        self.reply: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self.idle: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def receive(self, kind: str, content: dict[str, Any]) -> None:
        if kind.endswith("_reply") and not self.reply.done():
            self.reply.set_result(content)
        elif kind == "status" and content["execution_state"] == "idle" and not self.idle.done():
            self.idle.set_result(True)
        else:
            self.output.receive(kind, content)


class Kernel:
    def __init__(self, folder: str, context: zmq.asyncio.Context) -> None:
        self.folder = folder
        self.private = tempfile.mkdtemp(prefix="ipybox-")  # of this user only, as are the sockets in it
        self.manager = AsyncKernelManager(
            kernel_name="python3",
            kernel_spec_manager=SPECS,
            context=context,
            transport="ipc",
            connection_file=os.path.join(self.private, "kernel.json"),
        )
        self.sockets: list[Any] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.asked: Request | None = None
        self.dead: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def start(self) -> None:
        environment = {**os.environ, "WORKSPACE": self.folder}
        # By default kernels write the code of calls to a file that is the same for all.
        arguments = ["--HistoryManager.hist_file=:memory:"]
        await self.manager.start_kernel(cwd=self.folder, env=environment, extra_arguments=arguments)
        if self.dead.done():
            raise Died
        self.sockets = [self.manager.connect_shell(), self.manager.connect_iopub()]
        work = [self.watch(), *map(self.listen, self.sockets)]
        self.tasks = [asyncio.create_task(item) for item in work]
        while not (await self.request("kernel_info_request", {}, Output(), 0.5)).idle.done():
            pass  # output does not arrive yet
        await self.call_guest("start()")

    async def watch(self) -> None:
        assert self.manager.provisioner
        while (status := await self.manager.provisioner.poll()) is None:
            await asyncio.sleep(0.25)
        await asyncio.sleep(0.05)  # for the last of the output
        known = -status in signal.valid_signals()
        await self.close(signal.Signals(-status).name if known else f"exit status {status}")

    async def listen(self, socket: zmq.asyncio.Socket) -> None:
        session = self.manager.session
        while True:
            frames = await socket.recv_multipart()
            with contextlib.suppress(ValueError, TypeError, LookupError, AttributeError):  # forged
                message = session.deserialize(session.feed_identities(frames)[1])
                if self.asked and message["parent_header"].get("msg_id") == self.asked.identifier:
                    self.asked.receive(message["header"]["msg_type"], message["content"])
            await asyncio.sleep(0)  # a flood leaves time for others

    async def request(
        self, kind: str, content: dict[str, Any], output: Output, stragglers: float = STRAGGLERS
    ) -> Request:
        message = self.manager.session.msg(kind, content)
        self.asked = asked = Request(message["header"]["msg_id"], output)
        if not self.dead.done():
            await self.sockets[0].send_multipart(self.manager.session.serialize(message))
            await first({asked.reply, self.dead})
        if not asked.reply.done():
            raise Died
        await first({asked.idle, self.dead}, stragglers)
        return asked

    async def execute(self, code: str, output: Output, **settings: Any) -> dict[str, Any]:
        content = {"code": code, "allow_stdin": False, "stop_on_error": False, **settings}
        asked = await self.request("execute_request", content, output)
        if not asked.idle.done() and not self.dead.done():  # a message was too large to be received
            await self.close("its output broke off")
            raise Died
        return asked.reply.result()

    async def call_guest(self, expression: str) -> None:
        expressions = {"": f"{GUEST}.{expression}"}
        settings = {"silent": True, "store_history": False, "user_expressions": expressions}
        answer = (await self.execute("", Output(), **settings))["user_expressions"][""]
        if answer["status"] != "ok":
            await self.close(f"{answer['ename']}: {answer['evalue']}")
            raise Died

    async def run(self, code: str, timeout: int, env: dict[str, str]) -> Result:
        output, end = Output(), time.monotonic() + timeout
        text, timed_out = "", False
        call: asyncio.Task[Any] = asyncio.create_task(self.call_guest(f"before({env!r})"))
        try:
            if (await asyncio.wait({call}, timeout=timeout))[0]:
                await call
                call = asyncio.create_task(self.execute(code, output))
                timed_out = not (await asyncio.wait({call}, timeout=end - time.monotonic()))[0]
                if timed_out:
                    with contextlib.suppress(RuntimeError):  # it ended a moment ago
                        await self.manager.interrupt_kernel()
                    await asyncio.wait({call}, timeout=GRACE)
            else:
                timed_out = True
            if not call.done():
                text = ": the kernel did not stop, was killed, and its state is lost"
                await self.close("it did not stop")
            reply = await call
            with contextlib.suppress(Died, asyncio.TimeoutError):  # the next call makes up for it
                await asyncio.wait_for(self.call_guest("after()"), GRACE)
        except Died:
            if not timed_out:
                text = f"The kernel died ({self.dead.result()}); its state is lost"
                return Result(output.text(), text, -1)
        finally:
            call.cancel()
        if timed_out:
            return Result(output.text(), late(timeout) + text, -1, timed_out=True)
        if reply["status"] == "ok":
            return Result(output.text())
        return Result(output.text(), COLOURS.sub("", "\n".join(reply["traceback"]))[-LIMIT:], 1)

    async def close(self, reason: str) -> None:
        if self.dead.done():
            return
        self.dead.set_result(reason)
        for task in self.tasks:
            if task is not asyncio.current_task():
                task.cancel()
        if self.manager.has_kernel:
            await self.manager.shutdown_kernel(now=True)
        for socket in self.sockets:
            socket.close(linger=0)
        shutil.rmtree(self.private, ignore_errors=True)


class Workspace:
    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.kernel: Kernel | None = None
        self.calls = 0
        self.used = time.monotonic()


class Workspaces:
    def __init__(self, idle: int) -> None:
        self.idle = idle
        self.known: dict[str, Workspace] = {}
        self.starting = asyncio.Semaphore(STARTS)
        self.context = zmq.asyncio.Context()
        self.context.setsockopt(zmq.RCVHWM, 100)  # of each socket; the rest waits in the kernel
        self.context.setsockopt(zmq.MAXMSGSIZE, 16 * 1024 * 1024)

    async def run(self, name: str, folder: str, code: str, timeout: int, env: dict[str, str]) -> Result:
        workspace = self.known.setdefault(name, Workspace())
        workspace.calls += 1
        try:
            async with workspace.lock:
                if not workspace.kernel or workspace.kernel.dead.done():
                    async with self.starting:
                        workspace.kernel = Kernel(folder, self.context)
                        await start(workspace.kernel)
                return await workspace.kernel.run(code, timeout, env)
        finally:
            workspace.calls -= 1
            workspace.used = time.monotonic()

    async def shut_down(self, name: str) -> bool:
        """End the kernel of a workspace, busy or not, and tell whether there was one."""
        kernel = self.known[name].kernel if name in self.known else None
        if not kernel or kernel.dead.done():
            return False
        await kernel.close("it was shut down")
        return True

    async def expire(self) -> None:
        """End kernels that nobody used for long, for as long as the server runs."""
        while True:
            await asyncio.sleep(min(self.idle / 4 or 30, 30))
            for name, workspace in list(self.known.items()):
                kernel = workspace.kernel
                alive = kernel and not kernel.dead.done()
                idle = self.idle and time.monotonic() - workspace.used > self.idle
                if not workspace.calls and (idle or not alive):
                    del self.known[name]
                    if kernel:
                        await kernel.close("it was idle")

    async def close(self) -> None:
        kernels = [workspace.kernel for workspace in self.known.values() if workspace.kernel]
        await asyncio.gather(*(kernel.close("the server ends") for kernel in kernels))


async def first(futures: set[asyncio.Future[Any]], timeout: float | None = None) -> None:
    await asyncio.wait(futures, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)


async def start(kernel: Kernel) -> None:
    try:
        await asyncio.wait_for(kernel.start(), START_LIMIT)
    except (Died, NoSuchKernel, OSError, RuntimeError, asyncio.TimeoutError) as error:
        await kernel.close(str(error) or f"not within {START_LIMIT:g} seconds")
        raise NotStarted(f"The kernel did not start: {kernel.dead.result()}") from None
