"""Images and sandboxes for the tests; nothing of them is left in the engine."""

import os
import secrets
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ipybox import Sandbox
from ipybox.program import Call, options, run, succeeded

Program = Callable[[str], None]

# A shell that starts the tests in the background lets them ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)


def program(*arguments: str) -> None:
    run(Call(arguments, succeeded))


@contextmanager
def new_tag() -> Iterator[str]:
    """A name for an image, which is removed at the end."""
    tag = f"ipybox-pytest-{secrets.token_hex(4)}"
    yield tag
    subprocess.run(["docker", "rmi", tag], check=True, stdout=subprocess.DEVNULL)


@pytest.fixture
def pretend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    """Puts a shell script in place of the program."""

    def write(script: str) -> None:
        path = tmp_path / "pretended"
        path.write_text(f"#!/bin/sh\n{script}")
        path.chmod(0o755)
        monkeypatch.setenv("IPYBOX_BINARY", str(path))

    return write


@pytest.fixture
def tag() -> Iterator[str]:
    with new_tag() as tag:
        yield tag


@pytest.fixture(scope="session")
def image() -> Iterator[str]:
    base = os.environ.get("IPYBOX_TEST_BASE")
    with new_tag() as tag:
        program("build", *options(base=base, variant="minimal", tag=tag, progress="quiet"))
        yield tag


@pytest.fixture(scope="module")
def project() -> Iterator[str]:
    name = f"pytest-{secrets.token_hex(4)}"
    yield name
    program("sandbox", "down", *options(project=name, volumes=True))


@pytest.fixture(scope="module")
def box(image: str, project: str) -> Sandbox:
    """One that is up."""
    box = Sandbox(project, "ann", image=image)
    box.up()
    return box
