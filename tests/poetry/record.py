"""Record what poetry-core answers about constraints, dependency tables and markers.

    python3.11 -m venv /tmp/poetry && /tmp/poetry/bin/pip install poetry-core==2.3.1
    /tmp/poetry/bin/python tests/poetry/record.py

The cases come from cases.json, from real.jsonl and from the strings in poetry-core's own
tests, whose source archive is asked of pip.
`record.py --harvest DIR` first refreshes real.jsonl from the source archives in DIR.
"""

from __future__ import annotations

import ast
import json
import logging
import random
import re
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from collections.abc import Iterable, Iterator
from importlib.metadata import version as installed
from itertools import combinations, product, zip_longest
from pathlib import Path
from typing import Any

from packaging.markers import Marker as PackagingMarker
from poetry.core.constraints.version import Version, VersionConstraint, parse_constraint
from poetry.core.factory import Factory
from poetry.core.packages.dependency import Dependency
from poetry.core.packages.project_package import ProjectPackage
from poetry.core.version.markers import BaseMarker, parse_marker

PINNED = "2.3.1"
HERE = Path(__file__).parent
SEED = 20240229

ENVIRONMENTS: list[dict[str, str]] = json.loads((HERE / "environments.json").read_text())
CASES: dict[str, Any] = json.loads((HERE / "cases.json").read_text())

SUFFIX = r"(?:[-_.]?(?:alpha|beta|preview|pre|post|rev|dev|rc|a|b|c|r)[-_.]?\d*)*(?:-\d+)?"
VERSION = re.compile(rf"(?:\d+!)?\d+(?:\.\d+)*{SUFFIX}(?:\+[a-z0-9.]+)?", re.IGNORECASE)
KNOWN_HOSTS = re.compile(r"://(?!(?:www\.)?(?:github|gitlab|bitbucket|example)\.)")

CACHED = [
    function
    for module in list(sys.modules.values())
    if module.__name__.startswith("poetry.core")
    for function in vars(module).values()
    if hasattr(function, "cache_clear")
]


def forget() -> None:
    """Empty poetry-core's caches: an earlier marker can change what a later one answers."""
    for function in CACHED:
        function.cache_clear()


def numbers(release: Iterable[int], epoch: int) -> str:
    return (f"{epoch}!" if epoch else "") + ".".join(map(str, release))


def neighbours(version: Version) -> Iterator[list[str]]:
    """Versions at and around the edges that `version` can set, the most telling first."""
    epoch = version.epoch
    parts = [version.major, version.minor, version.patch, *version.non_semver_parts]
    release = [part or 0 for part in parts][: version.release.precision]
    own = numbers(release, epoch)
    following = numbers([*release[:-1], release[-1] + 1], epoch)
    minor = numbers([release[0], (release[1] if len(release) > 1 else 0) + 1], epoch)
    major = numbers([release[0] + 1], epoch)
    exact = version.without_local().to_string()
    yield [own, exact, f"{own}.dev0", f"{own}a1", f"{own}.post1", f"{own}+local"]
    yield [
        version.to_string(),
        *([] if version.is_devrelease() else [f"{exact}.dev0"]),
        f"{exact}+local",
        *(following + tail for tail in ("", ".dev0", "a1")),
        *(edge + tail for edge in (minor, major) for tail in (".dev0", "", "a1")),
        *([numbers([*release[:-1], release[-1] - 1], epoch)] if release[-1] else []),
    ]
    yield [f"{own}.0", f"{own}.1", f"{own}a0", f"{own}b1", f"{own}rc1", f"{own}.post0"]
    yield [f"{own}.post1.dev0", f"{following}.post1", f"{following}+local"]
    yield [numbers(release[:-1] or [0], epoch), numbers(release, 1 if not epoch else 0), "0", "9999"]


def grid(text: str, limit: int) -> list[str]:
    found = dict.fromkeys(VERSION.findall(text)[:6] or ["1.0", "0.0.dev0"])
    tiers = zip(*(neighbours(Version.parse(version.lower())) for version in found))
    mixed = (name for tier in tiers for row in zip_longest(*tier) for name in row if name)
    return list(dict.fromkeys(mixed))[:limit]


