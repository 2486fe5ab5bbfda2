"""Prove an image with the Docker environment of harbor 0.25.0: one line per check, exit status 0 if all passed.

    with_harbor.py IMAGE_TAG

Runs where harbor==0.25.0 is installed, with Docker Compose 2 as a plug-in of the docker command, without a
model: its `oracle` agent, which plays a task's own solution, stands for the others.

Not run: agents that are installed from web sites; changes to a task's own files, which the client gives to
root, so that only the user of a root image can make them.
"""

import contextlib
import json
import os
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

from proof import TOKEN, below, contains, containers, equal, prove

os.environ["HARBOR_TELEMETRY"] = "0"

from harbor.environments.docker.docker import DockerEnvironment
from harbor.models.task.config import EnvironmentConfig
from harbor.models.trial.config import AgentConfig, TaskConfig, TrialConfig
from harbor.models.trial.config import EnvironmentConfig as TrialEnvironmentConfig
from harbor.models.trial.paths import TrialPaths
from harbor.models.trial.result import TrialResult
from harbor.trial.trial import Trial

CODE = "import numpy, pandas; print(pandas.DataFrame({'a': [1, 2, 3]}).a.sum() * 7)"

TASK = """
[environment]
docker_image = "{tag}"
"""

SOLVE = f"""#!/bin/bash
set -e
cut -d, -f2 given.csv | tail -n 1
mkdir answers
python -c "{CODE}" >answers/answer.txt
cp answers/answer.txt /logs/artifacts
"""

TEST = """#!/bin/bash
if [ "$(cat answers/answer.txt)" = 42 ]; then echo 1; else echo 0; fi >/logs/verifier/reward.txt
"""


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def without_network(here: Path) -> Path:
    overlay = here / "overlay.json"
    overlay.write_text(json.dumps({"services": {"main": {"network_mode": "none", "stop_grace_period": "1s"}}}))
    return overlay


@contextlib.asynccontextmanager
async def started(tag: str) -> AsyncIterator[DockerEnvironment]:
    with folder() as here:
        (here / "environment").mkdir()
        (here / "environment" / "given.csv").write_text("a,b\n1,2\n")
        trial_paths = TrialPaths(here / "trial")
        trial_paths.mkdir()
        trial_paths.host_artifact_path("main", "/logs/artifacts").mkdir(parents=True)
        environment = DockerEnvironment(
            environment_dir=here / "environment",
            environment_name="trial",
            session_id=f"trial-{TOKEN}__env",
            trial_paths=trial_paths,
            task_env_config=EnvironmentConfig(docker_image=tag),
            extra_docker_compose=[without_network(here)],
            persistent_env={"GIVEN": "for all"},
            auto_mounting=True,
        )
        try:
            await environment.start(force_build=False)
            yield environment
        finally:
            await environment.stop(delete=True)


async def output(environment: DockerEnvironment, command: str, user: str | None = None) -> str:
    result = await environment.exec(command, user=user)
    if result.return_code:
        raise AssertionError(f"{result.return_code} from {command!r}: {result.stdout!r:.200}")
    return (result.stdout or "").strip()


async def answers(environment: DockerEnvironment) -> None:
    equal(await output(environment, "echo ü"), "ü")


async def commands(environment: DockerEnvironment) -> None:
    for python in ["python", "python3"]:
        equal(await output(environment, f'{python} -c "{CODE}"'), "42")
    equal(await output(environment, "[[ $(pwd) = /app ]] && echo $GIVEN"), "for all")
    result = await environment.exec("pwd; echo $OWN; exit 3", cwd="/tmp", env={"OWN": "for one"})
    equal((result.return_code, result.stdout), (3, "/tmp\nfor one\n"))


async def login_shells(environment: DockerEnvironment) -> None:
    for shell in ["sh -lc", "bash -lc", "bash -lic"]:
        contains(await output(environment, f"{shell} 'python -c \"import pandas; print(6 * 7)\"'"), "42")


async def users(environment: DockerEnvironment) -> None:
    own = await output(environment, "id -u")
    equal(await output(environment, "id -u", user="root"), "0")
    equal(await output(environment, "id -u", user=own), own)
    equal(await output(environment, f'python -c "{CODE}"', user="root"), "42")


