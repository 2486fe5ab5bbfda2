"""The containers of `ipybox sandbox`, for programs that wait for them and for those that do not block."""

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

from ipybox.program import Call, Ended, SandboxError, answered, options, run, run_async, succeeded

FilePath = str | os.PathLike[str]
Env = Mapping[str, str | None]
"""Variables; without a value, each is that of this process."""


class Address(NamedTuple):
    host: str
    port: int


@dataclass(frozen=True)
class Up:
    """A sandbox that is ready."""

    name: str
    """Of its container."""
    id: str
    image: str
    image_id: str
    outcome: str
    """What was done to have it: `running`, `started`, `created` or `replaced`."""
    why: list[str]
    """What is otherwise than in the container it replaced."""
    workdir: str
    address: str | None
    """Of the server of the image, if it has one: `http://HOST:PORT`."""
    ports: Mapping[int, Address]
    """Where ports of the container are reached."""
    token: str | None = field(repr=False)
    """What the server wants to be shown."""


@dataclass(frozen=True)
class Result:
    """What came of a command."""

    exit_code: int
    """That of the command; 124 where its time was over."""
    stdout: str
    """What is not UTF-8 is replaced."""
    stderr: str
    timed_out: bool
    truncated: bool
    """Whether it printed more than is told here."""
    seconds: float


class _Sandbox:
    """What both kinds are made with, and what they ask of the program."""

    def __init__(
        self,
        project: str,
        user: str,
        *,
        image: str | None = None,
        dependencies: FilePath | Sequence[FilePath] | None = None,
        variant: str | None = None,
        base: str | None = None,
        dockerfile: FilePath | None = None,
        mount: FilePath | Mapping[str, str] | None = None,
        mount_at: str | None = None,
        volumes: Sequence[str] = (),
        env: Env | None = None,
        memory: str | None = None,
        cpus: float | None = None,
        pids: int | None = None,
        read_only: bool = False,
        network: str | None = None,
        allow_domains: Sequence[str] = (),
        runtime: str | None = None,
        ports: Sequence[int] = (),
        token: bool = True,
        wait: float | None = None,
        command: Sequence[str] = (),
        further: Sequence[str] = (),
    ):
        """Whose sandbox it is, and how it is made: each is the option of the same name of `ipybox sandbox up`.

        `mount` is a folder, or several with their places; `command` is run in place of the image's; `further` are options as they are typed.
        """
        self.project = project
        self.user = user
        self._owner = options(project=project, user=user)
        self._settings = options(
            tag=image,
            dependencies=dependencies,
            variant=variant,
            base=base,
            file=dockerfile,
            mount=[f"{folder}:{place}" for folder, place in mount.items()] if isinstance(mount, Mapping) else mount,
            mount_at=mount_at,
            volume=volumes,
            env=env,
            memory=memory,
            cpus=cpus,
            pids=pids,
            read_only=read_only,
            network=network,
            allow_domain=allow_domains,
            runtime=runtime,
            port=ports,
            no_token=not token,
            wait=wait,
        ) + list(further)
        self._command = ["--", *command] if command else []

    def _up(self) -> Call[Up]:
        return Call(["sandbox", "up", *self._owner, *self._settings, "--json", *self._command], up)

    def _exec(
        self,
        command: tuple[str | Sequence[str], ...],
        timeout: float | None,
        cwd: str | None,
        env: Env | None,
        stdin: str | bytes | None,
    ) -> Call[Result]:
        words = [word for part in command for word in ([part] if isinstance(part, str) else part)]
        settings = options(workdir=cwd, timeout=timeout, env=env, interactive=stdin is not None)
        text = stdin.encode() if isinstance(stdin, str) else stdin
        return Call(["sandbox", "exec", *self._owner, *settings, "--json", "--", *words], result, text)

    def _stop(self) -> Call[None]:
        return Call(["sandbox", "stop", *self._owner], succeeded)

    def _down(self, volumes: bool) -> Call[None]:
        return Call(["sandbox", "down", *self._owner, *options(volumes=volumes)], succeeded)


class Sandbox(_Sandbox):
    """The container of a user of a project; as a context manager it is up inside, and removed at the end."""

    def up(self) -> Up:
        """Have the container, with these settings; one that runs with others is replaced."""
        return run(self._up())

    def exec(
        self,
        *command: str | Sequence[str],
        timeout: float | None = None,
        cwd: str | None = None,
        env: Env | None = None,
        stdin: str | bytes | None = None,
    ) -> Result:
        """Run a command, given as words or as one sequence of them; no shell reads it.

        When the seconds of `timeout` are over, or this is interrupted, everything that it started is ended.
        """
        return run(self._exec(command, timeout, cwd, env, stdin))

    def stop(self) -> None:
        """Stop the container; `up` starts it again."""
        run(self._stop())

    def down(self, volumes: bool = False) -> None:
        """Remove the container, and what it keeps in volumes if these are meant as well."""
        run(self._down(volumes))

    def __enter__(self) -> "Sandbox":
        try:
            self.up()
        except BaseException:
            with suppress(SandboxError):
                self.down()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        self.down()


class AsyncSandbox(_Sandbox):
    """As `Sandbox`, for programs that do not block; a call that is cancelled ends what it began."""

    async def up(self) -> Up:
        return await run_async(self._up())

    async def exec(
        self,
        *command: str | Sequence[str],
        timeout: float | None = None,
        cwd: str | None = None,
        env: Env | None = None,
        stdin: str | bytes | None = None,
    ) -> Result:
        return await run_async(self._exec(command, timeout, cwd, env, stdin))

    async def stop(self) -> None:
        await run_async(self._stop())

    async def down(self, volumes: bool = False) -> None:
        await run_async(self._down(volumes))

    async def __aenter__(self) -> "AsyncSandbox":
        try:
            await self.up()
        except BaseException:
            with suppress(SandboxError):
                await self.down()
            raise
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.down()


def up(ended: Ended) -> Up:
    answer = answered(ended)
    ports = {int(port): Address(**address) for port, address in answer["ports"].items()}
    return Up(**known(Up, answer | {"ports": ports}))


def result(ended: Ended) -> Result:
    return Result(**known(Result, answered(ended)))


def known(kind: type[Up] | type[Result], answer: Mapping[str, Any]) -> dict[str, Any]:
    """Without what later versions of the program may add."""
    return {one.name: answer[one.name] for one in fields(kind)}
