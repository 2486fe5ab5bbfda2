"""Source texts of Python modules, for clients that show them to a model.

    modinfo.py FD NAME...

As a script, it imports the modules of a kernel's path and writes `{NAME: {"source": TEXT} | {"error": TEXT}}`
as JSON to the file descriptor FD; what the imports print does not matter.
"""

import os
import sys

if __name__ == "__main__":
    # Now, so that no folder of the working directory takes its place.
    import ipybox  # noqa: F401

    # No module beside this script; the working directory in front, as in a kernel.
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [os.getcwd(), *(path for path in sys.path if os.path.abspath(path) != here)]

import importlib
import inspect
import json
import traceback
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import NoReturn


@dataclass
class ModuleInfo:
    name: str
    relpath: PurePosixPath
    """Of its file, below the folder that its top-level module was found in."""
    source: str


def get_module_info(name: str) -> ModuleInfo:
    """Import a module; its source is empty when it has none, as a compiled one."""
    module = importlib.import_module(name)
    try:
        source = inspect.getsource(module)
    except (OSError, TypeError):
        source = ""
    path = PurePosixPath(*name.split("."))
    relpath = path / "__init__.py" if hasattr(module, "__path__") else path.with_suffix(".py")
    # Of an empty file, Python 3.13 and later return a line end.
    return ModuleInfo(name, relpath, source if source.strip() else "")


def print_module_sources(names: Iterable[str]) -> None:
    """Print the modules as Markdown. Kernels of ipybox 0.3 clients call this."""
    modules = [get_module_info(name) for name in names]
    print("\n\n".join(f"```python\n# Module: {module.name}\n\n{module.source}\n```" for module in modules))


def look_up(name: str) -> dict[str, str]:
    try:
        return {"source": get_module_info(name).source}
    except BaseException as error:  # SystemExit of an imported module included
        return {"error": "".join(traceback.format_exception_only(type(error), error)).strip()}


def main(arguments: list[str]) -> NoReturn:
    descriptor = int(arguments[0])
    os.set_inheritable(descriptor, False)
    answer = {name: look_up(name) for name in arguments[1:]}
    with open(descriptor, "w", encoding="utf-8") as file:
        json.dump(answer, file)
    os._exit(0)  # no exit handler, no waiting for a thread of an imported module


if __name__ == "__main__":
    main(sys.argv[1:])
