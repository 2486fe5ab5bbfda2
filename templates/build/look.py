"""Tell what was installed: the largest packages, and shared libraries that some need and nothing here has.

    python -I look.py

Distributions that `request/base.txt` lists were there before and are not told. Prints one line, `ipybox-look: ` and a JSON object with `largest` ([name, bytes], the largest first), `bytes` of all
packages, those of CUDA as `cuda`, and `missing` (names of packages by that of the library).
"""

import glob
import json
import os
import re
import struct
import sys
from importlib.metadata import Distribution, distributions

MOST = 5
"""Packages that are named."""

FOLDERS = (
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/lib/*-linux-*",
    "/usr/lib/*-linux-*",
    "/usr/local/lib/*-linux-*",
)
"""Where libraries of the system are; `/etc/ld.so.conf` names more."""

OF_DRIVERS = ("libcuda.so", "libnvidia-", "libnvcuvid.so", "libnvoptix.so", "libhsa", "libamdhip", "libze_", "libOpenCL.so")
"""Libraries that the driver of a host brings into containers."""

DYNAMIC, LOAD = 2, 1
NEEDED, STRINGS = 1, 5


def needed(path: str) -> list[str]:
    """The shared libraries that an ELF file of 64 bits names; none for other files."""
    with open(path, "rb") as file:
        head = file.read(64)
        if len(head) < 64 or head[:6] != b"\x7fELF\x02\x01":
            return []
        (table,) = struct.unpack_from("<Q", head, 32)
        size, count = struct.unpack_from("<HH", head, 54)
        file.seek(table)
        segments = [struct.unpack_from("<IIQQQQ", file.read(size)) for _ in range(count)]
        found = [(offset, length) for kind, _, offset, _, _, length in segments if kind == DYNAMIC]
        if not found:
            return []
        file.seek(found[0][0])
        entries = list(struct.iter_unpack("<qQ", file.read(found[0][1] // 16 * 16)))
        strings = next((value for tag, value in entries if tag == STRINGS), None)
        if strings is None:
            return []
        names = []
        for kind, _, offset, address, _, length in segments:
            if kind == LOAD and address <= strings < address + length:
                for tag, value in entries:
                    if tag == NEEDED:
                        file.seek(offset + strings - address + value)
                        names.append(file.read(256).split(b"\0")[0].decode(errors="replace"))
        return names


def system() -> set[str]:
    """The names of the libraries that the system has."""
    folders = {found for pattern in FOLDERS for found in glob.glob(pattern)}
    for listing in ["/etc/ld.so.conf", *glob.glob("/etc/ld.so.conf.d/*.conf")]:
        try:
            with open(listing) as file:
                folders.update(line.strip() for line in file if line.startswith("/"))
        except OSError:
            continue
    folders.add(os.path.join(sys.base_prefix, "lib"))
    return {name for folder in folders if os.path.isdir(folder) for name in os.listdir(folder) if ".so" in name}


def normalized(name: str) -> str:
    """A distribution's name as the standard compares it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def of_base() -> set[str]:
    """The distributions that were there before."""
    try:
        with open("request/base.txt") as file:
            return {normalized(line.split("==")[0]) for line in file}
    except OSError:
        return set()


def look(installed: list[Distribution], of_system: set[str], held: set[str]) -> dict[str, object]:
    """What is told of these distributions; those that are `held` only bring libraries."""
    sizes: dict[str, int] = {}
    libraries: dict[str, list[str]] = {}
    for distribution in installed:
        name = str(distribution.metadata["Name"])
        if name in sizes:
            continue
        is_held = normalized(name) in held
        if not is_held:
            sizes[name] = 0
        for file in distribution.files or []:
            path = str(distribution.locate_file(file))
            try:
                size = os.stat(path).st_size
            except OSError:
                continue
            if not is_held:
                sizes[name] += size
            if ".so" in file.name:
                libraries.setdefault(name, []).append(path)
    # Packages bring libraries for themselves and for others, and find them in their own ways.
    there = of_system | {os.path.basename(path) for paths in libraries.values() for path in paths}
    missing: dict[str, set[str]] = {}
    for name, paths in libraries.items():
        for path in paths if name in sizes else []:
            try:
                wanted = needed(path)
            except (OSError, struct.error):
                continue
            for library in wanted:
                if library not in there and not library.startswith(OF_DRIVERS):
                    missing.setdefault(library, set()).add(name)
    largest = sorted(sizes.items(), key=lambda entry: (-entry[1], entry[0]))[:MOST]
    return {
        "largest": largest,
        "bytes": sum(sizes.values()),
        "cuda": sum(size for name, size in sizes.items() if name.lower().startswith("nvidia-")),
        "missing": {library: sorted(names) for library, names in sorted(missing.items())},
    }


if __name__ == "__main__":
    print("ipybox-look:", json.dumps(look(list(distributions()), system(), of_base())))
