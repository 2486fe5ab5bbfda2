"""Lay files over an image.

    python -I copy.py FOLDER

`FOLDER/copies.json` is a list of objects with `to`, `is_folder` and `owner`; the files of the first are in `FOLDER/0`,
and so on. Folders that are there already keep their owner and mode, and links to folders are followed.
"""

import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path


def pairs(source: Path, to: Path, is_folder: bool) -> Iterator[tuple[Path, Path]]:
    """Files with their places in the image."""
    for folder, _, names in os.walk(source):
        for name in sorted(names):
            path = Path(folder, name)
            yield path, to / path.relative_to(source) if is_folder else to


def make_folder(path: Path, owner: tuple[int, int]) -> None:
    """Make a folder with its parents; those that are new belong to `owner`."""
    if not path.is_dir():
        make_folder(path.parent, owner)
        path.mkdir(mode=0o755)
        os.chown(path, *owner)


def main(root: Path) -> None:
    for number, copy in enumerate(json.loads((root / "copies.json").read_text())):
        to, owner = Path(copy["to"]), tuple(copy["owner"])
        if copy["is_folder"]:
            make_folder(to, owner)
        for source, target in pairs(root / str(number), to, copy["is_folder"]):
            make_folder(target.parent, owner)
            if target.is_dir():
                sys.exit(f"{target} is a folder; a destination that ends in / is the folder a file goes into")
            # A link could lead anywhere; a file that is in use stays as it is for whoever has it open.
            if target.is_symlink() or target.exists():
                target.unlink()
            shutil.copyfile(source, target)
            os.chmod(target, 0o755 if os.access(source, os.X_OK) else 0o644)
            os.chown(target, *owner)


if __name__ == "__main__":
    os.umask(0o022)
    main(Path(sys.argv[1]))
