"""Prove an image with deepagents-docker 0.1.2: one line per check, exit status 0 if all passed.

    with_deepagents_docker.py IMAGE_TAG

Runs where deepagents-docker==0.1.2 is installed, with a Python of 3.12 or newer. This client's file tools work
on a folder of the host, which has to belong to the user of the image.
"""

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator

from deepagents_docker import DockerSandbox

from agent import Check, limit, prove
from backend import LABEL, SHARED, Trial, answers_after_timeout, checks, closes_soon, edits, output
from proof import TOKEN, equal


def image_user(tag: str) -> tuple[int, int]:
    command = ["docker", "image", "inspect", "--format", "{{.Config.User}}", tag]
    uid, gid = (subprocess.check_output(command, text=True).strip() or "0:0").split(":")
    return int(uid), int(gid)


def ends_timed_out_commands(trial: Trial) -> None:
    trial.sandbox.execute("sleep 4; touch late", timeout=1)
    time.sleep(5)
    equal(output(trial, "test -e late || echo none"), "none")


def has_no_network(trial: Trial) -> None:
    equal(output(trial, "ls /sys/class/net"), "lo")


def passes(tag: str) -> Iterator[tuple[str, Check]]:
    options = ["--label", f"{LABEL}={TOKEN}"]
    with tempfile.TemporaryDirectory() as folder:
        os.chown(folder, *image_user(tag))
        with limit(60):
            sandbox = DockerSandbox(
                image=tag, allow_outbound_traffic=False, shared_dir=folder, extra_run_args=options
            )
        own = [edits, has_no_network, answers_after_timeout, ends_timed_out_commands, closes_soon]
        yield from checks(Trial(sandbox, root="", limit=100_000), [*SHARED, *own])


if __name__ == "__main__":
    prove(passes)
