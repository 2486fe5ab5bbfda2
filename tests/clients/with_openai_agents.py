"""Prove an image with the Docker sandbox of OpenAI Agents SDK 0.24.0: one line per check, exit status 0 if all passed.

    with_openai_agents.py IMAGE_TAG

Runs where openai-agents[docker]==0.24.0 is installed. No model is asked: the checks call the sandbox and the
tools that a model would call.

Not run, because they need an image of root: users and groups of a manifest. Not run, because they need public
web sites or a privileged container: Git repositories and mounts in a manifest.
"""

import asyncio
import contextlib
import io
import re
import subprocess
import tarfile
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path

import docker
from agents.editor import ApplyPatchOperation
from agents.sandbox import ExecTimeoutError, LocalSnapshotSpec, Manifest, SandboxError
from agents.sandbox.capabilities.tools import (
    ExecCommandArgs,
    ExecCommandTool,
    SandboxApplyPatchTool,
    ViewImageArgs,
    ViewImageTool,
    WriteStdinArgs,
    WriteStdinTool,
)
from agents.sandbox.entries import BaseEntry, Dir, File
from agents.sandbox.manifest import Environment
from agents.sandbox.sandboxes.docker import DockerSandboxClient, DockerSandboxClientOptions
from agents.sandbox.session import SandboxSession
from agents.sandbox.session.pty_types import PtyExecUpdate
from agents.tool import ToolOutputImage

from proof import MARKER, TOKEN, below, containers, contains, equal, prove

IMPORTS = "import numpy, pandas; print(pandas.Series(numpy.arange(4)).sum())"


def options(tag: str, ports: tuple[int, ...] = ()) -> DockerSandboxClientOptions:
    labels = {"ipybox.client-trial": TOKEN}
    return DockerSandboxClientOptions(tag, ports, network_mode=None if ports else "none", labels=labels)


def client() -> DockerSandboxClient:
    return DockerSandboxClient(docker.from_env())


@contextlib.asynccontextmanager
async def started(tag: str) -> AsyncIterator[SandboxSession]:
    """A session with the client's default workspace; `main` removes its container."""
    folder = Dir(children={"inner.txt": File(content=b"inner")})
    entries: dict[str | Path, BaseEntry] = {"given.txt": File(content=b"given"), "folder": folder}
    manifest = Manifest(entries=entries, environment=Environment(value={MARKER: TOKEN}))
    session = await client().create(manifest=manifest, options=options(tag))
    await session.start()
    yield session
    await session.pty_terminate_all()


def remove(session: SandboxSession) -> None:
    """At once: the client would wait ten seconds for `tail` to heed a signal."""
    container = session.state.model_dump()["container_id"]
    subprocess.run(["docker", "rm", "--force", container], check=True, stdout=subprocess.DEVNULL)


async def output(session: SandboxSession, *command: str, shell: bool = True) -> str:
    """What a command that succeeds prints; text is for the login shell."""
    result = await session.exec(*command, shell=shell)
    said = result.stdout.decode()
    equal((result.exit_code, result.stderr.decode()), (0, ""))
    return said.strip()


async def read(session: SandboxSession, path: str) -> bytes:
    return bytes((await session.read(Path(path))).read())


async def write(session: SandboxSession, path: str, content: bytes) -> None:
    await session.write(Path(path), io.BytesIO(content))


async def answers(session: SandboxSession) -> None:
    equal(await output(session, "pwd"), "/workspace")


async def exit_codes_and_streams(session: SandboxSession) -> None:
    result = await session.exec("echo out; echo error >&2; exit 7")
    equal((result.stdout, result.stderr, result.exit_code), (b"out\n", b"error\n", 7))
    equal(await output(session, "printf", "%s", "a 'b' $HOME", shell=False), "a 'b' $HOME")
    equal(await output(session, "printf", "%s", "a 'b' $HOME"), "a 'b' $HOME")


async def python_in_a_login_shell(session: SandboxSession) -> None:
    for name in ["python", "python3"]:
        equal(await output(session, f"{name} -c '{IMPORTS}'"), "6")
    equal(await output(session, f"bash -lc \"python -c '{IMPORTS}'\""), "6")
    equal(await output(session, "command -v pip") != "", True)