def split(constraint: VersionConstraint, versions: Iterable[str]) -> dict[str, str]:
    sides: tuple[list[Version], list[Version]] = ([], [])
    for version in map(Version.parse, versions):
        sides[constraint.allows(version)].append(version)
    outside, inside = (" ".join(v.to_string() for v in sorted(side)) for side in sides)
    return {"in": inside, "out": outside}


def holds(marker: BaseMarker, environment: dict[str, str]) -> str:
    try:
        return str(int(marker.validate(environment)))
    except ValueError:
        return "?"


def truth(marker: BaseMarker) -> str:
    return "".join(holds(marker, environment) for environment in ENVIRONMENTS)


# Constraints.


def generated_constraints() -> Iterator[str]:
    given = CASES["constraints"]
    operators, versions, joins = given["operators"], given["versions"], given["joins"]
    yield from given["odd"]
    for operator, version in product(operators + given["wrong_operators"], versions):
        yield operator + version
    for operator, version in product(operators[1:], versions[:44]):
        yield f"{operator} {version}"
    for pair, join in product(given["pairs"], joins):
        yield from (join.join(pair), join.join(reversed(pair)))
    for pair in given["pairs"]:
        text = ",".join(pair)
        yield from (f"{text},", f",{text}", f"{text}||", f"||{text}", f"{text} || ", f" {text} ", f"{text} ,")
    chosen = random.Random(SEED)
    simple = [operator + version for operator, version in product(operators, versions[:36])]
    simple = [text for text in simple if not text.startswith(("<>", "==="))]
    bounds = ["0.9", "1.0", "1.2.3", "1.5a1", "2", "3.0.dev0"]
    ranges = [f">={low},<{high}" for low, high in combinations(bounds, 2)]
    for _ in range(450):
        yield chosen.choice(joins[:9]).join(chosen.sample(simple, 2))
    for _ in range(350):
        yield chosen.choice([" || ", "||", ",", " "]).join(chosen.sample(simple, 3))
    for _ in range(300):
        yield " || ".join(chosen.sample(ranges, 2) + chosen.sample(simple, chosen.randrange(2)))


def answer_constraint(text: str) -> dict[str, Any]:
    forget()
    try:
        constraint = parse_constraint(text)
    except Exception:
        return {"text": text, "refused": True}
    return {"text": text, **split(constraint, grid(text, 45))}


# Markers.


def generated_markers() -> Iterator[str]:
    given = CASES["markers"]
    yield from given["odd"]
    atoms = [
        (f'{name} {operator} "{value}"', f"'{value}' {operator} {name}")
        for name, values in given["values"].items()
        for operator, value in product(given["operators"], values)
    ]
    for plain, reversed_operands in atoms:
        yield from (plain, reversed_operands)
    chosen = random.Random(SEED)
    accepted = [plain for plain, _ in atoms if "refused" not in answer_marker(plain) and "extra" not in plain]
    for _ in range(450):
        a, b, c, d = chosen.sample(accepted, 4)
        yield chosen.choice([
            f"{a} and {b}", f"{a} or {b}", f"{a} or {b} and {c}", f"({a} or {b}) and {c}", f"{a} and ({b} or {c})",
            f"({a} and {b}) or ({c} and {d})", f"(({a})or({b}))and({c}or {d})", f"{a} and {b} or {c} and {d}",
        ])  # fmt: skip


def answer_marker(text: str) -> dict[str, Any]:
    forget()
    try:
        marker = parse_marker(text)
    except Exception:
        return {"text": text, "refused": True, "pep508": is_pep508(text)}
    return {"text": text, "truth": truth(marker)}


def is_pep508(text: str) -> bool:
    """Tell markers that only poetry-core refuses from those that packaging refuses, too."""
    try:
        PackagingMarker(text)
    except Exception:
        return False
    return True


# Tables.


