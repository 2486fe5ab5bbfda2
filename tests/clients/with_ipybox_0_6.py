"""Prove an image with the client of ipybox 0.6.7: one line per check, exit status 0 if all passed.

    with_ipybox_0_6.py IMAGE_TAG

Runs where ipybox==0.6.7 is installed.

Not run, because they need public web sites: firewall rules for domain names (allowed, blocked, several,
none), packages from an index, MCP servers that are started through npx or uvx.
"""

import asyncio
import contextlib
import errno
import http.client
import io
import socket
import tarfile
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
from ipybox import ExecutionClient, ExecutionContainer, ExecutionError, ResourceClient

from proof import (
    LIMIT,
    MARKER,
    PICTURE,
    TOKEN,
    WHEEL,
    WRITE_WHEEL,
    below,
    containers,
    contains,
    equal,
    gone,
    prove,
)

OUTSIDE = "198.51.100.1"
"""An address of a network that exists in documentation only."""

MCP_PORT = 8931

MCP_SERVER = f"""
import os
import sys
from pydantic import BaseModel

options = {{}}
try:
    from mcp.server.fastmcp import FastMCP as Server
    server = Server("trial", port={MCP_PORT})
except ImportError:
    from mcp.server.mcpserver import MCPServer as Server
    server = Server("trial")
    options = {{"port": {MCP_PORT}}}

class Person(BaseModel):
    name: str
    age: int | None = None

@server.tool()
def add(first: int, second: int = 1) -> str:
    "Add two numbers."
    return str(first + second)

@server.tool(name="Greet-Person")
def greet(person: Person) -> str:
    'Say "hello".'
    return f"Hello, {{person.name}} of {{person.age}}"

@server.tool()
def environment(name: str) -> str:
    "Value of a variable."
    return os.environ.get(name, "")

@server.tool()
def fail(reason: str) -> str:
    "Always fails."
    raise ValueError(reason)

transport = sys.argv[1]
server.run(transport, **({{}} if transport == "stdio" else options))
"""

MCP_PARAMETERS = {
    "command": "python",
    "args": ["/app/trial_server.py", "stdio"],
    "env": {"TRIAL": "from the parameters"},
}

CONNECT = """
import socket, time
start = time.monotonic()
try:
    socket.create_connection(("{address}", {port}), timeout=8).close()
    error = 0
except TimeoutError:
    error = "timeout"
except OSError as problem:
    error = problem.errno
print(error, time.monotonic() - start)
"""


@contextlib.contextmanager
def refused(status: int, above: int = 0) -> Iterator[None]:
    """The body must end in an answer with `status`, or with any from `status` to `above`."""
    try:
        yield
    except aiohttp.ClientResponseError as error:
        if not status <= error.status <= max(status, above):
            raise AssertionError(f"status {error.status} instead of {status}") from error
    else:
        raise AssertionError(f"no error instead of status {status}")


def kernel(container: ExecutionContainer) -> ExecutionClient:
    return ExecutionClient(port=container.executor_port)


def resources(container: ExecutionContainer) -> ResourceClient:
    return ResourceClient(port=container.resource_port, connect_retries=3)


async def run(container: ExecutionContainer, code: str) -> str:
    """Output of one cell in a kernel of its own."""
    async with kernel(container) as client:
        return (await client.execute(code, timeout=LIMIT)).text or ""


async def answer(container: ExecutionContainer, method: str, path: str, body: bytes = b"") -> int:
    """Status of a request whose path no client library has tidied up."""

    def ask() -> int:
        connection = http.client.HTTPConnection("localhost", container.resource_port, timeout=10)
        with contextlib.closing(connection):
            connection.request(method, path, body or None, {"Content-Type": "application/json"})
            return connection.getresponse().status

    return await asyncio.to_thread(ask)


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


# Kernels


async def answers(container: ExecutionContainer) -> None:
    equal(await run(container, "print(1)"), "1")


async def state_is_kept(container: ExecutionContainer) -> None:
    async with kernel(container) as first, kernel(container) as second:
        await first.execute("x = 1")
        equal((await first.execute("x += 1\nprint(x)")).text, "2")
        equal((await first.execute("x * 21")).text, "42")
        equal((await second.execute("print('x' in globals())")).text, "False")


