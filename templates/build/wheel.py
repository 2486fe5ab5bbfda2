"""Build a wheel of a source, as a user who can change nothing but a folder of its own.

    python -I wheel.py SOURCE WHEELS [INDEXES [SECONDS]]

SOURCE is a JSON object with `name`, `requirement` (a line of a requirements file) and `is_indexed` (whether an index is
asked for the source). The folder WHEELS gets the wheel, once it was looked at. Where INDEXES is named, `index.py` asks
them, and pip nobody else. A build that takes longer than SECONDS is given up.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from email.parser import Parser
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, TypedDict

SOURCES = "/dev/ipybox/sources"
"""Where files of this build's host are, by the names of their distributions."""

NOBODY = 65534
LIMIT = 1800.0
"""Seconds for one build."""


class Source(TypedDict):
    name: str
    requirement: str
    is_indexed: bool


def normal(name: str) -> str:
    return re.sub("[-_.]+", "-", name).lower()


def give_up(source: Source, why: str) -> NoReturn:
    sys.exit(f"cannot build `{source['name']}`: {why}")


@contextlib.contextmanager
def served(source: Source, indexes: str) -> Iterator[str]:
    """The address of the index that asks `indexes`, while it is needed."""
    command = [sys.executable, "-I", "-B", str(Path(__file__).with_name("index.py")), indexes]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        try:
            port = server.stdout.readline().strip() if server.stdout else ""
            if not port:
                give_up(source, "its package indexes cannot be asked")
            yield f"http://127.0.0.1:{port}/simple/"
        finally:
            server.kill()


def variables(home: Path, index: str) -> dict[str, str]:
    """What pip, and what it runs, gets to know of this process's variables."""
    withheld = ("NETRC", "PIP_EXTRA_INDEX_URL") if index else ("NETRC",)
    known = {name: value for name, value in os.environ.items() if name not in withheld}
    if index:
        own = known.get("no_proxy") or known.get("NO_PROXY", "")
        direct = own if own == "*" else ",".join(filter(None, (own, "127.0.0.1")))
        # One question may be one to several indexes.
        patience = str(5 * float(known.get("PIP_DEFAULT_TIMEOUT") or 60))
        known |= {"NO_PROXY": direct, "no_proxy": direct, "PIP_DEFAULT_TIMEOUT": patience, "PIP_NO_INPUT": "1"}
        # Files of pip may name more indexes, and a build may start pip by itself.
        known |= {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": index}
    # Debug information would name folders that are called otherwise each time.
    return known | {"HOME": str(home), "TMPDIR": str(home), "CFLAGS": "-g0", "CXXFLAGS": "-g0"}


def build(source: Source, folder: Path, index: str, limit: float) -> Path:
    """The wheel that pip makes in `folder`."""
    local = Path(SOURCES, source["name"])
    if local.exists():
        shutil.copytree(local, folder / source["name"], symlinks=True)
    listed, wheels, home = folder / "requirements.txt", folder / "wheels", folder / "home"
    listed.write_text(source["requirement"].replace(SOURCES, str(folder)) + "\n")
    for own in (wheels, home):
        own.mkdir()
    as_nobody: dict[str, Any] = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
    if as_nobody:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    command = [sys.executable, "-I", "-m", "pip", "wheel", "--disable-pip-version-check", "--no-deps", "--no-cache-dir"]
    command += ["--progress-bar", "off", "--wheel-dir", str(wheels), "--requirement", str(listed)]
    if source["is_indexed"]:
        command += ["--no-binary", source["name"]]
    if index:
        command += ["--index-url", index]
    process = subprocess.Popen(command, env=variables(home, index), cwd=home, start_new_session=True, **as_nobody)
    try:
        status = process.wait(limit)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        give_up(source, f"it takes longer than {limit:.0f} s")
    if status != 0:
        give_up(source, f"pip ended with exit code {status}")
    made = sorted(wheels.iterdir())
    if len(made) != 1:
        give_up(source, f"it made {len(made)} files instead of one wheel")
    return made[0]


def opened(source: Source, wheel: Path) -> BinaryIO:
    """The file that is at a path now, whatever is there later; no link is followed."""
    try:
        file = os.fdopen(os.open(wheel, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb")
        if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            return file
    except OSError:
        pass
    give_up(source, f"it made `{wheel.name}`, which is no wheel")


def end_all() -> None:
    """End what a build has left running; nobody else runs here as its user."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if os.geteuid() == 0 and process.stat().st_uid == NOBODY:
                os.kill(int(process.name), signal.SIGKILL)


def check(source: Source, wheel: Path, file: BinaryIO) -> str:
    """Refuse what is no wheel of this distribution; its version."""
    parts = wheel.name.removesuffix(".whl").split("-")
    if not wheel.name.endswith(".whl") or len(parts) not in (5, 6):
        give_up(source, f"it made `{wheel.name}`, which is no wheel")
    name, version = parts[:2]
    if normal(name) != normal(source["name"]):
        give_up(source, f"it made a wheel of another distribution, `{name}`")
    try:
        with zipfile.ZipFile(file) as archive:
            metadata = Parser().parsestr(archive.read(f"{name}-{version}.dist-info/METADATA").decode())
    except (KeyError, ValueError, zipfile.BadZipFile) as error:
        give_up(source, f"its wheel cannot be read: {error}")
    if normal(metadata["Name"] or "") != normal(name) or (metadata["Version"] or "") != version.replace("_", "+"):
        told = f"{metadata['Name']} {metadata['Version']}"
        give_up(source, f"its wheel says that it is `{told}`, and is called `{wheel.name}`")
    return version


def main(described: str, wheels: str, indexes: str = "", limit: str = str(LIMIT)) -> None:
    source: Source = json.loads(Path(described).read_text())
    # The same name each time: builds write it into what they make.
    folder = Path(tempfile.gettempdir(), "source")
    folder.mkdir()
    try:
        with served(source, indexes) if indexes else contextlib.nullcontext("") as index:
            wheel = build(source, folder, index, float(limit))
        end_all()
        with opened(source, wheel) as file:
            version = check(source, wheel, file)
            Path(wheels).mkdir(parents=True, exist_ok=True)
            file.seek(0)
            with Path(wheels, wheel.name).open("wb") as copy:
                shutil.copyfileobj(file, copy)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"built a wheel of {source['name']} {version}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