def toml_value(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml_key(k)} = {toml_value(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def toml_key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else json.dumps(key, ensure_ascii=False)


def toml_entry(name: str, value: Any) -> str:
    return f"{toml_key(name)} = {toml_value(value)}"


def generated_entries() -> Iterator[Any]:
    given = CASES["tables"]
    bases, pythons, platforms, markers = (given[key] for key in ("bases", "python", "platform", "markers"))
    options = {key: given.get(key, []) + values for key, values in given["options"].items()}
    for base in bases:
        for key, values in options.items():
            yield from (base | {key: value} for value in values)
        for first, second in combinations(options, 2):
            yield base | {first: options[first][0], second: options[second][0]}
    _, versioned, git, *_ = bases
    for python, platform in product(pythons[:14], platforms[:6]):
        yield versioned | {"python": python, "platform": platform}
    for python, marker in product(pythons[:14], markers[:5]):
        yield versioned | {"python": python, "markers": marker}
    for platform, marker in product(platforms[:6], markers[:5]):
        yield git | {"platform": platform, "markers": marker}
    chosen = random.Random(SEED)
    yield from chosen.sample(sorted(set(generated_constraints())), 350)
    members = ["^1", "<2", "bad!", *bases, *(versioned | {"python": python} for python in pythons[:10])]
    for size, count in ((1, 19), (2, 120), (3, 60)):
        yield from (chosen.sample(members, size) for _ in range(count))


def generated_tables() -> Iterator[str]:
    given = CASES["tables"]
    yield from given["odd"]
    yield from (toml_entry("demo", value) for value in generated_entries())
    for name, value in product(given["names"], ["^1.0", {"version": "*", "extras": ["B", "a"]}, ["^1", "bad!"], 1]):
        yield toml_entry(name, value)
    yield from (toml_entry("python", value) for value in [*given["python"], {"version": "^3.9"}, ["^3.9", "^3.10"]])


def source(entry: Any, dependency: Dependency) -> dict[str, Any]:
    subdirectory = entry.get("subdirectory") if isinstance(entry, dict) else None
    develop = getattr(dependency, "develop", False)
    if dependency.is_vcs():
        ref = entry.get("branch") or entry.get("tag") or entry.get("rev")
        where = {"type": "git", "url": entry["git"], "ref": ref or None}
        return where | {"subdirectory": subdirectory, "develop": develop}
    if dependency.is_url():
        return {"type": "url", "url": entry["url"], "subdirectory": subdirectory}
    if dependency.is_file() or dependency.is_directory():
        path = entry["file"] if "file" in entry else entry["path"]
        return {"type": "path", "path": path, "subdirectory": subdirectory, "develop": develop}
    return {"type": "registry", "index": dependency.source_name}


def describe(name: str, entry: Any, root: Path) -> dict[str, Any]:
    dependency = Factory.create_dependency(name, entry, root_dir=root)
    where = source(entry, dependency)
    registry = where["type"] == "registry"
    versions = grid(dependency.pretty_constraint, 40) if registry else []
    return {
        "name": dependency.name,
        "extras": sorted(dependency.extras),
        "optional": dependency.is_optional(),
        "allow_prereleases": dependency.allows_prereleases() if registry else None,
        **split(dependency.constraint, versions[:: max(1, len(versions) // 12)][:12]),
        "marker": truth(dependency.marker),
        "source": where,
    }


def answer_table(text: str, root: Path) -> dict[str, Any]:
    forget()
    try:
        [(name, value)] = tomllib.loads(text).items()
        poetry = {"package-mode": False, "dependencies": {name: value}}
        if errors := Factory.validate({"tool": {"poetry": poetry}})["errors"]:
            raise ValueError(errors)
        entries = value if isinstance(value, list) else [value]
        if name.lower() == "python":
            project = ProjectPackage("root", "0")
            for entry in (entry for entry in entries if isinstance(entry, str)):
                project.python_versions = entry
            python = entries[-1] if isinstance(entries[-1], str) else None
            return {"toml": text, "python": python, "dependencies": []}
        dependencies = [describe(name, entry, root) for entry in entries]
    except Exception:
        return {"toml": text, "refused": True}
    return {"toml": text, "python": None, "dependencies": dependencies}


# Cases found in the world.

MARKER_NAMES = re.compile("|".join([*CASES["markers"]["values"], "os.name", "sys.platform", "python_implementation"]))


def archived(archive: Path, suffix: str) -> Iterator[tuple[str, str]]:
    with tarfile.open(archive) as files:
        for member in files:
            if member.isfile() and member.name.endswith(suffix):
                content = files.extractfile(member)
                assert content is not None
                yield member.name, content.read().decode("utf-8", "replace")


def poetry_entries(document: str) -> Iterator[str]:
    try:
        poetry = tomllib.loads(document)["tool"]["poetry"]
        groups = [poetry, *poetry.get("group", {}).values()]
        tables = [group.get(key, {}) for group in groups for key in ("dependencies", "dev-dependencies")]
        yield from (toml_entry(name, value) for table in tables for name, value in table.items())
    except (tomllib.TOMLDecodeError, KeyError, AttributeError, TypeError):
        return


def harvest(directory: Path) -> None:
    cases: set[tuple[str, str]] = set()
    for archive in directory.glob("*.tar.gz"):
        for _, text in archived(archive, ".toml"):
            cases |= {("toml", entry) for entry in poetry_entries(text) if not KNOWN_HOSTS.search(entry)}
        for _, text in archived(archive, "/PKG-INFO"):
            cases |= {("marker", found) for found in re.findall(r"(?m)^Requires-Dist:[^;\n]+;\s*(.+)$", text)}
    write("real.jsonl", ({kind: text} for kind, text in sorted(cases)))


def literals() -> list[str]:
    """The short strings of poetry-core's own tests of constraints, dependencies and markers."""
    with tempfile.TemporaryDirectory() as directory:
        wanted = f"poetry-core=={PINNED}"
        options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-binary=:all:", f"--dest={directory}"]
        subprocess.run([sys.executable, "-m", "pip", "download", *options, wanted], check=True)
        [archive] = Path(directory).glob("*.tar.gz")
        tested = re.compile(r"/tests/(constraints/version|packages|version|test_factory\.py)")
        trees = [ast.parse(text) for path, text in archived(archive, ".py") if tested.search(path)]
    constants = {node.value for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    return [text for text in constants if isinstance(text, str) and len(text) <= 300 and not KNOWN_HOSTS.search(text)]


def looks_like_constraint(text: str) -> bool:
    return len(text) <= 60 and bool(re.search(r"[\d*]", text)) and not re.search(r"[\n'\"/@]", text)


def entry_constraints(text: str) -> Iterator[str]:
    for value in tomllib.loads(text).values():
        for entry in value if isinstance(value, list) else [value]:
            found = [entry.get("version"), entry.get("python")] if isinstance(entry, dict) else [entry]
            yield from (constraint for constraint in found if isinstance(constraint, str))


def write(name: str, rows: Iterable[dict[str, Any]]) -> None:
    lines = [json.dumps(row, separators=(",", ":")) + "\n" for row in rows]
    (HERE / name).write_text("".join(lines))
    print(f"{name}: {len(lines)} cases, {sum('refused' in line for line in lines)} refused")


def main() -> None:
    assert installed("poetry-core") == PINNED
    logging.disable()
    if sys.argv[1:2] == ["--harvest"]:
        harvest(Path(sys.argv[2]))
    real = [json.loads(line) for line in (HERE / "real.jsonl").read_text().splitlines()]
    entries = [case["toml"] for case in real if "toml" in case]
    own = literals()
    constraints = {text for text in own if looks_like_constraint(text)} | set(generated_constraints())
    constraints |= {constraint for entry in entries for constraint in entry_constraints(entry)}
    markers = {text for text in own if MARKER_NAMES.search(text)} | set(generated_markers())
    markers |= {case["marker"] for case in real if "marker" in case}
    write("constraints.jsonl", map(answer_constraint, sorted(constraints)))
    write("markers.jsonl", map(answer_marker, sorted(markers)))
    with tempfile.TemporaryDirectory() as empty:
        tables = sorted({*entries, *generated_tables()})
        write("tables.jsonl", (answer_table(text, Path(empty)) for text in tables))


if __name__ == "__main__":
    main()
