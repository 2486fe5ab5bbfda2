"""Compiles modules so that equal modules become equal bytecode.

What Python writes depends in a few bits on what its process has compiled before. Here the modules of a folder are
compiled in the order of their names by a process of their own, wherever and beside whatever they are compiled.

`frames` reads a path and its source, each after its length, one module after the other and ordered by their folders,
and an empty path at the end of a wheel; it answers in the same order with bytecode, or with a length that says that a
source is none of this Python. `files` reads paths, one a line, and writes bytecode beside them.
"""

from __future__ import annotations

import sys

sys.path[:] = [path for path in sys.path if path]

import importlib.util
import os
import struct
import warnings
from importlib import _bootstrap_external as external
from importlib.machinery import SourceFileLoader
from itertools import groupby
from typing import BinaryIO

NOT_PYTHON = 0xFFFFFFFF


def read(source: BinaryIO) -> bytes | None:
    """The next frame; none at the end."""
    length = source.read(4)
    return source.read(struct.unpack(">I", length)[0]) if len(length) == 4 else None


def unit(path: str) -> str:
    """What is compiled together: a folder, or one module where distributions share the folder."""
    folder = os.path.dirname(path)
    return path if folder.endswith("-packages") else folder


def bytecode(path: str, source: bytes) -> bytes | None:
    """What an import of the module would keep, to be taken without a look at its source."""
    loader = SourceFileLoader("<module>", path)
    try:
        code = loader.source_to_code(source, path)
    except Exception:  # some tests and templates are no Python of this version, or none at all
        return None
    return bytes(external._code_to_hash_pyc(code, importlib.util.source_hash(source), False))


def answer(modules: list[tuple[str, bytes]], out: BinaryIO) -> None:
    for path, source in modules:
        code = bytecode(path, source)
        out.write(struct.pack(">I", NOT_PYTHON if code is None else len(code)))
        out.write(code or b"")
    out.flush()


def frames() -> int:
    modules: list[tuple[str, bytes]] = []
    while (path := read(sys.stdin.buffer)) is not None:
        if path:
            modules.append((path.decode(), read(sys.stdin.buffer) or b""))
            continue
        for _, together in groupby(modules, lambda module: unit(module[0])):
            child = os.fork()
            if child == 0:
                answer(list(together), sys.stdout.buffer)
                os._exit(0)
            if os.waitpid(child, 0)[1] != 0:
                return 1
        modules = []
    return 0


def write(paths: list[str]) -> None:
    for path in paths:
        with open(path, "rb") as file:
            source, mode = file.read(), os.fstat(file.fileno()).st_mode
        code = bytecode(path, source)
        if code is not None:
            place = importlib.util.cache_from_source(path)
            os.makedirs(os.path.dirname(place), exist_ok=True)
            with os.fdopen(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode & 0o666 | 0o200), "wb") as out:
                out.write(code)


def files() -> int:
    paths = {os.fsdecode(line.rstrip(b"\n")) for line in sys.stdin.buffer}
    idle, status = len(os.sched_getaffinity(0)), 0
    for _, together in groupby(sorted(paths, key=lambda path: (unit(path), path)), unit):
        if idle == 0:
            status |= os.wait()[1]
            idle += 1
        if os.fork() == 0:
            write(list(together))
            os._exit(0)
        idle -= 1
    try:
        while True:
            status |= os.wait()[1]
    except ChildProcessError:
        return int(status != 0)


def main() -> int:
    warnings.simplefilter("ignore")
    sys.setrecursionlimit(10_000)
    return files() if sys.argv[1] == "files" else frames()


if __name__ == "__main__":
    sys.exit(main())
