"""Prove an image with the environment of freeact 0.6.4: one line per check, exit status 0 if all passed.

    freeact.py IMAGE_TAG

Runs where freeact==0.6.4 is installed, without a model. The client cannot set labels: containers carry the
environment variable `MARKER` instead, and those that have it are removed at the end.

Not run, because they need public web sites: agents with a model, skills that search the web, MCP servers
that are started through npx or uvx, packages from an index.
"""

import asyncio
import contextlib
import os
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

# This script has the name of the package it needs.
sys.path[:] = [path for path in sys.path if Path(path).resolve() != Path(__file__).resolve().parent]
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else its import asks a web site for prices

import aiohttp  # noqa: E402
from aiodocker import Docker  # noqa: E402
from freeact.environment import CodeExecutionEnvironment, Workspace, execution_environment  # noqa: E402

MARKER = "IPYBOX_CLIENT_TRIAL"
TOKEN = secrets.token_hex(8)
LIMIT = 30.0
"""Seconds for one check."""

WHEEL = "client_trial-1.0-py3-none-any.whl"

WRITE_WHEEL = f"""
import zipfile
with zipfile.ZipFile("{WHEEL}", "w") as wheel:
    wheel.writestr("client_trial.py", "ANSWER = 42\\n")
    info = "client_trial-1.0.dist-info/"
    wheel.writestr(info + "METADATA", "Metadata-Version: 2.1\\nName: client-trial\\nVersion: 1.0\\n")
    wheel.writestr(info + "WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
    wheel.writestr(info + "RECORD", "client_trial.py,,\\n")
"""

PICTURE = r"""
import struct, zlib
from IPython.display import Image, display

def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

header = chunk(b"IHDR", struct.pack(">2I5B", 3, 2, 8, 2, 0, 0, 0))
rows = chunk(b"IDAT", zlib.compress((b"\0" + b"\xff\0\0" * 3) * 2))
display(Image(data=b"\x89PNG\r\n\x1a\n" + header + rows + chunk(b"IEND", b"")))
"""

MCP_SERVER = """
try:
    from mcp.server.fastmcp import FastMCP as Server
except ImportError:
    from mcp.server.mcpserver import MCPServer as Server

server = Server("trial")

@server.tool(name="Add-Numbers")
def add(first: int, second: int = 1) -> str:
    "Add two numbers."
    return str(first + second)

@server.tool()
def other() -> str:
    "Another tool."
    return "other"

server.run("stdio")
"""


def equal(found: object, expected: object) -> None:
    if found != expected:
        raise AssertionError(f"{found!r:.200} instead of {expected!r:.200}")


def contains(text: str | None, *parts: str) -> None:
    for part in parts:
        if part not in (text or ""):
            raise AssertionError(f"no {part!r} in {text!r:.200}")


def below(found: float, limit: float) -> None:
    if found >= limit:
        raise AssertionError(f"{found:.1f} s, should be below {limit} s")


async def run(environment: CodeExecutionEnvironment, code: str) -> str:
    """Output of one cell in a kernel of its own."""
    async with environment.code_executor() as executor:
        result = await executor.execute(code, timeout=LIMIT)
        equal((result.is_error, result.text if result.is_error else ""), (False, ""))
        return (result.text or "").strip()


async def state_is_kept(environment: CodeExecutionEnvironment) -> None:
    async with environment.code_executor() as executor:
        await executor.execute("x = 41")
        equal((await executor.execute("print(x + 1)")).text, "42")
    equal(await run(environment, "print('x' in globals())"), "False")


async def folder_path_and_environment(environment: CodeExecutionEnvironment) -> None:
    code = f"import os; print(os.getcwd(), os.environ['{MARKER}'])"
    equal(await run(environment, code), f"/app/skills/private {TOKEN}")
    path = await run(environment, "import os; print(os.environ['PYTHONPATH'])")
    equal(path, ".:/app/skills/shared:/app/skills/private/")
    code = "import sys; print(*[p.rstrip('/') for p in sys.path if p.startswith('/app')])"
    contains(await run(environment, code), "/app/skills/shared", "/app/skills/private")