async def python_without_a_shell(session: SandboxSession) -> None:
    for name in ["python", "python3"]:
        equal(await output(session, name, "-c", IMPORTS, shell=False), "6")


async def entries_of_the_manifest(session: SandboxSession) -> None:
    equal(await output(session, "cat given.txt folder/inner.txt"), "giveninner")
    equal(await output(session, f"echo ${MARKER}"), TOKEN)


async def files(session: SandboxSession) -> None:
    for content in [b"", "line ü\n".encode(), bytes(range(256)) * 4096]:
        await write(session, "new/folder/file.bin", content)
        equal(await read(session, "new/folder/file.bin"), content)
    await write(session, "program.py", b"import pandas\nprint(len(pandas.DataFrame({'a': [1, 2]})))\n")
    equal(await output(session, "python program.py"), "2")
    await output(session, "echo made > made.txt")
    equal(await read(session, "/workspace/made.txt"), b"made\n")


async def folders(session: SandboxSession) -> None:
    await session.mkdir("one/two", parents=True)
    await write(session, "one/two/a.txt", b"a")
    await session.mv("one/two/a.txt", "one/b.txt")
    names = {Path(entry.path).name: entry.is_dir() for entry in await session.ls("one")}
    equal(names, {"two": True, "b.txt": False})
    await session.rm("one", recursive=True)
    equal((await session.exec("test -e one")).exit_code, 1)


async def paths_outside_are_refused(session: SandboxSession) -> None:
    await output(session, "ln -s /etc/passwd link")
    for path in ["/etc/passwd", "../etc/passwd", "link"]:
        try:
            await read(session, path)
        except SandboxError:
            continue
        raise AssertionError(f"{path} was read")


async def archives(session: SandboxSession) -> None:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        member = tarfile.TarInfo("inside/member.txt")
        member.size = 6
        tar.addfile(member, io.BytesIO(b"member"))
    archive.seek(0)
    await session.extract("unpacked/archive.tar.gz", archive, compression_scheme="tar")
    equal(await read(session, "unpacked/inside/member.txt"), b"member")


async def long_output(session: SandboxSession) -> None:
    equal(len(await output(session, "python -c \"print('x' * 5_000_000)\"")), 5_000_000)
    equal(len((await output(session, "seq 100000")).split()), 100_000)


async def timeout_ends_the_command(session: SandboxSession) -> None:
    start = time.monotonic()
    try:
        await session.exec("sleep", "987", timeout=1, shell=False)
    except ExecTimeoutError:
        below(time.monotonic() - start, 4)
    else:
        raise AssertionError("no timeout")
    equal(await output(session, "cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -c 'sleep [9]87' || true"), "0")


async def terminal(session: SandboxSession) -> None:
    said = b""
    update = await session.pty_exec_start("python -iq", tty=True, yield_time_s=1)
    for line in ["import pandas, sys\n", "print(sys.stdout.isatty(), 6 * 7)\n", "exit(3)\n"]:
        if update.process_id is None:
            raise AssertionError(f"ended: {update.output!r}")
        update = await session.pty_write_stdin(session_id=update.process_id, chars=line, yield_time_s=1)
        said += update.output
    update, said = await ended(session, update, said)
    contains(said.decode(), "True 42")
    equal(update.exit_code, 3)


async def ended(session: SandboxSession, update: PtyExecUpdate, said: bytes) -> tuple[PtyExecUpdate, bytes]:
    """The last update of a process that ends by itself, and all that it said."""
    while update.process_id is not None:
        update = await session.pty_write_stdin(session_id=update.process_id, chars="", yield_time_s=1)
        said += update.output
    return update, said