async def folder_and_environment(container: ExecutionContainer) -> None:
    code = f"import os; print(os.getcwd(), os.environ['{MARKER}'], os.path.expanduser('~') != '/')"
    equal(await run(container, code), f"/app {TOKEN} True")
    code = "open('relative.txt', 'w').write('1')\n!python -c 'print(6 * 7, open(\"relative.txt\").read())'"
    equal(await run(container, code), "42 1")


async def cell_after_error_runs(container: ExecutionContainer) -> None:
    async with kernel(container) as client:
        for number in range(30):
            try:
                await client.execute(f"raise ValueError('reason {number}')")
            except ExecutionError as error:
                contains(str(error), "ValueError", f"reason {number}")
                contains(error.trace, "Traceback")
            else:
                raise AssertionError("no error")
            equal((await client.execute(f"print({number})")).text, str(number))


async def output_while_running(container: ExecutionContainer) -> None:
    async with kernel(container) as client:
        execution = await client.submit(
            "import time\nfor i in range(3):\n    print(i, flush=True); time.sleep(0.6)"
        )
        start = time.monotonic()
        arrivals = [(time.monotonic() - start, text) async for text in execution.stream() if text.strip()]
        equal("".join(text for _, text in arrivals).split(), ["0", "1", "2"])
        below(arrivals[0][0], 0.6)
        equal(len(arrivals), 3)


async def short_prints_are_complete(container: ExecutionContainer) -> None:
    async with kernel(container) as client:
        lost = [n for n in range(300) if (await client.execute(f"print({n})")).text != str(n)]
        equal(lost, [])


async def long_print_is_complete(container: ExecutionContainer) -> None:
    async with kernel(container) as client:
        equal(len((await client.execute("print('x' * 5_000_000)")).text or ""), 5_000_000)
        cell = "for _ in range(50):\n    print('y' * 99_999)"
        equal(len((await client.execute(cell)).text or ""), 4_999_999)


async def timeout_interrupts_and_keeps_state(container: ExecutionContainer) -> None:
    async with kernel(container) as client:
        await client.execute("kept = 'kept'")
        for _ in range(3):
            try:
                await client.execute("import time; time.sleep(20)", timeout=0.5)
            except TimeoutError:
                pass
            else:
                raise AssertionError("no timeout")
            start = time.monotonic()
            equal((await client.execute("print(kept)")).text, "kept")
            below(time.monotonic() - start, 3)


async def pictures(container: ExecutionContainer) -> None:
    async with kernel(container) as client:
        await client.execute(PICTURE)
        for cell in ["display(picture)", "picture"]:
            result = await client.execute(cell)
            equal([image.size for image in result.images], [(3, 2)])
            equal(result.images[0].convert("RGB").getpixel((0, 0)), (255, 0, 0))
            contains(result.text, "Image")


async def install_at_run_time(container: ExecutionContainer) -> None:
    async with kernel(container) as client:
        await client.execute(WRITE_WHEEL)
        contains((await client.execute(f"!pip install --no-index {WHEEL}")).text, "Successfully installed")
        equal((await client.execute("import client_trial; print(client_trial.ANSWER)")).text, "42")
    async with resources(container) as client:
        equal(await client.get_module_sources(["client_trial"]), {"client_trial": "ANSWER = 42\n"})


async def kernel_imports_modules_of_ipybox(container: ExecutionContainer) -> None:
    code = "import ipybox.modinfo, ipybox.mcp.run; print(ipybox.modinfo.get_module_info('this').name)"
    contains((await run(container, code)).splitlines()[-1], "this")


# Files


async def status(container: ExecutionContainer) -> None:
    async with aiohttp.ClientSession(f"http://localhost:{container.resource_port}") as session:
        for path in ["/status", "/status/"]:
            async with session.get(path) as response:
                equal(response.status, 200)
                equal(type(await response.json()), dict)


async def files(container: ExecutionContainer) -> None:
    data = bytes(range(256)) * 8192  # 2 MiB
    with folder() as here:
        (here / "up").write_bytes(data)
        async with resources(container) as client:
            for name in ["new/deep/data.bin", "with space+ü.txt"]:
                await client.upload_file(name, here / "up")
                await client.download_file(name, here / "down")
                equal((here / "down").read_bytes() == data, True)
                code = f"from pathlib import Path; print(Path({name!r}).stat().st_size)"
                equal(await run(container, code), str(len(data)))
                await client.delete_file(name)
                with refused(404):
                    await client.download_file(name, here / "gone")
                with refused(404):
                    await client.delete_file(name)
            (here / "up").write_bytes(b"")
            await client.upload_file("empty", here / "up")
            await client.download_file("empty", here / "down")
            equal((here / "down").read_bytes(), b"")


