"""Prove an image with the environment of freeact 0.6.4: one line per check, exit status 0 if all passed.

    with_freeact.py IMAGE_TAG

Runs where freeact==0.6.4 is installed, without a model.

Not run, because they need public web sites: agents with a model, skills that search the web, MCP servers
that are started through npx or uvx, packages from an index.
"""

import contextlib
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from proof import LIMIT, MARKER, PICTURE, TOKEN, WHEEL, WRITE_WHEEL, contains, equal, prove

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else its import asks a web site for prices

import aiohttp
from freeact.environment import CodeExecutionEnvironment, Workspace, execution_environment

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


@contextlib.asynccontextmanager
async def started(tag: str) -> AsyncIterator[CodeExecutionEnvironment]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        workspace = Workspace(folder, "trial")
        for path in [workspace.private_skills_host_path, workspace.shared_skills_host_path]:
            path.mkdir(parents=True)
            path.chmod(0o777)  # the user of the image may be another one
        Path(folder).chmod(0o755)
        async with execution_environment(
            ipybox_tag=tag, ipybox_env={MARKER: TOKEN}, workspace_path=folder, workspace_key="trial"
        ) as environment:
            yield environment


async def run(environment: CodeExecutionEnvironment, code: str) -> str:
    """Output of one cell in a kernel of its own."""
    async with environment.code_executor() as executor:
        result = await executor.execute(code, timeout=LIMIT)
        equal((result.is_error, result.text if result.is_error else ""), (False, ""))
        return (result.text or "").strip()


async def answers(environment: CodeExecutionEnvironment) -> None:
    async with environment.code_executor(), environment.code_provider():
        pass


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
        result = await executor.execute(PICTURE + "display(picture)")
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


SHARED: list[Callable[[CodeExecutionEnvironment], Awaitable[None]]] = [
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


if __name__ == "__main__":
    prove(started, answers, SHARED)
