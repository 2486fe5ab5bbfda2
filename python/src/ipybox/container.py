"""Containers for the clients of ipybox 0.6 and freeact, which connect to ports and show no token."""

import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

from ipybox.program import SandboxError
from ipybox.sandbox import AsyncSandbox, Up

TAG = "ghcr.io/gradion-ai/ipybox"
"""What `ipybox build` calls an image that is given no name."""

EXECUTOR, RESOURCES = 8888, 8900
"""Ports of the servers in the container."""


class ExecutionContainer:
    """A container of its own, from the beginning of the context to its end.

    `binds` has folders of this host, which are made where there are none, with their paths below `/app`.
    `settings` are further ones of `Sandbox`, such as `memory`.
    """

    def __init__(
        self,
        tag: str = TAG,
        binds: Mapping[str, str] | None = None,
        env: Mapping[str, str] | None = None,
        **settings: Any,
    ):
        self.tag = tag
        places = {Path(host).resolve(): str(PurePosixPath("/app", place)) for host, place in (binds or {}).items()}
        self._folders = list(places)
        mount = {str(folder): place for folder, place in places.items()}
        user = secrets.token_hex(8)
        self._sandbox = AsyncSandbox("ipybox", user, image=tag, env=env, token=False, mount=mount or None, **settings)
        self._up: Up | None = None

    @property
    def executor_port(self) -> int:
        """Where `ExecutionClient` connects to."""
        return self._port(EXECUTOR)

    @property
    def resource_port(self) -> int:
        """Where `ResourceClient` connects to."""
        return self._port(RESOURCES)

    def _port(self, port: int) -> int:
        if self._up is None:
            raise RuntimeError("the container is not running")
        return self._up.ports[port].port

    async def run(self) -> None:
        for folder in self._folders:
            folder.mkdir(parents=True, exist_ok=True)
        self._up = await self._sandbox.up()

    async def kill(self) -> None:
        self._up = None
        await self._sandbox.down(volumes=True)

    async def __aenter__(self) -> "ExecutionContainer":
        try:
            await self.run()
        except BaseException:
            with suppress(SandboxError):
                await self.kill()
            raise
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.kill()