async def shell_tool(session: SandboxSession) -> None:
    execute, stdin = ExecCommandTool(session=session), WriteStdinTool(session=session)
    for shell, login in [(None, True), (None, False), ("bash", True), ("bash", False)]:
        said = await execute.run(ExecCommandArgs(cmd=f"python -c '{IMPORTS}'", shell=shell, login=login))
        contains(said, "exited with code 0", "Output:\n6")
    contains(await execute.run(ExecCommandArgs(cmd="pwd; exit 5", workdir="folder")), "code 5", "/workspace/folder")
    said = await execute.run(ExecCommandArgs(cmd="echo ready; sleep 987", tty=True, yield_time_ms=1000))
    running = re.search(r"session ID (\d+)", said)
    if not running:
        raise AssertionError(said)
    contains(said, "ready")
    interrupt = WriteStdinArgs(session_id=int(running[1]), chars="\x03", yield_time_ms=2000)
    contains(await stdin.run(interrupt), "Process exited with code 130")


async def apply_patch(session: SandboxSession) -> None:
    await write(session, "patched.py", b"def f():\n    return 1\n\n\nprint(f())\n")
    tool = SandboxApplyPatchTool(session=session)
    diff = " def f():\n-    return 1\n+    return 42\n"
    await tool.editor.update_file(ApplyPatchOperation("update_file", "patched.py", diff))
    await tool.editor.create_file(ApplyPatchOperation("create_file", "added/new.txt", "+new\n"))
    equal(await output(session, "python patched.py"), "42")
    contains((await read(session, "added/new.txt")).decode(), "new")
    await session.apply_patch(ApplyPatchOperation("delete_file", "patched.py"))
    equal((await session.exec("test -e patched.py")).exit_code, 1)


async def image_tool(session: SandboxSession) -> None:
    picture = b"\x89PNG\r\n\x1a\n" + bytes(100)
    await write(session, "picture.png", picture)
    found = await ViewImageTool(session=session).run(ViewImageArgs(path="picture.png"))
    if not isinstance(found, ToolOutputImage):
        raise AssertionError(found)
    contains(found.image_url, "data:image/png;base64,iVBORw0KGgo")


async def persist_and_hydrate(session: SandboxSession) -> None:
    await output(session, "mkdir -p kept && echo kept > kept/file.txt && rm -f link")
    archive = io.BytesIO((await session.persist_workspace()).read())
    await output(session, "rm -r kept && touch other")
    await session.hydrate_workspace(archive)
    equal(await output(session, "cat kept/file.txt && ls other"), "kept\nother")


async def snapshot_survives_its_container(tag: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        snapshot = LocalSnapshotSpec(base_path=Path(folder))
        session = await client().create(snapshot=snapshot, options=options(tag))
        await session.start()
        await write(session, "kept.txt", b"kept")
        await session.stop()
        remove(session)
        resumed = await client().resume(session.state)
        await resumed.start()
        equal(await output(resumed, f"cat kept.txt && python -c '{IMPORTS}'"), "kept6")
        remove(resumed)


async def exposed_port(tag: str) -> None:
    session = await client().create(options=options(tag, (8000,)))
    await session.start()
    await write(session, "served.txt", b"served")
    await session.pty_exec_start("python -m http.server 8000", yield_time_s=0.5)
    endpoint = await session.resolve_exposed_port(8000)
    address = f"{endpoint.url_for('http')}served.txt"
    for _ in range(50):
        with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=5) as answer:
            equal(answer.read(), b"served")
            break
        await asyncio.sleep(0.1)
    else:
        raise AssertionError("the server does not answer")
    await session.pty_terminate_all()
    remove(session)


async def workspace_elsewhere(tag: str) -> None:
    """And the client deletes its container."""
    session = await client().create(manifest=Manifest(root="/app/trial"), options=options(tag))
    async with session:
        equal(await output(session, "pwd"), "/app/trial")
        await write(session, "a.txt", b"a")
        equal(await output(session, "cat /app/trial/a.txt"), "a")
    name = session.state.model_dump()["container_id"]
    await client().delete(session)
    equal(name in containers(), False)


SHARED = [
    exit_codes_and_streams,
    python_in_a_login_shell,
    python_without_a_shell,
    entries_of_the_manifest,
    files,
    folders,
    paths_outside_are_refused,
    archives,
    long_output,
    timeout_ends_the_command,
    terminal,
    shell_tool,
    apply_patch,
    image_tool,
    persist_and_hydrate,
]

OWN = [snapshot_survives_its_container, exposed_port, workspace_elsewhere]


if __name__ == "__main__":
    prove(started, answers, SHARED, OWN)