async def directories(container: ExecutionContainer) -> None:
    content = {"a.txt": b"a", "sub/deep/b.bin": bytes(range(256)), "sub/empty": b""}
    with folder() as here:
        for name, data in content.items():
            (here / "up" / name).parent.mkdir(parents=True, exist_ok=True)
            (here / "up" / name).write_bytes(data)
        async with resources(container) as client:
            await client.upload_directory("trees/one", here / "up")
            await client.download_directory("trees", here / "down")
            found = {
                str(path.relative_to(here / "down" / "one")): path.read_bytes()
                for path in (here / "down").rglob("*")
                if path.is_file()
            }
            equal(found, content)
            with refused(404):
                await client.download_directory("trees/none", here / "gone")


async def paths_outside_are_refused(container: ExecutionContainer) -> None:
    for path in ["/files/../../etc/passwd", "/files/%2e%2e/%2e%2e/etc/passwd", "/files//etc/passwd"]:
        equal((path, await answer(container, "GET", path)), (path, 400))
        equal((path, await answer(container, "POST", path, b"x")), (path, 400))
    equal(await answer(container, "GET", "/directories/../etc"), 400)
    await run(container, "import os; os.path.lexists('leave') or os.symlink('/etc', 'leave')")
    equal(await answer(container, "GET", "/files/leave/passwd"), 400)
    equal(await answer(container, "GET", "/directories/leave"), 400)


async def mcp_paths_outside_are_refused(container: ExecutionContainer) -> None:
    equal(await answer(container, "GET", "/mcp/../../usr/lib?server_name=python3"), 400)
    equal(await answer(container, "PUT", "/mcp/../../tmp/outside", b'{"command": "true"}'), 400)


