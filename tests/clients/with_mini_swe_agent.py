"""Prove an image with the Docker environment of mini-swe-agent 2.4.6: one line per check, exit status 0 if all passed.

    with_mini_swe_agent.py IMAGE_TAG

Runs where mini-swe-agent==2.4.6 is installed. The agent itself runs too, with answers that are given instead of
a model's.
"""

import logging
import os
import time
from collections.abc import Iterator
from functools import partial

os.environ["MSWEA_SILENT_STARTUP"] = "1"
os.environ["MSWEA_GLOBAL_CONFIG_DIR"] = os.path.dirname(__file__)  # it would make a folder in the home

from minisweagent.agents.default import DefaultAgent
from minisweagent.environments.docker import DockerEnvironment
from minisweagent.models.test_models import DeterministicModel, make_output

from agent import Check, prove
from proof import TOKEN, below, containers, contains, equal

IMPORTS = "import numpy, pandas; print(pandas.Series(numpy.arange(4)).sum())"

STOP_SOON = ["--stop-timeout", "1"]
"""`sleep` heeds no signal, so that the client would wait ten seconds for its end."""

EDIT = """cat > program.py <<'END'
import pandas
print(len(pandas.DataFrame({"a": [1, 2]})))
END
sed -i 's/1, 2/1, 2, 3/' program.py"""

SUBMIT = "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT && cat answer.txt"


def environment(tag: str, cwd: str = "/app") -> DockerEnvironment:
    arguments = ["--rm", "--network", "none", "--label", f"ipybox.client-trial={TOKEN}", *STOP_SOON]
    quiet = logging.getLogger("client")
    return DockerEnvironment(logger=quiet, image=tag, cwd=cwd, env={"GIVEN": "by the caller"}, run_args=arguments)


def output(one: DockerEnvironment, command: str, cwd: str = "") -> str:
    """What a command that succeeds prints."""
    result = one.execute({"command": command}, cwd)
    equal((result["returncode"], result["exception_info"]), (0, ""))
    return str(result["output"]).strip()


def exit_codes_and_output(one: DockerEnvironment) -> None:
    result = one.execute({"command": "echo out; echo error >&2; exit 7"})
    equal((sorted(result["output"].split()), result["returncode"]), (["error", "out"], 7))
    equal(output(one, "pwd; echo $GIVEN"), "/app\nby the caller")
    equal(output(one, "pwd", "/tmp"), "/tmp")


def python_in_a_login_shell(one: DockerEnvironment) -> None:
    for name in ["python", "python3"]:
        equal(output(one, f"{name} -c '{IMPORTS}'"), "6")
    contains(output(one, "pip --version"), "pip ")


def default_folder(tag: str) -> None:
    """It cannot be written to, but programs run there."""
    one = environment(tag, "/")
    equal(output(one, f"pwd && python -c '{IMPORTS}'"), "/\n6")


def files(one: DockerEnvironment) -> None:
    output(one, EDIT)
    equal(output(one, "python program.py"), "3")
    output(one, "mkdir -p folder && cp program.py folder && rm program.py")
    equal(output(one, "ls; cat folder/program.py | wc -l; grep -rl pandas folder"), "folder\n2\nfolder/program.py")


def long_output(one: DockerEnvironment) -> None:
    equal(len(output(one, "python -c \"print('x' * 5_000_000)\"")), 5_000_000)
    equal(len(output(one, "seq 100000").split()), 100_000)


def timeout(one: DockerEnvironment) -> None:
    start = time.monotonic()
    result = one.execute({"command": "echo before; sleep 60"}, timeout=2)
    below(time.monotonic() - start, 5)
    equal((result["output"], result["returncode"]), ("before\n", -1))
    contains(result["exception_info"], "timed out after 2 seconds")
    equal(output(one, "echo after"), "after")


def agent_submits(one: DockerEnvironment) -> None:
    commands = [EDIT, "python program.py > answer.txt", "false", SUBMIT]
    outputs = [make_output("Next.", [{"command": command}], 0.0) for command in commands]
    agent = DefaultAgent(
        DeterministicModel(outputs=outputs, cost_per_call=0.0),
        one,
        system_template="You work on {{system}}.",
        instance_template="{{task}}",
    )
    result = agent.run("Count the rows.")
    equal((result["exit_status"], result["submission"].strip()), ("Submitted", "3"))
    observations = [message["content"] for message in agent.messages if message["role"] == "user"]
    contains(observations[-1], "<returncode>1</returncode>")


def container_is_gone_after_cleanup(one: DockerEnvironment) -> None:
    one.cleanup()
    while one.container_id in containers():
        time.sleep(0.1)
    one.container_id = None


SHARED = [
    exit_codes_and_output,
    python_in_a_login_shell,
    files,
    long_output,
    timeout,
    agent_submits,
    container_is_gone_after_cleanup,
]


def passes(tag: str) -> Iterator[tuple[str, Check]]:
    one = environment(tag)
    for shared in SHARED:
        yield shared.__name__, partial(shared, one)
    yield default_folder.__name__, partial(default_folder, tag)


if __name__ == "__main__":
    prove(passes)
