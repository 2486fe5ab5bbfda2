"""Install a lock with pip and with uv, and compare what they install with what is in /opt/venv."""

import hashlib
import subprocess
import sys
import sysconfig
from pathlib import Path

PIP = "pip>=26.1"
OF_INSTALLERS = {"INSTALLER", "RECORD", "REQUESTED", "direct_url.json", "uv_cache.json"}
"""What says who installed something, and how."""


def run(*command: str) -> None:
    subprocess.run(command, check=True, stdout=sys.stderr)


def packages(prefix: Path) -> Path:
    return Path(sysconfig.get_path("purelib", vars={"base": str(prefix), "platbase": str(prefix)}))


def files(folder: Path) -> dict[str, str]:
    """The digests of the files of an environment, by their places in it."""
    found = {}
    for path in folder.rglob("*"):
        inside = path.relative_to(folder)
        if path.is_dir() or "__pycache__" in inside.parts:
            continue
        if path.parent.name.endswith(".dist-info") and path.name in OF_INSTALLERS:
            continue
        # What every environment has of its own.
        if inside.name in {"_virtualenv.py", "_virtualenv.pth", "distutils-precedence.pth", "ipybox.pth"}:
            continue
        found[str(inside)] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def main(lock: str) -> None:
    tools, with_pip, with_uv = Path("/tmp/tools"), Path("/tmp/pip"), Path("/tmp/uv")
    run(sys.executable, "-m", "venv", "--without-pip", str(tools))
    run(sys.executable, "-m", "pip", "--python", str(tools), "install", "--quiet", PIP, "uv")
    for folder in (with_pip, with_uv):
        run(sys.executable, "-m", "venv", "--without-pip", str(folder))
    run(str(tools / "bin/pip"), "--python", str(with_pip), "install", "--quiet", "--no-compile", "-r", lock)
    run(str(tools / "bin/uv"), "pip", "sync", "--quiet", "--python", str(with_uv), lock)
    ours = files(packages(Path("/opt/venv")))
    assert len(ours) > 1000, len(ours)
    for folder in (with_pip, with_uv):
        theirs = files(packages(folder))
        differ = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
        if differ:
            sys.exit(f"{folder}: {len(differ)} of {len(ours)} differ: {differ[:20]}")
    print("alike")


if __name__ == "__main__":
    main(sys.argv[1])
