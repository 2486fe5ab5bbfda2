"""Prove an image with langchain-docker 0.1.0: one line per check, exit status 0 if all passed.

    with_langchain_docker.py IMAGE_TAG

Runs where langchain-docker==0.1.0 is installed, with a Python of 3.13 or newer. Its containers run the image's own
command.

Not run, because it needs an image of root: editing, since this client puts files there by the engine's archive
call, and they belong to root.
"""

import logging
from collections.abc import Iterator

from langchain_dockersandbox import DockerSandbox

from agent import Check, limit, prove
from backend import LABEL, SHARED, Trial, checks, closes_soon, ends_at_timeout, output
from proof import TOKEN, contains, equal

LIMIT = 1_000_000


def saves_long_output(trial: Trial) -> None:
    said = trial.sandbox.execute(f"python -c \"print('x' * {LIMIT})\"").output
    contains(said, "Full output saved to ")
    path = said.rpartition("Full output saved to ")[2].partition(". ")[0]
    equal(output(trial, f"wc -c < {path}"), str(LIMIT + 1))


def opens_again_after_timeout(trial: Trial) -> None:
    """This client kills the container, leaves it, and makes another."""
    assert isinstance(trial.sandbox, DockerSandbox)
    trial.sandbox.open()
    ends_at_timeout(trial)
    trial.sandbox.open()
    equal(output(trial, "echo alive"), "alive")


def passes(tag: str) -> Iterator[tuple[str, Check]]:
    logging.getLogger("langchain_dockersandbox").setLevel(logging.ERROR)
    options = {"labels": {LABEL: TOKEN}, "network_mode": "none"}
    with limit(60):
        sandbox = DockerSandbox(image=tag, keep_template=True, runtime_configs=options, max_output_bytes=LIMIT)
        sandbox.open()
    trial = Trial(sandbox, root=sandbox.execute("pwd").output.strip(), limit=LIMIT)
    yield from checks(trial, [*SHARED, saves_long_output, closes_soon, opens_again_after_timeout])


if __name__ == "__main__":
    prove(passes)
