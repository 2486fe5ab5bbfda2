"""Record what poetry-core and packaging answer to every operator with every shape of version.

    /tmp/poetry/bin/pip install packaging==25.0
    /tmp/poetry/bin/python tests/poetry/shapes.py

README.md says how that environment is made.
"""

from __future__ import annotations

from importlib.metadata import version as installed
from itertools import product
from typing import Any

from packaging.specifiers import InvalidSpecifier, Specifier
from poetry.core.constraints.version import Version, parse_constraint
from record import PINNED, grid, numbers, write

PACKAGING = "25.0"
OPERATORS = ["", "=", "^", "~", "~=", "==", "!=", "<", "<=", ">", ">="]
RELEASES = ["1", "1.2", "1.2.3", "1.2.3.4", "1.2.3.4.5", "1.2.3.4.5.6", "0", "0.0", "0.0.3", "0.0.0.4", "1!2", "1!2.3.4.5"]
SUFFIXES = ["", "a1", "b2", "rc1", ".post1", ".dev1", "a1.post1", "a1.dev2", ".post1.dev2", "+x.1", "a1+x", ".post1+x"]


def poetry(text: str, probes: list[str]) -> str | None:
    try:
        constraint = parse_constraint(text)
    except Exception:
        return None
    return "".join(str(int(constraint.allows(Version.parse(probe)))) for probe in probes)


def packaging(text: str, probes: list[str]) -> str | None:
    try:
        specifier = Specifier(text, prereleases=True)
    except InvalidSpecifier:
        return None
    return "".join(str(int(specifier.contains(probe))) for probe in probes)


def edges(version: str) -> list[str]:
    """Where each segment of the release is one higher, which is where ranges end."""
    parsed = Version.parse(version)
    segments = [part or 0 for part in (parsed.major, parsed.minor, parsed.patch, *parsed.non_semver_parts)]
    release = segments[: parsed.release.precision]
    raised = [numbers([*release[:at], part + 1], parsed.epoch) for at, part in enumerate(release)]
    return [edge + suffix for edge in raised for suffix in ("", ".dev0")]


def answers(version: str) -> dict[str, Any]:
    plain = version.removesuffix(".*")
    probes = list(dict.fromkeys([*grid(plain, 20), *edges(plain)]))
    by = {name: {operator: ask(operator + version, probes) for operator in OPERATORS}
          for name, ask in (("poetry", poetry), ("packaging", packaging))}
    return {"version": version, "probes": " ".join(probes), **by}


def main() -> None:
    assert (installed("poetry-core"), installed("packaging")) == (PINNED, PACKAGING)
    versions = ["".join(parts) for parts in product(RELEASES, SUFFIXES, ["", ".*"])]
    write("shapes.jsonl", map(answers, versions))


if __name__ == "__main__":
    main()
