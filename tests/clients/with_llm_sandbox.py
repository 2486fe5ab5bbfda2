"""Prove an image with llm-sandbox 0.3.46: one line per check, exit status 0 if all passed.

    with_llm_sandbox.py IMAGE_TAG

Runs where llm-sandbox[docker]==0.3.46 is installed. Unless told otherwise, this client works as root, and in
an environment of its own that it makes from the image's Python, `python -m venv --system-site-packages`.

Its containers have no network. Without an index, pip finds the wheels that are beside the code.
"""

import base64
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import docker
from llm_sandbox import ArtifactSandboxSession, InteractiveSandboxSession, SandboxSession
from llm_sandbox.core.session_base import BaseSession
from llm_sandbox.exceptions import SandboxTimeoutError
from llm_sandbox.pool import PoolConfig, create_pool_manager

from agent import Check, prove
from proof import TOKEN, WRITE_WHEEL, below, containers, contains, equal

LABEL = "ipybox.client-trial"
WORKDIR = "/sandbox"
IMPORTS = "import numpy, pandas; print(pandas.Series(numpy.arange(4)).sum())"
PLOT = """
import matplotlib.pyplot as plt
plt.plot([1, 2, 3], [1, 4, 2])
plt.show()
"""


def options(tag: str, workdir: str = WORKDIR, **more: Any) -> dict[str, Any]:
    return {
        "image": tag,
        "lang": "python",
        "workdir": workdir,
        "runtime_configs": {
            "labels": {LABEL: TOKEN},
            "network_mode": "none",
            "environment": {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": workdir},
            **more,
        },
    }


def output(session: Any, code: str, **more: Any) -> str:
    """What code prints that succeeds, and has nothing to complain about."""
    result = session.run(code, **more)
    equal((result.exit_code, result.stderr), (0, ""))
    return str(result.stdout).strip()


def image_user(tag: str) -> str:
    return str(docker.from_env().images.get(tag).attrs["Config"]["User"])


def code(session: BaseSession) -> None:
    equal(output(session, "import os; print(os.getcwd(), os.getuid())"), f"{WORKDIR} 0")
    result = session.run("import sys; print('out'); sys.exit('reason')")
    equal((result.exit_code, result.stdout, result.stderr), (1, "out\n", "reason\n"))
    contains(session.run("1 / 0").stderr, "ZeroDivisionError")


def packages(session: BaseSession) -> None:
    equal(output(session, IMPORTS), "6")


def as_the_user_of_the_image(tag: str) -> None:
    user = image_user(tag)
    for skip in [True, False]:
        with SandboxSession(**options(tag, "/app", user=user), skip_environment_setup=skip) as session:
            equal(output(session, IMPORTS), "6")
            equal(output(session, "import os; print(f'{os.getuid()}:{os.getgid()}')"), user)
            equal(output(session, "open('made', 'w').write('x'); print(open('made').read())"), "x")


def interactive_session(tag: str) -> None:
    with InteractiveSandboxSession(**options(tag)) as session:
        output(session, "import numpy, pandas\nframe = pandas.DataFrame({'a': numpy.arange(4)})")
        equal(output(session, "print(frame.a.sum())"), "6")
        failed = session.run("1 / 0")
        equal(failed.exit_code, 1)
        contains(failed.stdout + failed.stderr, "ZeroDivisionError")
        equal(output(session, "%timeit -n1 -r1 None\nprint(len(frame))").splitlines()[-1], "4")


def plots(tag: str) -> None:
    for skip in [False, True]:
        with ArtifactSandboxSession(**options(tag), skip_environment_setup=skip) as session:
            result = session.run(PLOT)
            equal((result.exit_code, [plot.format.value for plot in result.plots]), (0, ["png"]))
            equal(base64.b64decode(result.plots[0].content_base64)[:8], b"\x89PNG\r\n\x1a\n")
            equal(session.run("print('none')", clear_plots=True).plots, [])


def files(session: BaseSession) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        content = "a,b\n1,ü\n3,4\n"
        (folder / "in.csv").write_text(content)
        session.copy_to_runtime(str(folder / "in.csv"), f"{WORKDIR}/data/in.csv")
        output(session, "open('out.csv', 'w').write(open('data/in.csv').read())")
        session.copy_from_runtime(f"{WORKDIR}/out.csv", str(folder / "out.csv"))
        equal((folder / "out.csv").read_text(), content)
        (folder / "tree/inner").mkdir(parents=True)
        (folder / "tree/inner/file").write_text("inner")
        session.copy_to_runtime(str(folder / "tree"), f"{WORKDIR}/tree")
        equal(output(session, "print(open('tree/inner/file').read())"), "inner")


def commands(session: BaseSession) -> None:
    result = session.execute_command("sh -c 'pwd; echo error >&2; exit 7'", workdir=WORKDIR)
    equal((result.exit_code, result.stdout, result.stderr), (7, f"{WORKDIR}\n", "error\n"))
    for command in ["python", "python3", "bash -lc 'python \"$@\"' python"]:
        result = session.execute_command(f'{command} -c "{IMPORTS}"')
        equal((result.exit_code, result.stdout, result.stderr), (0, "6\n", ""))


def long_output(session: BaseSession) -> None:
    equal(len(output(session, "print('x' * 3_000_000)")), 3_000_000)
    parts: list[str] = []
    output(session, "for number in range(5000): print(number)", on_stdout=parts.append)
    equal("".join(parts).split(), [str(number) for number in range(5000)])


def timeout(session: BaseSession) -> None:
    try:
        session.run("import time; time.sleep(60)", timeout=2)
    except SandboxTimeoutError:
        equal(output(session, "print('alive')"), "alive")
    else:
        raise AssertionError("no timeout")


def packages_through_pip(session: BaseSession) -> None:
    """A session without an environment of its own refuses to install."""
    output(session, WRITE_WHEEL)
    equal(output(session, "import client_trial; print(client_trial.ANSWER)", libraries=["client-trial"]), "42")


def pool(tag: str) -> None:
    config = PoolConfig(min_pool_size=1, max_pool_size=2, enable_prewarming=True)
    manager = create_pool_manager(backend="docker", config=config, **options(tag))
    try:
        for _ in range(2):
            with SandboxSession(pool=manager, lang="python") as session:
                equal(output(session, IMPORTS), "6")
    finally:
        manager.close()


def closes(session: BaseSession) -> None:
    start = time.monotonic()
    session.close()
    below(time.monotonic() - start, 5)
    equal(containers(), [])


SHARED = [code, packages, commands, files, long_output, timeout]
OWN = [interactive_session, as_the_user_of_the_image, plots, pool]


def passes(tag: str) -> Iterator[tuple[str, Check]]:
    for mode, skip in [("default", False), ("without_setup", True)]:
        session = SandboxSession(**options(tag), skip_environment_setup=skip)
        yield f"{mode}_opens", session.open
        for shared in SHARED if skip else [*SHARED, packages_through_pip]:
            yield f"{mode}_{shared.__name__}", partial(shared, session)
        yield f"{mode}_closes", partial(closes, session)
    for own in OWN:
        yield own.__name__, partial(own, tag)


if __name__ == "__main__":
    prove(passes)
