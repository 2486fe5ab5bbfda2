"""Start an IPython kernel that loses no output and skips no cell.

Run as a script by the interpreter of /opt/venv, so that it works whatever is installed there.
"""

import os
import sys
from typing import Any

# No module beside this script; IPython puts the working directory in front instead.
sys.path[:] = [path for path in sys.path if path != os.path.dirname(os.path.abspath(__file__))]

from ipykernel.ipkernel import IPythonKernel  # noqa: E402
from ipykernel.kernelapp import IPKernelApp  # noqa: E402
from traitlets import Float  # noqa: E402


class Kernel(IPythonKernel):
    # Clients stop reading at the reply to a cell, and its output travels on another channel: without
    # a pause before the reply some of it is overtaken and lost.
    _execute_sleep = Float(0.03).tag(config=True)

    async def execute_request(self, stream: Any, ident: Any, parent: dict[str, Any]) -> None:
        # A client that leaves at a cell's error message and sends the next cell at once would see
        # that cell cancelled together with those that were waiting.
        parent["content"]["stop_on_error"] = False
        await super().execute_request(stream, ident, parent)


if __name__ == "__main__":
    IPKernelApp.launch_instance(kernel_class=Kernel)