async def folders_are_writable(environment: DockerEnvironment) -> None:
    for path in [".", "~", "/app", "/workspace", "/tmp", "/logs/agent", "/logs/verifier", "/logs/artifacts"]:
        await output(environment, f"mkdir {path}/made && touch {path}/made/file && rm -r {path}/made")


async def files_of_the_task(environment: DockerEnvironment) -> None:
    equal(await output(environment, "cat given.csv"), "a,b\n1,2")


async def files(environment: DockerEnvironment) -> None:
    with folder() as here:
        content = bytes(range(256)) * 8_000
        (here / "sent" / "below").mkdir(parents=True)
        (here / "sent" / "below" / "bytes").write_bytes(content)
        (here / "one.txt").write_text("ü")
        await environment.upload_file(here / "one.txt", "/app/one.txt")
        await environment.upload_dir(here / "sent", "/app/sent")
        equal(await output(environment, "cat one.txt"), "ü")
        await output(environment, "cp -r sent copy && echo more >>copy/more.txt")
        await environment.download_dir("/app/copy", here / "copy")
        equal((here / "copy" / "below" / "bytes").read_bytes() == content, True)
        await environment.download_file("/app/copy/more.txt", here / "more.txt")
        equal((here / "more.txt").read_text(), "more\n")


async def logs_are_on_the_host(environment: DockerEnvironment) -> None:
    await output(environment, "echo line >/logs/agent/log.txt && chmod 600 /logs/agent/log.txt")
    await environment.prepare_logs_for_host()
    log = environment.trial_paths.agent_dir / "log.txt"
    equal((log.read_text(), log.stat().st_uid), ("line\n", os.getuid()))


async def timeout(environment: DockerEnvironment) -> None:
    start = time.monotonic()
    try:
        await environment.exec("echo begun; sleep 20", timeout_sec=1)
    except RuntimeError as error:
        contains(str(error), "timed out")
    else:
        raise AssertionError("no error")
    below(time.monotonic() - start, 10)
    equal(await output(environment, "echo goes on"), "goes on")


async def long_output(environment: DockerEnvironment) -> None:
    equal(len(await output(environment, "python -c \"print('x' * 3_000_000)\"")), 3_000_000)


async def solved(tag: str, here: Path, solution: str) -> TrialResult:
    task = here / "task"
    for path, text in [
        ("task.toml", TASK.format(tag=tag)),
        ("instruction.md", "Compute."),
        ("environment/given.csv", "a,b\n1,2\n"),
        ("solution/solve.sh", solution),
        ("tests/test.sh", TEST),
    ]:
        (task / path).parent.mkdir(parents=True, exist_ok=True)
        (task / path).write_text(text)
    config = TrialConfig(
        task=TaskConfig(path=task),
        trial_name=f"trial-{TOKEN}",
        trials_dir=here / "trials",
        agent=AgentConfig(name="oracle"),
        environment=TrialEnvironmentConfig(extra_docker_compose=[without_network(here)]),
    )
    return await (await Trial.create(config)).run()


async def trial_that_is_solved(tag: str) -> None:
    with folder() as here:
        result = await solved(tag, here, SOLVE)
        equal(result.exception_info and result.exception_info.exception_message, None)
        equal(result.verifier_result and result.verifier_result.rewards, {"reward": 1.0})
        trial = here / "trials" / f"trial-{TOKEN}"
        equal((trial / "agent" / "oracle.txt").read_text(), "2\n")
        equal((trial / "artifacts" / "logs" / "artifacts" / "answer.txt").read_text(), "42\n")


async def trial_that_is_not_solved(tag: str) -> None:
    with folder() as here:
        result = await solved(tag, here, SOLVE.replace("7", "8"))
        equal(result.verifier_result and result.verifier_result.rewards, {"reward": 0.0})


async def no_container_is_left(_tag: str) -> None:
    equal(containers(), [])


SHARED: list[Callable[[DockerEnvironment], Awaitable[None]]] = [
    commands,
    login_shells,
    users,
    folders_are_writable,
    files_of_the_task,
    files,
    logs_are_on_the_host,
    timeout,
    long_output,
]

OWN: list[Callable[[str], Awaitable[None]]] = [
    trial_that_is_solved,
    trial_that_is_not_solved,
    no_container_is_left,
]


if __name__ == "__main__":
    prove(started, answers, SHARED, OWN)
