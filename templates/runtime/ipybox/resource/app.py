"""Files, directories, module sources and MCP tools of a container over HTTP.

Paths are relative to the root and never leave it, through links neither. User code runs in short-lived
processes of another interpreter only.
"""

import asyncio
import contextlib
import errno
import gzip
import json
import mimetypes
import os
import secrets
import shutil
import signal
import stat
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Annotated, Any, BinaryIO
from urllib.parse import quote

from fastapi import FastAPI, HTTPException, Query, Request
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

CHUNK = 256 * 1024
LIBRARY = Path(__file__).resolve().parent.parent

STATUS = {
    errno.EACCES: 403, errno.EPERM: 403, errno.EROFS: 403,
    errno.ENOENT: 404,
    errno.EEXIST: 400, errno.EISDIR: 400, errno.ENOTDIR: 400, errno.ENAMETOOLONG: 400, errno.ELOOP: 400,
    errno.ENOSPC: 507, errno.EDQUOT: 507,
}  # fmt: skip
"""What the file system refuses, as HTTP status."""


@dataclass
class Settings:
    root: Path
    python: str = "/opt/venv/bin/python"
    module_limit: float = 30.0
    mcp_limit: float = 60.0


def create_app(settings: Settings) -> FastAPI:
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    root = settings.root.resolve()

    @app.exception_handler(OSError)
    async def refused(_request: Request, error: OSError) -> Response:
        status = STATUS.get(error.errno or 0, 500)
        return JSONResponse({"detail": error.strerror or str(error)}, status)

    @app.exception_handler(ClientDisconnect)
    async def gone(_request: Request, _error: ClientDisconnect) -> Response:
        return Response(status_code=400)

    @app.get("/status")
    @app.get("/status/")
    async def status() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/modules")
    async def modules(names: Annotated[list[str], Query(alias="q")]) -> Response:
        for name in names:
            if not all(part.isidentifier() for part in name.split(".")):
                raise HTTPException(404, printable(f"Module {name} not found"))
        command = [settings.python, str(LIBRARY / "modinfo.py")]
        answer = await short_lived(command, names, root, settings.module_limit)
        for name in names:
            if "source" not in answer.get(name, {}):
                problem = answer.get(name, answer).get("error", "no answer")
                raise HTTPException(404, printable(f"Module {name} not found: {problem}"))
        return JSONResponse({name: printable(answer[name]["source"]) for name in names})

    @app.put("/mcp/{path:path}")
    async def generate(path: str, server_params: dict[str, Any]) -> Response:
        folder = inside(root, path)
        check_generated(folder, root)
        try:
            text = json.dumps(server_params, allow_nan=False)
        except ValueError as error:
            raise HTTPException(400, str(error)) from None
        command = [settings.python, "-I", "-m", "ipybox.mcp.tools"]
        answer = await short_lived(command, [], root, settings.mcp_limit, text)
        if "tools" not in answer:
            raise HTTPException(502, printable(answer.get("error", "no answer")))
        text = json.dumps({"server_params": server_params, "tools": answer["tools"]})
        command = [sys.executable, "-I", "-m", "ipybox.mcp.generate"]
        answer = await short_lived(command, [], root, settings.mcp_limit, text)
        if "sources" not in answer:
            raise HTTPException(502, printable(answer.get("error", "no answer")))
        await run_in_threadpool(store, folder, answer["sources"])
        return JSONResponse([name for name in answer["sources"] if name != "__init__"])

    @app.get("/mcp/{path:path}")
    def generated(path: str, server_name: str) -> Response:
        folder = inside(root, f"{path}/{server_name}")
        if not folder.is_dir():
            raise HTTPException(404, f"MCP server {server_name} not found")
        files = [file for file in sorted(folder.glob("*.py")) if file.stem != "__init__"]
        texts = {file.stem: inside(root, file.relative_to(root)).read_bytes() for file in files}
        return JSONResponse({name: text.decode(errors="replace") for name, text in texts.items()})

    @app.post("/files/{path:path}")
    async def upload_file(path: str, request: Request) -> Response:
        file = inside(root, path)
        if file.is_dir():
            raise HTTPException(400, "Path is a directory")
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as upload:
            async for chunk in request.stream():
                await run_in_threadpool(upload.write, chunk)
        return JSONResponse({"message": f"File uploaded to {path}"})

    @app.get("/files/{path:path}")
    def download_file(path: str) -> Response:
        file = inside(root, path)
        if not file.is_file():
            raise HTTPException(404, "File not found")
        if not os.access(file, os.R_OK):
            raise PermissionError(errno.EACCES, "Permission denied")
        guessed = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
        return FileResponse(file, media_type=guessed, filename=printable(file.name))

    @app.delete("/files/{path:path}")
    def delete_file(path: str) -> Response:
        file = inside(root, path)
        if not file.is_file():
            raise HTTPException(404, "File not found")
        entry = inside(root, Path(path).parent) / Path(path).name
        (entry if entry.is_symlink() else file).unlink()  # of a link, the link itself
        return JSONResponse({"message": f"File {path} deleted"})

    @app.post("/directories/{path:path}")
    async def upload_directory(path: str, request: Request) -> Response:
        folder = inside(root, path)
        existing = next(parent for parent in [folder, *folder.parents] if parent.is_dir())
        with tempfile.TemporaryFile(dir=existing) as archive:
            async for chunk in request.stream():
                await run_in_threadpool(archive.write, chunk)
            await run_in_threadpool(unpack, archive, folder, root)
        return JSONResponse({"message": f"Directory uploaded to {path}"})

    @app.get("/directories/{path:path}")
    def download_directory(path: str) -> Response:
        folder = inside(root, path)
        if not folder.is_dir():
            raise HTTPException(404, "Directory not found")
        disposition = f"attachment; filename*=utf-8''{quote(printable(folder.name))}.tar.gz"
        headers = {"Content-Disposition": disposition}
        return StreamingResponse(pack(folder), media_type="application/x-gzip", headers=headers)

    return app


