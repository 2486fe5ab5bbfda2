"""Leave in a pylock.toml of uv only the files whose hashes a list admits.

    python -I hashes.py PYLOCK HASHES

HASHES is a JSON object of `sha256:...` lists by distribution. Ends with an error where a distribution has no file left.
"""

import json
import re
import sys

PACKAGE = "[[packages]]\n"
FILE = re.compile(r"\{[^{}]*hashes = \{ sha256 = \"([0-9a-f]+)\" \}[^{}]*\}")


def admitted(package: str, hashes: dict[str, list[str]]) -> str:
    """The table of a package, without the files that are not admitted."""
    name = re.match(r'name = "([^"]+)"', package)
    allowed = hashes.get(name[1]) if name else None
    if name is None or allowed is None:
        return package
    files = FILE.findall(package)
    if not any(f"sha256:{digest}" in allowed for digest in files):
        sys.exit(f"{name[1]}: no file of the version that was resolved has a hash of the list")
    # An empty item of an array is left where a file was; then the comma goes, too.
    kept = FILE.sub(lambda file: file[0] if f"sha256:{file[1]}" in allowed else "", package)
    kept = re.sub(r"^sdist = *\n", "", kept, flags=re.MULTILINE)
    return re.sub(r"(?<=[\[\n]) *,", "", kept)


def main(pylock: str, hashes: str) -> None:
    with open(hashes) as file:
        allowed = json.load(file)
    with open(pylock) as file:
        head, *packages = file.read().split(PACKAGE)
    with open(pylock, "w") as file:
        file.write(PACKAGE.join([head, *(admitted(package, allowed) for package in packages)]))


if __name__ == "__main__":
    main(*sys.argv[1:])