async def cell_after_error_runs(environment: CodeExecutionEnvironment) -> None:
    async with environment.code_executor() as executor:
        for number in range(30):
            result = await executor.execute(f"raise ValueError('reason {number}')")
            equal(result.is_error, True)
            contains(result.text, "ValueError", f"reason {number}")
            equal((await executor.execute(f"print({number})")).text, str(number))


async def timeout_keeps_state(environment: CodeExecutionEnvironment) -> None:
    async with environment.code_executor() as executor:
        await executor.execute("kept = 'kept'")
        result = await executor.execute("import time; time.sleep(20)", timeout=0.5)
        equal((result.is_error, result.text), (True, "Execution timed out"))
        equal((await executor.execute("print(kept)")).text, "kept")


async def pictures(environment: CodeExecutionEnvironment) -> None:
    async with environment.code_executor() as executor:
        result = await executor.execute(PICTURE)
        contains(result.text, "Produced images:")
        equal([image.size for image in result.images.values()], [(3, 2)])
        equal([path.is_file() for path in result.images], [True])


async def file_editor_works(environment: CodeExecutionEnvironment) -> None:
    async with environment.code_executor() as executor:
        await executor.execute("path = 'edited.py'")  # the editor refuses absolute paths
        code = r"print(file_editor('create', path, 'def skill():\n    return 1\n'))"
        contains((await executor.execute(code)).text, "created successfully")
        equal((await executor.execute("import edited; print(edited.skill())")).text, "1")
        code = "print(file_editor('str_replace', path, old_str='return 1', new_str='return 22'))"
        contains((await executor.execute(code)).text, "has been edited")
        equal((await executor.execute("print(edited.skill())")).text, "22")  # autoreload
    host = environment.container.workspace.private_skills_host_path / "edited.py"
    equal(host.read_text(), "def skill():\n    return 22\n")


async def skills_of_the_workspace(environment: CodeExecutionEnvironment) -> None:
    workspace = environment.container.workspace
    private, shared = workspace.private_skills_host_path, workspace.shared_skills_host_path
    (private / "private_skill.py").write_text("PRIVATE = 1\n")
    (shared / "shared_skill").mkdir()
    (shared / "shared_skill" / "__init__.py").write_text("SHARED = 1\n")
    (shared / "shared_skill" / "inner.py").write_text("INNER = 1\n")
    names = ["private_skill", "shared_skill", "shared_skill.inner"]
    async with environment.code_provider() as provider:
        text = await provider.get_sources(module_names=names)
        contains(text, "# Module: private_skill\n\nPRIVATE = 1", "# Module: shared_skill\n\nSHARED = 1")
        contains(text, "# Module: shared_skill.inner\n\nINNER = 1")
    equal(await run(environment, f"import {', '.join(names)}; print(shared_skill.inner.INNER)"), "1")


async def sources_of_installed_skills(environment: CodeExecutionEnvironment) -> None:
    async with environment.code_provider() as provider:
        contains(await provider.get_sources(module_names=["freeact_skills.editor"]), "def file_editor(")
        try:
            await provider.get_sources(module_names=["no_such_skill"])
        except aiohttp.ClientResponseError as error:
            equal(error.status, 404)
        else:
            raise AssertionError("no error")


async def changed_skill_has_new_source(environment: CodeExecutionEnvironment) -> None:
    skill = environment.container.workspace.private_skills_host_path / "changing.py"
    async with environment.code_provider() as provider:
        for number in [1, 22, 333]:
            skill.write_text(f"NUMBER = {number}\n")
            contains(await provider.get_sources(module_names=["changing"]), f"NUMBER = {number}\n")