def check_generated(folder: Path, root: Path) -> None:
    """Only generated code may be replaced by generated code."""
    if folder == root:
        raise HTTPException(400, "No name for the MCP server")
    if folder.exists() and not (folder.is_dir() and (not any(folder.iterdir()) or generated_in(folder))):
        raise HTTPException(409, "Path holds something other than generated code")


def generated_in(folder: Path) -> bool:
    try:
        return (folder / "__init__.py").read_bytes().lstrip().startswith(b"SERVER_PARAMS")
    except FileNotFoundError:
        return False


def store(folder: Path, sources: dict[str, str]) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".") as temporary:
        package = Path(temporary, "package")
        package.mkdir()
        for name, text in sources.items():
            (package / f"{name}.py").write_text(text, encoding="utf-8", errors="backslashreplace")
        if folder.exists():
            folder.rename(Path(temporary, "old"))
        package.rename(folder)


def inside(root: Path, path: str | Path) -> Path:
    """The real path below the root; refused when it is elsewhere, through `..` or a link."""
    try:
        result = Path(os.path.realpath(root / path))
    except ValueError:  # a NUL character
        raise HTTPException(400, "Invalid path") from None
    if not result.is_relative_to(root):
        raise HTTPException(400, "Path is outside the root directory")
    return result


def temporary_beside(path: Path) -> Path:
    return path.with_name(f".{secrets.token_hex(8)}.part")


@contextlib.contextmanager
def replacing(path: Path, mode: int | None = None) -> Iterator[BinaryIO]:
    """A file that takes the place of `path` when it is complete, and is gone when something fails."""
    temporary = temporary_beside(path)
    try:
        with open(temporary, "xb") as file:
            yield file
        if mode is None and path.exists():
            mode = stat.S_IMODE(path.stat().st_mode)
        if mode is not None:
            temporary.chmod(mode)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def pack(folder: Path) -> Iterator[bytes]:
    """A gzip tar of regular files, folders and the links that stay inside, in pieces."""
    compressor = zlib.compressobj(level=1, wbits=31)
    for piece in pieces(folder):
        if compressed := compressor.compress(piece):
            yield compressed
    yield compressor.flush()


def pieces(folder: Path) -> Iterator[bytes]:
    for path, member in entries(folder):
        if not member.isreg():
            yield header(member)
            continue
        try:
            content = path.open("rb")
        except FileNotFoundError:  # gone meanwhile
            continue
        with content as file:
            member.size = missing = os.fstat(file.fileno()).st_size
            yield header(member)
            # A file that changes meanwhile is cut or filled up with zeros.
            while missing and (chunk := file.read(min(CHUNK, missing))):
                missing -= len(chunk)
                yield chunk
        missing += -member.size % tarfile.BLOCKSIZE
        while missing:
            yield bytes(min(CHUNK, missing))
            missing -= min(CHUNK, missing)
    yield bytes(2 * tarfile.BLOCKSIZE)


