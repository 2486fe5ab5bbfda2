"""Prove an image with langchain-docker-backend 1.1.0: one line per check, exit status 0 if all passed.

    with_langchain_docker_backend.py IMAGE_TAG

Runs where langchain-docker-backend==1.1.0 is installed. Its sandbox works in `/workspace`.

Not run, because it needs an image of root: editing, since this client puts files there by the engine's archive
call, and they belong to root.
"""

from collections.abc import Iterator

from langchain_docker_backend import DockerSandbox

from agent import Check, limit, prove
from backend import LABEL, SHARED, Trial, answers_after_timeout, checks, closes_soon
from proof import TOKEN


def passes(tag: str) -> Iterator[tuple[str, Check]]:
    with limit(60):
        sandbox = DockerSandbox(tag, network_mode="none", container_kwargs={"labels": {LABEL: TOKEN}})
    trial = Trial(sandbox, root="/workspace", limit=500 * 1024)
    yield from checks(trial, [*SHARED, answers_after_timeout, closes_soon])


if __name__ == "__main__":
    prove(passes)
