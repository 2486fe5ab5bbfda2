"""What the server calls inside its kernels.

Calls come as expressions, of which IPython keeps no source, and need no names of the user.
"""

import os
import sys
import warnings
from collections.abc import Callable
from typing import Any

from IPython import get_ipython

from ipybox.executor.output import LIMIT

replaced: dict[str, str | None] = {}
"""Environment variables of the current call, with what they were before it."""

room: dict[str, int] = {}
"""Characters that each stream may still get in the current call."""


def start() -> None:
    """Bound what is under way to the server: a kernel prints faster than anyone reads."""
    session = get_ipython().kernel.session
    send = session.send

    def limited_send(stream: Any, message: Any, content: Any = None, *rest: Any, **named: Any) -> Any:
        if isinstance(message, dict):
            message = {**message, "content": cut(message["content"])}
        return send(stream, message, cut(content), *rest, **named)

    session.send = limited_send
    streams: list[Any] = [sys.stdout, sys.stderr]
    for stream in streams:
        stream.write = limited(stream.name, stream.write)
    warnings.filterwarnings("ignore", "To exit: use 'exit'", UserWarning)


def limited(name: str, write: Callable[[str], int | None]) -> Callable[[str], int | None]:
    def limited_write(text: str) -> int | None:
        if not isinstance(text, str):
            return write(text)
        left = room.get(name, LIMIT + 1)
        room[name] = max(left - len(text), 0)
        if left:
            write(text[:left])
        return len(text)

    return limited_write


def cut(value: Any) -> Any:
    if isinstance(value, str):
        # What cannot be encoded would not arrive at all.
        return value[: LIMIT + 1].encode(errors="backslashreplace").decode()
    if isinstance(value, dict):
        return {name: cut(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [cut(item) for item in value]
    return value


def before(environment: dict[str, str]) -> None:
    """Begin a call."""
    after()
    replaced.update({name: os.environ.get(name) for name in environment})
    os.environ.update(environment)
    try:
        os.getcwd()
    except FileNotFoundError:  # removed, and made anew for this call
        os.chdir(os.environ["WORKSPACE"])


def after() -> None:
    """End a call, or do nothing."""
    room.clear()
    while replaced:
        name, value = replaced.popitem()
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