def header(member: tarfile.TarInfo) -> bytes:
    return member.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def entries(folder: Path) -> Iterator[tuple[Path, tarfile.TarInfo]]:
    for parent, folders, files in os.walk(folder, onerror=unreadable):
        folders.sort()
        for name in sorted([*folders, *files]):
            path = Path(parent, name)
            try:
                status = path.lstat()
            except FileNotFoundError:  # gone meanwhile
                continue
            member = tarfile.TarInfo(os.path.relpath(path, folder))
            member.mode, member.mtime = status.st_mode & 0o777, int(status.st_mtime)
            if stat.S_ISREG(status.st_mode):
                yield path, member
            elif stat.S_ISDIR(status.st_mode):
                member.type = tarfile.DIRTYPE
                yield path, member
            elif stat.S_ISLNK(status.st_mode):
                target = os.path.realpath(path)
                if Path(target).is_relative_to(folder):
                    member.type = tarfile.SYMTYPE
                    member.linkname = os.path.relpath(target, parent)
                    yield path, member


def unreadable(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


def unpack(archive: IO[bytes], folder: Path, root: Path) -> None:
    """Extract a gzip tar. All of it is looked at before anything is written."""
    try:
        for _, member in members(archive):
            check(member, folder, root)
        folder.mkdir(parents=True, exist_ok=True)
        for tar, member in members(archive):
            extract(tar, member, folder, root)
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, ValueError, OverflowError) as error:
        raise HTTPException(400, printable(f"Invalid archive: {error}")) from None


def members(archive: IO[bytes]) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    archive.seek(0)
    with gzip.open(archive) as stream:
        with tarfile.open(fileobj=stream, mode="r:") as tar:
            for member in tar:
                yield tar, member
        while stream.read(CHUNK):  # for the checksum
            pass


def check(member: tarfile.TarInfo, folder: Path, root: Path) -> None:
    place(member.name, folder, root)
    if member.issym():
        target = os.path.join(os.path.dirname(os.path.normpath(member.name)), member.linkname)
        if os.path.isabs(member.linkname) or leaves(target):
            raise HTTPException(400, printable(f"Invalid tar member: link {member.name} leads outside"))
    elif member.islnk():
        place(member.linkname, folder, root)
    elif not (member.isreg() or member.isdir()):
        raise HTTPException(400, printable(f"Invalid tar member: {member.name} is a special file"))


def place(name: str, folder: Path, root: Path) -> Path:
    """Where a member goes: its real parent, below the root, and its name, be there a link or not."""
    if leaves(name):
        raise HTTPException(400, printable(f"Invalid tar member: {name} is outside"))
    path = folder / os.path.normpath(name)
    return folder if path == folder else inside(root, path.parent) / path.name


def leaves(name: str) -> bool:
    return os.path.isabs(name) or os.path.normpath(name).split(os.sep)[0] == os.pardir


def extract(tar: tarfile.TarFile, member: tarfile.TarInfo, folder: Path, root: Path) -> None:
    # The time is that of the extraction: kernels see by it that a module has changed.
    path = place(member.name, folder, root)
    if member.isdir():
        path.mkdir(parents=True, exist_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if member.issym():
        inside(root, path.parent / member.linkname)
        temporary = temporary_beside(path)
        try:
            temporary.symlink_to(member.linkname)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        return
    with content(tar, member, folder, root) as source, replacing(path, member.mode & 0o755 | 0o600) as file:
        shutil.copyfileobj(source, file, CHUNK)


def content(tar: tarfile.TarFile, member: tarfile.TarInfo, folder: Path, root: Path) -> IO[bytes]:
    if member.islnk():
        original = place(member.linkname, folder, root)
        if original.is_symlink() or not original.is_file():
            raise HTTPException(400, printable(f"Invalid tar member: {member.name} links to nothing"))
        return original.open("rb")
    source = tar.extractfile(member)
    assert source is not None
    return source


async def short_lived(
    command: list[str], arguments: list[str], folder: Path, limit: float, text: str = ""
) -> dict[str, Any]:
    """Run `COMMAND FD ARGUMENT...` and return the JSON object that it writes to the file descriptor.

    The whole process group is ended when the process ends, or after the limit.
    """
    with tempfile.TemporaryFile() as answer:
        process = await asyncio.create_subprocess_exec(
            *command,
            str(answer.fileno()),
            *arguments,
            cwd=folder,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            pass_fds=[answer.fileno()],
            start_new_session=True,
        )
        try:
            await asyncio.wait_for(process.communicate(text.encode()), limit)
        except asyncio.TimeoutError:
            raise HTTPException(504, f"No answer within {limit:g} s") from None
        finally:
            await end(process)
        answer.seek(0)
        try:
            result = json.loads(answer.read())
        except ValueError:
            result = None
    if isinstance(result, dict):
        return result
    return {"error": f"the process ended with status {process.returncode} and no answer"}


async def end(process: asyncio.subprocess.Process) -> None:
    """End a process and what is left of its group, which gets a moment to end its own processes."""
    with contextlib.suppress(ProcessLookupError):
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGTERM)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(process.wait(), 8)
        os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


def printable(text: str) -> str:
    """Text that can be sent as UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode()
