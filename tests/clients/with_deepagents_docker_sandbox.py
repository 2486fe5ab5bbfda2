"""Prove an image with deepagents-docker-sandbox 0.0.1: one line per check, exit status 0 if all passed.

    with_deepagents_docker_sandbox.py IMAGE_TAG

Runs where deepagents-docker-sandbox==0.0.1 is installed. This client puts a server of its own into the container
and talks to it through a port of the host, so its containers are not without network.
"""

from collections.abc import Iterator
from typing import Any

from deepagents_docker_sandbox import DockerSandbox
from docker import DockerClient
from docker.models.containers import Container, ContainerCollection

from agent import Check, limit, prove
from backend import LABEL, SHARED, Trial, answers_after_timeout, checks, closes_soon, edits, output
from proof import TOKEN, equal


class LabelledContainers(ContainerCollection):  # type: ignore[misc]
    def create(self, image: str, command: Any = None, **options: Any) -> Container:
        labels = {**options.pop("labels", {}), LABEL: TOKEN}
        return super().create(image, command, labels=labels, **options)


class LabellingClient(DockerClient):  # type: ignore[misc]
    """A connection that can be given to the sandbox, which has no option for labels."""

    @property
    def containers(self) -> LabelledContainers:
        return LabelledContainers(client=self)


def has_no_capabilities(trial: Trial) -> None:
    equal(output(trial, "grep CapBnd /proc/self/status | cut -f 2"), "0" * 16)


def passes(tag: str) -> Iterator[tuple[str, Check]]:
    with limit(60):
        sandbox = DockerSandbox.create(image=tag, client=LabellingClient.from_env())
    trial = Trial(sandbox, root=sandbox.execute("pwd").output.strip(), limit=None)
    own = [edits, has_no_capabilities, answers_after_timeout, closes_soon]
    yield from checks(trial, [*SHARED, *own])


if __name__ == "__main__":
    prove(passes)
