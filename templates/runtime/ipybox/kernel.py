"""Start an IPython kernel that skips no cell and does not grow with what it printed.

Run as a script by the interpreter of /opt/venv, so that it works whatever is installed there.
"""

import os
import sys
from typing import Any

# No module beside this script; IPython puts the working directory in front instead.
sys.path[:] = [path for path in sys.path if path != os.path.dirname(os.path.abspath(__file__))]

# Now, so that no folder of the working directory takes its place.
import ipybox  # noqa: E402, F401
from ipykernel.ipkernel import IPythonKernel  # noqa: E402
from ipykernel.kernelapp import IPKernelApp  # noqa: E402


class Forgetful(dict[int, list[Any]]):
    """In place of what IPython 9 keeps of every cell's output for as long as the kernel lives."""

    def __missing__(self, _cell: int) -> list[Any]:
        return []


class Kernel(IPythonKernel):
    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.shell.history_manager.outputs = Forgetful()

    async def execute_request(self, stream: Any, ident: Any, parent: dict[str, Any]) -> None:
        # A client that leaves at a cell's error message and sends the next cell at once would see
        # that cell cancelled together with those that were waiting.
        parent["content"]["stop_on_error"] = False
        await super().execute_request(stream, ident, parent)


if __name__ == "__main__":
    IPKernelApp.launch_instance(kernel_class=Kernel)