async def installed_package_is_visible(environment: CodeExecutionEnvironment) -> None:
    async with environment.code_executor() as executor, environment.code_provider() as provider:
        await executor.execute(WRITE_WHEEL)
        contains((await executor.execute(f"!pip install --no-index {WHEEL}")).text, "Successfully installed")
        contains(await provider.get_sources(module_names=["client_trial"]), "ANSWER = 42")
        equal((await executor.execute("import client_trial; print(client_trial.ANSWER)")).text, "42")


async def mcp_servers(environment: CodeExecutionEnvironment) -> None:
    (environment.container.workspace.private_skills_host_path / "trial_server.py").write_text(MCP_SERVER)
    parameters = {"trial": {"command": "python", "args": ["/app/skills/private/trial_server.py"]}}
    async with environment.code_executor() as executor, environment.code_provider() as provider:
        equal(await provider.register_mcp_servers(parameters), {"trial": ["add_numbers", "other"]})
        text = await provider.get_sources(mcp_tool_names={"trial": None})
        contains(text, "# Module: mcpgen.trial.add_numbers", "# Module: mcpgen.trial.other", "params: Params")
        text = await provider.get_sources(mcp_tool_names={"trial": ["other"]})
        equal("add_numbers" in text, False)
        code = "from mcpgen.trial.add_numbers import Params, add_numbers\nprint(add_numbers(Params(first=2)))"
        equal((await executor.execute(code)).text, "3")


CHECKS: list[Callable[[CodeExecutionEnvironment], Awaitable[None]]] = [
    state_is_kept,
    folder_path_and_environment,
    cell_after_error_runs,
    timeout_keeps_state,
    pictures,
    file_editor_works,
    skills_of_the_workspace,
    sources_of_installed_skills,
    changed_skill_has_new_source,
    installed_package_is_visible,
    mcp_servers,
]


async def marked(remove: bool = False) -> list[str]:
    """Ids of the containers of this run."""
    found = []
    async with Docker() as docker:
        for container in await docker.containers.list(all=True):
            with contextlib.suppress(Exception):  # it went away meanwhile
                if f"{MARKER}={TOKEN}" in (await container.show())["Config"]["Env"]:
                    found.append(container.id)
                    if remove:
                        await container.delete(force=True, v=True)
    return found


async def check(name: str, outcome: Awaitable[None]) -> bool:
    try:
        await asyncio.wait_for(outcome, LIMIT)
    except Exception as error:
        why = "nothing within the time limit" if isinstance(error, TimeoutError) else str(error)
        kind = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
        print(f"FAILED {name}: {kind}{' '.join(why.split())[:400]}", flush=True)
        return False
    print(f"ok {name}", flush=True)
    return True


async def checks(tag: str, folder: str) -> bool:
    workspace = Workspace(folder, "trial")
    for path in [workspace.private_skills_host_path, workspace.shared_skills_host_path]:
        path.mkdir(parents=True)
        path.chmod(0o777)  # the user of the image may be another one
    Path(folder).chmod(0o755)
    passed = []
    async with contextlib.AsyncExitStack() as stack:
        environment: CodeExecutionEnvironment | None = None

        async def answers_soon() -> None:
            nonlocal environment
            start = time.monotonic()
            found: CodeExecutionEnvironment = await stack.enter_async_context(
                execution_environment(
                    ipybox_tag=tag,
                    ipybox_env={MARKER: TOKEN},
                    workspace_path=folder,
                    workspace_key="trial",
                )
            )
            environment = found
            async with found.code_executor(), found.code_provider():
                below(time.monotonic() - start, 10)

        passed.append(await check("answers_soon", answers_soon()))
        if environment:
            for each in CHECKS:
                passed.append(await check(each.__name__, each(environment)))
    return all(passed)


async def main(tag: str) -> int:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            return 0 if await checks(tag, folder) else 1
    finally:
        await marked(remove=True)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(asyncio.run(main(sys.argv[1])))