def archive(members: list[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as tar:
        for member, content in members:
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return data.getvalue()


async def members_outside_are_refused(container: ExecutionContainer) -> None:
    for name in ["../../tmp/trial-member", "/tmp/trial-member"]:
        body = archive([(tarfile.TarInfo("good"), b"x"), (tarfile.TarInfo(name), b"x")])
        equal((name, await answer(container, "POST", "/directories/members", body)), (name, 400))
    equal(await run(container, "import os; print(os.path.exists('/tmp/trial-member'))"), "False")


async def links_in_archives_lead_nowhere(container: ExecutionContainer) -> None:
    await run(container, "import os; os.makedirs('/tmp/trial-links', exist_ok=True)")
    link = tarfile.TarInfo("link")
    link.type, link.linkname = tarfile.SYMTYPE, "/tmp/trial-links"
    body = archive([(link, b""), (tarfile.TarInfo("link/through"), b"x")])
    await answer(container, "POST", "/directories/links", body)
    equal(await run(container, "import os; print(os.listdir('/tmp/trial-links'))"), "[]")


# Modules


async def module_sources(container: ExecutionContainer) -> None:
    with folder() as here:
        (here / "empty_package").mkdir()
        (here / "empty_package" / "__init__.py").write_text("")
        (here / "empty_package" / "inner.py").write_text("def inner():\n    return 'ü'\n")
        async with resources(container) as client:
            await client.upload_directory("", here)
            sources = await client.get_module_sources(["empty_package", "empty_package.inner", "this"])
            equal(list(sources), ["empty_package", "empty_package.inner", "this"])
            equal(sources["empty_package"], "")
            equal(sources["empty_package.inner"], "def inner():\n    return 'ü'\n")
            contains(sources["this"], "Gur Mra bs Clguba")
            own = ["ipybox.modinfo", "ipybox.mcp.run", "ipybox.resource.server"]
            equal([bool(source) for source in (await client.get_module_sources(own)).values()], [True] * 3)
            for names in [["no_such_module"], ["this", "this.no_such"]]:
                with refused(404):
                    await client.get_module_sources(names)


async def module_that_exits(container: ExecutionContainer) -> None:
    with folder() as here:
        (here / "exits.py").write_text("raise SystemExit(3)\n")
        async with resources(container) as client:
            await client.upload_file("exits.py", here / "exits.py")
            with refused(404):
                await client.get_module_sources(["exits"])
            await client.get_module_sources(["this"])


async def module_that_hangs(container: ExecutionContainer) -> None:
    with folder() as here:
        (here / "hangs.py").write_text("import time\ntime.sleep(5)\n")
        async with resources(container) as client:
            await client.upload_file("hangs.py", here / "hangs.py")
            hanging = asyncio.create_task(client.get_module_sources(["hangs"]))
            await asyncio.sleep(0.5)
            start = time.monotonic()
            try:
                async with resources(container):
                    below(time.monotonic() - start, 2)
            finally:
                hanging.cancel()
                await asyncio.wait([hanging])


# MCP

TOOLS = ["add", "greet_person", "environment", "fail"]


async def upload_mcp_server(client: ResourceClient) -> None:
    with folder() as here:
        (here / "server.py").write_text(MCP_SERVER)
        await client.upload_file("trial_server.py", here / "server.py")


async def mcp_registration(container: ExecutionContainer) -> None:
    async with resources(container) as client:
        await upload_mcp_server(client)
        for _ in range(2):
            equal(await client.generate_mcp_sources("mcpgen", "trial", MCP_PARAMETERS), TOOLS)
        sources = await client.get_mcp_sources("mcpgen", "trial")
        equal(sorted(sources), sorted(TOOLS))
        contains(
            sources["greet_person"],
            "class Params(BaseModel)",
            "def greet_person(params: Params) -> str:",
            "run_sync(",
            "Greet-Person",
            "SERVER_PARAMS",
            'Say "hello".',
        )
        named = await client.get_module_sources(["mcpgen.trial.add", "mcpgen.trial"])
        equal(named["mcpgen.trial.add"], sources["add"])
        contains(named["mcpgen.trial"], "SERVER_PARAMS", "trial_server.py")
        with refused(404):
            await client.get_mcp_sources("mcpgen", "none")


async def mcp_functions_in_the_kernel(container: ExecutionContainer) -> None:
    async with kernel(container) as client:
        await client.execute(f"from mcpgen.trial import {', '.join(TOOLS)}")
        for call, expected in [
            ("add.add(add.Params(first=2, second=40))", "42"),
            ("add.add(add.Params(first=2))", "3"),
            (
                "greet_person.greet_person(greet_person.Params(person={'name': 'A', 'age': 7}))",
                "Hello, A of 7",
            ),
            ("environment.environment(environment.Params(name='TRIAL'))", "from the parameters"),
        ]:
            equal((await client.execute(f"print({call})")).text, expected)


async def mcp_tool_error_has_its_text(container: ExecutionContainer) -> None:
    try:
        await run(container, "from mcpgen.trial import fail; fail.fail(fail.Params(reason='the reason'))")
    except ExecutionError as error:
        contains(str(error), "the reason")
    else:
        raise AssertionError("no error")


async def mcp_server_that_does_not_start(container: ExecutionContainer) -> None:
    async with resources(container) as client:
        with refused(400, 599):
            await client.generate_mcp_sources("mcpgen", "broken", {"command": "no-such-command"})
        with refused(400, 599):
            await client.generate_mcp_sources("mcpgen", "broken", {"neither": "command nor url"})
        await client.get_module_sources(["this"])


async def mcp_over(container: ExecutionContainer, transport: str, parameters: dict[str, Any]) -> None:
    async with kernel(container) as client, resources(container) as resource_client:
        await upload_mcp_server(resource_client)
        await client.execute(
            f"""
            import socket, subprocess, time
            command = ["python", "/app/trial_server.py", "{transport}"]
            log = open("/tmp/trial-server.log", "w")
            server = subprocess.Popen(command, stdout=log, stderr=log)
            for _ in range(100):
                try:
                    socket.create_connection(("localhost", {MCP_PORT})).close()
                    break
                except OSError:
                    time.sleep(0.1)
            """
        )
        try:
            tools = await resource_client.generate_mcp_sources("mcpgen", "remote", parameters)
            equal(tools, TOOLS)
            code = "from mcpgen.remote.add import Params, add\nprint(add(Params(first=1)))"
            equal((await client.execute(code)).text, "2")
        finally:
            await client.execute("server.kill(); server.wait()")


async def mcp_over_streamable_http(container: ExecutionContainer) -> None:
    await mcp_over(container, "streamable-http", {"url": f"http://localhost:{MCP_PORT}/mcp"})


async def mcp_over_sse(container: ExecutionContainer) -> None:
    await mcp_over(container, "sse", {"url": f"http://localhost:{MCP_PORT}/sse", "type": "sse"})


# Containers of their own


def started(tag: str, **options: Any) -> ExecutionContainer:
    return ExecutionContainer(tag=tag, env={MARKER: TOKEN}, show_pull_progress=False, **options)


async def bind_mounts(tag: str) -> None:
    with folder() as here:
        (here / "open").mkdir()
        (here / "open").chmod(0o777)
        (here / "open" / "from_host.txt").write_text("host")
        here.chmod(0o755)
        binds = {str(here / "open"): "shared", str(here / "made" / "by client"): "skills/made"}
        async with started(tag, binds=binds) as container:
            code = "print(open('/app/shared/from_host.txt').read(), open('shared/back.txt', 'w').write('!'))"
            equal(await run(container, code), "host 1")
            equal(await run(container, "import os; print(os.listdir('skills/made'))"), "[]")
        equal((here / "open" / "back.txt").read_text(), "!")


def address_of_host() -> str | None:
    """An address of this machine outside the network of its containers."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((OUTSIDE, 9))
        except OSError:
            return None
        return str(probe.getsockname()[0])


async def firewall(tag: str) -> None:
    unreachable = str(errno.ENETUNREACH)
    async with started(tag) as container, kernel(container) as client:
        if (await client.execute("import os; print(os.getuid())")).text == "0":
            try:
                await container.init_firewall(["127.0.0.1"])
            except RuntimeError as error:
                contains(str(error), "container runs as root")
                return
            raise AssertionError("the root variant has a firewall")

        async def attempt(address: str, port: int) -> tuple[str, float]:
            result = await client.execute(CONNECT.format(address=address, port=port))
            error, seconds = (result.text or "").split()
            return error, float(seconds)

        async def blocked(address: str, port: int) -> None:
            error, seconds = await attempt(address, port)
            equal((address, error), (address, unreachable))
            below(seconds, 2)

        with socket.create_server(("", 0)) as listener:
            port = listener.getsockname()[1]
            address = address_of_host()
            if address and (await attempt(address, port))[0] != "0":
                address = None
            for _ in range(2):
                await container.init_firewall(["127.0.0.1"])
                await blocked(OUTSIDE, 443)
                if address:
                    await blocked(address, port)
            if address:
                await container.init_firewall([address, "127.0.0.0/8"])
                equal((await attempt(address, port))[0], "0")
                await container.init_firewall()
                await blocked(address, port)
        code = "import subprocess; print(subprocess.run(['/usr/sbin/iptables', '-F']).returncode)"
        equal((await client.execute(code)).text != "0", True)
        await blocked(OUTSIDE, 443)
        equal(await run(container, "print(1)"), "1")
        # What a shell would take for a command is an entry, good or bad.
        with contextlib.suppress(RuntimeError):
            await container.init_firewall(["$(touch /tmp/trial-shell)", "; touch /tmp/trial-shell"])
        equal(await run(container, "import os; print(os.path.exists('/tmp/trial-shell'))"), "False")


async def stops_at_sigterm(tag: str) -> None:
    async with started(tag) as container:
        await run(container, "x = 1")
        start = time.monotonic()
        await container._container.stop(t=10)
        below(time.monotonic() - start, 3)
        container._container = None  # kill() of a container that is gone would be an error


async def killed_container_is_gone(tag: str) -> None:
    async with started(tag) as container:
        name = container._container.id
        equal(name in containers(), True)
    await gone(name)


SHARED: list[Callable[[ExecutionContainer], Awaitable[None]]] = [
    state_is_kept,
    folder_and_environment,
    cell_after_error_runs,
    output_while_running,
    short_prints_are_complete,
    long_print_is_complete,
    timeout_interrupts_and_keeps_state,
    pictures,
    kernel_imports_modules_of_ipybox,
    status,
    files,
    directories,
    paths_outside_are_refused,
    members_outside_are_refused,
    links_in_archives_lead_nowhere,
    module_sources,
    install_at_run_time,
    mcp_registration,
    mcp_functions_in_the_kernel,
    mcp_over_streamable_http,
    mcp_over_sse,
    mcp_server_that_does_not_start,
    mcp_tool_error_has_its_text,
    mcp_paths_outside_are_refused,
    module_that_exits,
    module_that_hangs,
]

OWN: list[Callable[[str], Awaitable[None]]] = [
    bind_mounts,
    firewall,
    stops_at_sigterm,
    killed_container_is_gone,
]


if __name__ == "__main__":
    prove(started, answers, SHARED, OWN)
