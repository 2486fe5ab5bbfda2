"""Print what is wrong with the files of this container, a line each: `owner PATH: why` or `secret PATH: why`.

Runs as root. The image's user is that of the first process.
"""

import base64
import csv
import functools
import hashlib
import os
import re
import stat
from collections.abc import Iterator

THEIRS = ["/opt/venv"]
"""With everything in them."""

THEIR_FOLDERS = ["/app", "/app/workspaces", "/opt/ipybox/run", "/workspace"]
"""What a base has in them is the base's."""

OURS = ["/opt/ipybox", "/usr/local/bin/init-firewall.sh"]
MOST = 5
"""Findings told of one kind."""

SUSPECTS = (".pem", ".crt", ".cer", ".key", ".p12", ".pfx", ".netrc", ".pypirc", ".git-credentials")
NAMES = {"netrc", "_netrc", "credentials", "id_rsa", "id_ecdsa", "id_ed25519"}
SEARCHED = ("/etc", "/root", "/home", "/app", "/tmp", "/var/tmp", "/run", "/usr/local/share", "/opt/ipybox")
"""Folders whose small files are read whatever their names."""

PUBLIC = ("/etc/pki/", "/etc/ssl/", "/etc/ca-certificates/", "/usr/share/", "/var/lib/ca-certificates/", "/opt/conda/ssl/")
"""Where a system without dpkg, or conda, keeps the certificates that everybody has."""

CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
PRIVATE = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----")
LOGIN = re.compile(rb"\b(machine|default)\b.*\bpassword\b|https?://[^/\s@]+@[\w.-]", re.DOTALL)


def files(top: str) -> Iterator[tuple[str, os.stat_result]]:
    """`top` and what lies below it on the same file system. Files that vanish meanwhile are left out."""
    device = os.lstat(top).st_dev
    yield top, os.lstat(top)
    for folder, folders, names in os.walk(top, onerror=unreadable):
        for name in [*folders, *names]:
            path = os.path.join(folder, name)
            try:
                found = os.lstat(path)
            except FileNotFoundError:
                continue
            if found.st_dev != device and name in folders:
                folders.remove(name)
            else:
                yield path, found


def unreadable(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error


def owners() -> Iterator[str]:
    with open("/proc/1/status") as lines:
        ids = dict(line.split(":", 1) for line in lines)
    # Everything is of group 0, which clusters start containers with, whatever user they choose.
    user, group = int(ids["Uid"].split()[0]), 0
    for top in THEIRS:
        if not os.path.isdir(top):
            yield f"{top}: is not there"
            continue
        # What code compiles as it is imported has the group that it runs with.
        wrong = (
            path
            for path, found in files(top)
            if found.st_uid != user or found.st_gid != group and "/__pycache__" not in path
        )
        yield from (f"{path}: does not belong to {user}:{group}" for path in first(wrong))
    for top in filter(os.path.isdir, THEIR_FOLDERS):
        found = os.stat(top)
        if (found.st_uid, found.st_gid) != (user, group):
            yield f"{top}: does not belong to {user}:{group}"
        elif found.st_mode & 0o070 != 0o070:
            yield f"{top}: members of group {group} may not write there"
    for top in OURS:
        for path, found in files(top) if os.path.exists(top) else ():
            if os.path.dirname(path) == "/opt/ipybox/run" or path == "/opt/ipybox/run":
                continue
            writable = found.st_mode & 0o022 and not stat.S_ISLNK(found.st_mode)
            if found.st_uid != 0 or writable:
                yield f"{path}: others than root may change it"


def first(paths: Iterator[str]) -> list[str]:
    return [path for path, _ in zip(paths, range(MOST))]


def packaged() -> set[str]:
    """The files of Debian packages; empty on other systems."""
    info = "/var/lib/dpkg/info"
    real = functools.cache(os.path.realpath)
    found = set()
    for name in os.listdir(info) if os.path.isdir(info) else ():
        if name.endswith(".list"):
            with open(os.path.join(info, name), errors="surrogateescape") as lines:
                for line in lines.read().splitlines():
                    found.add(f"{real(os.path.dirname(line))}/{os.path.basename(line)}")
    return found


def recorded() -> dict[str, str]:
    """The files of installed distributions, and their hashes as RECORD has them."""
    found = {}
    for path, status in files("/"):
        if path.endswith(".dist-info/RECORD") and stat.S_ISREG(status.st_mode):
            folder = os.path.dirname(os.path.dirname(path))
            with open(path, newline="", errors="surrogateescape") as rows:
                for row in csv.reader(line.replace("\0", "") for line in rows):
                    if len(row) > 1:
                        found[os.path.normpath(os.path.join(folder, row[0]))] = row[1]
    return found


def secrets() -> Iterator[str]:
    debian, distributions = packaged(), recorded()
    public: set[bytes] = set()
    for path in debian:
        if path.startswith("/usr/share/ca-certificates/") and os.path.isfile(path):
            with open(path, "rb") as file:
                public.update(CERTIFICATE.findall(file.read()))
    for path, found in files("/"):
        small = found.st_size < 65536 and path.startswith(SEARCHED)
        named = path.endswith(SUSPECTS) or os.path.basename(path) in NAMES
        if not stat.S_ISREG(found.st_mode) or not (small or named) or found.st_size > 4 << 20:
            continue
        try:
            with open(path, "rb") as file:
                content = file.read()
        except FileNotFoundError:
            continue
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
        if os.path.realpath(path) in debian or distributions.get(path) == f"sha256={digest}":
            continue
        if PRIVATE.search(content):
            yield f"{path}: holds a private key"
        elif any(one not in public for one in CERTIFICATE.findall(content)):
            if debian or not path.startswith(PUBLIC) or "/anchors/" in path:
                yield f"{path}: holds a certificate that no package brings"
        elif LOGIN.search(content) and (named or path.startswith(("/root", "/home"))):
            yield f"{path}: holds a password"


if __name__ == "__main__":
    for kind, findings in [("owner", owners()), ("secret", secrets())]:
        for finding in first(findings):
            print(kind, finding)
