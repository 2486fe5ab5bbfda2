"""smolagents' code in containers: `CodeAgent(tools, model, executor=SandboxExecutor("agents"))`."""

import json
import os
import secrets
import weakref
from collections.abc import Sequence
from contextlib import closing, suppress
from typing import Any

from smolagents.local_python_executor import CodeOutput
from smolagents.monitoring import AgentLogger, LogLevel
from smolagents.remote_executors import (
    RemotePythonExecutor,
    _create_kernel_http,
    _websocket_run_code_raise_errors,
)
from websocket import create_connection

from ipybox.program import Call, SandboxError, options, run, succeeded
from ipybox.sandbox import FilePath, Sandbox

ANSWERS = "numpy\npillow\n"
"""What the code that smolagents sends for final answers imports, whatever the answer is."""

MISSING = """
def missing(names):
    from importlib import metadata, util
    for name in names:
        try:
            if not util.find_spec(name):
                metadata.version(name)
        except (ImportError, ValueError):
            yield name
"""


class SandboxExecutor(RemotePythonExecutor):
    """Runs the code of one agent in a container of its own, which `cleanup` removes, or else the end of this process.

    `settings` are further ones of `Sandbox`, such as `memory` or `mount`. Values travel as JSON, never as pickles.
    """

    @classmethod
    def setup(
        cls,
        image: str,
        dependencies: FilePath | Sequence[FilePath] = (),
        *,
        variant: str = "kernel",
        base: str | None = None,
        further: Sequence[str] = (),
    ) -> str:
        """Build the image, once for all executors, unless it is fresh; its name.

        `further` are options of `ipybox build` as they are typed.
        """
        files = [dependencies] if isinstance(dependencies, str | os.PathLike) else dependencies
        chosen = options(tag=image, dependencies=[*files, "-"], variant=variant, base=base, progress="quiet")
        run(Call(["build", *chosen, *further], succeeded, ANSWERS.encode()))
        return image

    def __init__(
        self,
        image: str,
        *,
        project: str = "smolagents",
        additional_imports: Sequence[str] = (),
        logger: AgentLogger | None = None,
        **settings: Any,
    ):
        super().__init__(list(additional_imports), logger or AgentLogger(level=LogLevel.OFF))
        self.sandbox = Sandbox(project, secrets.token_hex(8), image=image, **settings)
        self._remove = weakref.finalize(self, self.sandbox.down, volumes=True)
        try:
            up = self.sandbox.up()
            if up.address is None:
                raise SandboxError(f"no kernel gateway is within reach in a container of `{image}`")
            kernels = f"{up.address}/api/kernels"
            self.kernel_id = _create_kernel_http(f"{kernels}?token={up.token}", self.logger)
            channels = f"{kernels}/{self.kernel_id}/channels?token={up.token}"
            self.ws_url = channels.replace("http", "ws", 1)
            self.installed_packages = self.install_packages(self.additional_imports)
        except BaseException:
            with suppress(SandboxError):
                self.cleanup()
            raise

    def run_code_raise_errors(self, code: str) -> CodeOutput:
        with closing(create_connection(self.ws_url)) as socket:
            return _websocket_run_code_raise_errors(code, socket, self.logger, self.allow_pickle)

    def install_packages(self, additional_imports: list[str]) -> list[str]:
        """Only what the image does not have: an index may not be within reach."""
        code = f"{MISSING}import json\nprint(json.dumps(list(missing({additional_imports!r}))))"
        super().install_packages(json.loads(self.run_code_raise_errors(code).logs))
        return additional_imports

    def cleanup(self) -> None:
        self._remove()

    def delete(self) -> None:
        self.cleanup()
